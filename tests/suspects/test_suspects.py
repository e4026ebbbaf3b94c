"""``petaseg suspects``: what is planted is found first, in any chunks, and corrected by an oracle."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.suspects import tables
from pipeline.suspects.calibration import calibrate
from pipeline.suspects.candidates import KINDS, find_candidates
from pipeline.suspects.costs import Costs
from pipeline.suspects.fitting import fit
from pipeline.suspects.listing import COLUMNS, MODEL, TABLE, TEXT, read_list, write_list
from pipeline.suspects.model import Model
from pipeline.suspects.oracle import Oracle, correct
from pipeline.suspects.ranking import rank
from pipeline.suspects.tables import Tables
from pipeline.suspects.truth import count_truth, open_labels
from pipeline.viewing.layers import layers_of_run
from pipeline.viewing.report_page import _suspects as suspects_section
from tests.runs import petaseg, run, write_run, write_volume
from tests.suspects.planted import MERGER, SHAPE, SIDE, SPLIT, planted_run
from workflows.commands.view import Look

CHUNKS = [SHAPE, (17, 30, 23), (10, 13, 50)]
NO_LOOK = Costs(look=0, look_merger=0)


def listed(folder: Path, chunk: tuple[int, int, int]) -> bytes:
    """The bytes of the list of a planted run in these chunks."""
    opened.forget()
    finished = run(planted_run(folder, chunk))
    write_list(finished, *rank(finished, Model.bundled(), NO_LOOK))
    return (folder / "run" / TABLE).read_bytes()


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Run:
    """A finished run with one merger and one split."""
    return run(planted_run(tmp_path_factory.mktemp("planted"), (17, 30, 23)))


def test_planted_errors_come_first(planted):
    """The wall across a rod and the large weak contact of two rods are the first two places, on their voxels."""
    ranked, places = rank(planted, Model.bundled(), NO_LOOK)
    assert ranked.kind[:2].tolist() == ["split", "merger"]
    assert places[0].tolist() in ([*SPLIT], [SPLIT.z - 1, SPLIT.y - 1, SPLIT.x])
    z, y, _ = places[1]
    assert y == MERGER
    assert z >= 2 * SIDE
    assert ranked.probability[0] > 0.5
    assert (np.diff(ranked.minutes) <= 0).all()


def test_any_chunks_and_any_shares_give_the_same_list(tmp_path, monkeypatch):
    """The file is the same byte for byte in any chunks, and if a share holds a few contacts only."""
    first, *others = (listed(tmp_path / str(number), chunk) for number, chunk in enumerate(CHUNKS))
    assert others == [first] * len(others)
    monkeypatch.setattr(tables, "ROWS", 40)
    assert listed(tmp_path / "shares", CHUNKS[1]) == first


def test_shares_hold_each_segment_once(planted):
    """Of several shares, no more than one is in memory, and together they hold what a single one holds."""
    whole, parts = Tables(planted).share(0), Tables(planted, rows=40)
    assert parts.shares > 3
    shares = list(parts)
    assert sorted(np.concatenate([share.ids for share in shares])) == whole.ids.tolist()
    assert max(len(share.pairs) for share in shares) < len(whole.pairs)
    assert len(np.concatenate([share.merges for share in shares])) == len(whole.merges)


def test_only_the_best_are_kept(planted):
    """A shorter list is the beginning of a longer one."""
    long, places = rank(planted, Model.bundled(), NO_LOOK)
    short, first = rank(planted, Model.bundled(), NO_LOOK, top=5)
    assert len(short) == 5 < len(long)
    assert short.supervoxels.tolist() == long.supervoxels[:5].tolist()
    assert first.tolist() == places[:5].tolist()


def test_places_lie_on_their_contacts(planted):
    """The voxel of each place belongs to one of the two supervoxels, and a low neighbour to the other."""
    ranked, places = rank(planted, Model.bundled(), NO_LOOK)
    volume = opened.volume(planted.layout.volume_url("supervoxels")).read(planted.layout.roi)
    for pair, place in zip(ranked.supervoxels, places, strict=True):
        around = {int(volume[tuple(place - step)]) for step in np.eye(3, dtype=int) if (place >= step).all()}
        here = int(volume[tuple(place)])
        assert here in pair
        assert {*pair.tolist()} - {here} <= around


def test_mergers_add_up_to_their_scores(planted):
    """The contacts of supervoxels that belong to a merge have its stored score as their mean."""
    share = Tables(planted).share(0)
    mergers = next(iter(find_candidates(Tables(planted))))
    assert sorted(mergers.feature("score")) == sorted(share.merges["score"])
    strengths = np.exp(mergers.feature("contact")) * mergers.feature("score") * 255
    assert strengths.sum() == pytest.approx(share.sums[share.inner].sum())


def test_an_oracle_corrects_all_that_is_wrong(planted):
    """With true labels, the two planted places alone are wrong, and VOI is 0 after both are corrected."""
    oracle = Oracle.of(count_truth(planted, open_labels(planted, f"{planted.url}/../truth.zarr")))
    ranked, _ = rank(planted, Model.bundled(), NO_LOOK)
    found = list(find_candidates(Tables(planted)))
    wrong = {tuple(pair): oracle.judge(each)[0][row] for each in found for row, pair in enumerate(each.supervoxels)}
    real = [wrong[tuple(pair)] for pair in ranked.supervoxels]
    assert np.flatnonzero(real).tolist() == [0, 1]
    places = zip(ranked.kind, ranked.supervoxels, real, strict=True)
    look, mend = {"merger": 1, "split": 1}, {"merger": 10, "split": 2}
    steps = correct(oracle.table, found[0].supervoxels, places, look=look, mend=mend, marks=(1, 2, 5))
    assert [step.voi for step in steps] == [
        pytest.approx(steps[0].voi),
        *(pytest.approx(v) for v in (steps[1].voi, 0, 0)),
    ]
    assert steps[0].voi > steps[1].voi > 0
    assert [step.minutes for step in steps] == [0, 3, 14, 17]
    assert [step.corrected for step in steps] == [0, 1, 2, 2]


def test_the_command_lists_and_writes(planted):
    """The command prints the places and writes both tables; another threshold makes the list stale."""
    said = petaseg("suspects", planted.url, "--look", "0", "--look-merger", "0", "--top", "3", "--csv")
    assert said.returncode == 0, said.stderr
    assert all(word in said.stdout for word in ("split", "view", "Takemura"))
    rows = list(csv.DictReader((Path(planted.url) / TEXT).read_text().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 3
    suspects = read_list(planted)
    assert [each.rank for each in suspects] == [1, 2, 3]
    assert [int(rows[0][axis]) for axis in "zyx"] == [*suspects[0].place]
    assert read_list(Run.open(planted.url, ["segmentation.threshold=0.7"])) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibrate", "a.zarr", "--model", "b.json"], "leave one out"),
        (["--box", "0:9,0:9,0:9"], "give --calibrate LABELS as well"),
        (["--model", "missing.json"], "missing.json does not exist"),
        (["--split", "inf"], "a split inf"),
        (["--calibrate", "{run}/../truth.zarr"], "at least 10 must be wrong"),
        (["--set", "segmentation.threshold=0.7"], "no finished assign_segments"),
    ],
)
def test_what_is_refused(planted, options, message):
    """Options that contradict each other, missing models and too few errors are refused in one line."""
    said = petaseg("suspects", planted.url, *(option.format(run=planted.url) for option in options))
    assert said.returncode != 0
    assert message in said.stderr.replace("\n", " ")


def test_a_mask_has_no_suspects(tmp_path):
    """A run that makes no neurons is refused."""
    head = np.full((8, 8, 8), 200, np.uint8)
    given = {"heads": {"mito": write_volume(tmp_path / "mito.zarr", head)}}
    file = write_run(tmp_path, input=given, segmentation={"kind": "mask", "head": "mito"})
    said = petaseg("suspects", file)
    assert said.returncode != 0
    assert "suspects are places between neurons" in said.stderr.replace("\n", " ")


def test_a_calibrated_model_is_kept_and_used(tmp_path):
    """``--calibrate`` fits a model to true labels, stores it with the run, and the next list uses it."""
    affinities = np.random.default_rng(0).integers(60, 256, (3, 30, 40, 40)).astype(np.uint8)
    given = {"affinities": write_volume(tmp_path / "affinities.zarr", affinities)}
    file = write_run(tmp_path, input=given, supervoxels={"filter_width": 1}, segmentation={"threshold": 0.6})
    truth = np.zeros((30, 40, 40), np.uint64)
    truth[:, :20], truth[:, 20:] = 7, 8
    labels = write_volume(tmp_path / "truth.zarr", truth)
    finished = run(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.suspects.calibration.LEAST_VOXELS", 1)
        patch.setattr("pipeline.suspects.oracle.LEAST", 1)
        model = calibrate(finished, labels)
    assert labels in model.trained_on
    assert {name for name, kind in KINDS.items() if kind.prior is None} <= set(model.kinds)
    finished.store.put(MODEL, model.to_bytes())
    said = petaseg("suspects", file, "--look", "0")
    assert said.returncode == 0, said.stderr
    assert labels in said.stdout.replace("\n", "")


def test_a_model_finds_what_it_was_taught():
    """A fitted model is calibrated: of candidates with a probability around p, a share of p is wrong."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, len(KINDS["split"].features)))
    chance = 1 / (1 + np.exp(1 - 2 * features[:, 0] + features[:, 1] * features[:, 2]))
    wrong = rng.random(20_000) < chance
    found = fit("split", features, wrong).probability(features)
    assert np.abs(found - chance).mean() < 0.03
    for low in (0.1, 0.4, 0.7):
        here = (found > low) & (found < low + 0.2)
        assert wrong[here].mean() == pytest.approx(found[here].mean(), abs=0.03)


def test_a_row_counts_alone():
    """The probability of a candidate does not depend on those around it, not in the last digit."""
    features = np.random.default_rng(0).normal(size=(1001, len(KINDS["merger"].features)))
    model = Model.bundled().kinds["merger"]
    together = model.probability(features)
    assert [model.probability(features[row : row + 1])[0] for row in range(1001)] == together.tolist()


def test_a_model_of_other_features_is_refused():
    """Numbers for features that this petaseg does not have are refused."""
    model = Model.bundled()
    kind = replace(model.kinds["split"], means={"charm": 0.0}, scales={"charm": 1.0}, weights={"charm": 1.0})
    data = replace(model, kinds={"split": kind}).to_bytes()
    assert json.loads(data)["kinds"]["split"]["means"] == {"charm": 0.0}
    with pytest.raises(ConfigError, match="calibrate again"):
        Model.parse(data, "model.json")


def test_costs_follow_the_size():
    """A merger costs ten times a split, a large one ten times a small one, and a crumb nothing."""
    candidates = next(find_candidates_like([100, 10_000, 10**9]))
    saved = {kind: Costs().saved(replace(candidates, kind=kind), 1e-6) for kind in KINDS}
    assert saved["merger"] == pytest.approx(10 * saved["split"])
    assert saved["split"] == pytest.approx([0, 0.1 * (1 + 9 * 0.2), 1.0])
    with pytest.raises(ConfigError, match="minutes must be at least 0"):
        Costs(look=-1)
    with pytest.raises(ConfigError, match="at most 1,000,000,000"):
        Costs(split=1e308, large=1e308)


def find_candidates_like(smaller: list[int]):
    """Candidates with these voxels on their smaller side."""
    from pipeline.suspects.candidates import Candidates

    sides = np.array([smaller, smaller]).T
    yield replace(Candidates.none("split"), sides=sides)


def test_the_viewer_looks_at_a_suspect(planted):
    """A suspect is looked at with its segments, and all are points; what is no place of the list is refused."""
    write_list(planted, *rank(planted, Model.bundled(), NO_LOOK))
    suspects = read_list(planted)
    look = Look().at_suspect(planted, 2)
    assert (look.place, look.segments) == (suspects[1].place, suspects[1].labels)
    state = look.state(planted, layers_of_run(planted), "http://127.0.0.1:1/layers")
    points = [point for layer in state["layers"] if layer["type"] == "annotation" for point in layer["annotations"]]
    assert sorted(int(point["id"]) for point in points) == [each.rank for each in suspects]
    assert state["position"] == [index + 0.5 for index in reversed(suspects[1].place)]
    with pytest.raises(ConfigError, match=f"suspect 99999 of {len(suspects)}"):
        Look().at_suspect(planted, 99999)
    with pytest.raises(ConfigError, match="two places"):
        look.at_suspect(planted, 1)
    with pytest.raises(ConfigError, match="name its run directory"):
        Look().at_suspect(None, 1)


def test_the_report_names_the_first_places(planted):
    """The section has the first places with the command that shows each, and is left out without a list."""
    write_list(planted, *rank(planted, Model.bundled(), NO_LOOK))
    section = suspects_section(planted)
    assert "view" in section
    assert "--suspect 1<" in section
    assert "--suspect 21<" not in section
    assert suspects_section(Run.open(planted.url, ["segmentation.threshold=0.7"])) == ""
