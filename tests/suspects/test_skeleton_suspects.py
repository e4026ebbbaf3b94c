"""Ends and crossings of skeletons as suspects: what is planted is found, the same in any chunks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.suspects import tables
from pipeline.suspects.calibration import fitted
from pipeline.suspects.candidates import KINDS, SOURCES, Candidates, find_candidates, is_used
from pipeline.suspects.costs import Costs
from pipeline.suspects.crossings import Crossings
from pipeline.suspects.ends import Ends
from pipeline.suspects.forest import Forest, forests
from pipeline.suspects.listing import TABLE, write_list
from pipeline.suspects.model import Model
from pipeline.suspects.oracle import Oracle
from pipeline.suspects.ranking import rank, weighed
from pipeline.suspects.tables import Tables
from pipeline.suspects.touching import is_inside, touching
from pipeline.suspects.truth import count_truth, open_labels
from pipeline.viewing.suspects import COLOURS, LAYERS
from tests.runs import petaseg, run, write_volume
from tests.suspects.planted_bars import NM, SHAPE, WALL, bars_run

CHUNKS = [SHAPE, (23, 50, 43), (40, 31, 120)]
NO_LOOK = Costs(look=0, look_merger=0)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory) -> Run:
    """A finished run with a wall across a bar, and two bars that cross and are merged."""
    return run(bars_run(tmp_path_factory.mktemp("crossed"), CHUNKS[1]))


def found(finished: Run, kind: str) -> Candidates:
    """The candidates of one kind that comes in one part."""
    (part,) = (each for each in find_candidates(Tables(finished)) if each.kind == kind)
    return part


def oracle(finished: Run) -> Oracle:
    """The true bars."""
    return Oracle.of(count_truth(finished, open_labels(finished, f"{finished.url}/../truth.zarr")))


def test_both_ends_at_the_wall_are_found(crossed):
    """The two sides of the wall each propose the other, at the wall, and ends at the border of the volume nothing."""
    ends = found(crossed, "end")
    assert len(ends) == 2
    assert (ends.supervoxels[0] == ends.supervoxels[1]).all()
    assert sorted(ends.places[:, 2]) == [WALL - 1, WALL]
    assert oracle(crossed).judge(ends)[0].all()
    assert ends.feature("near") == pytest.approx(np.log([100, 100]), abs=1)
    assert (ends.feature("first") > 0.5).all()
    assert np.exp(ends.feature("branch")) == pytest.approx([WALL * NM] * 2, rel=0.1)


def test_the_planted_crossing_is_found(crossed):
    """The crossing of two bars is the join that merged them, at the crossing, and cutting it leaves two bars."""
    crossing = found(crossed, "crossing")
    assert len(crossing) == 1
    assert oracle(crossed).judge(crossing)[0].all()
    assert np.abs(crossing.places[0] - [20, 55, 55]).max() <= 5
    assert crossing.sides[0].tolist() == pytest.approx([12_000, 12_000], rel=0.01)
    assert crossing.feature("straight")[0] > 0.95


def test_any_chunks_and_shares_give_the_same_list(tmp_path, monkeypatch):
    """The list with ends and crossings is the same byte for byte in any chunks and shares."""

    def listed(folder: Path, chunk) -> bytes:
        opened.forget()
        finished = run(bars_run(folder, chunk))
        ranked, places = rank(finished, Model.bundled(), NO_LOOK)
        assert {"end", "crossing"} <= set(ranked.kind.tolist())
        write_list(finished, ranked, places)
        return (folder / "run" / TABLE).read_bytes()

    first, *others = (listed(tmp_path / str(number), chunk) for number, chunk in enumerate(CHUNKS))
    assert others == [first] * len(others)
    monkeypatch.setattr(tables, "ROWS", 400)
    assert listed(tmp_path / "shares", CHUNKS[1]) == first


def test_a_correction_is_listed_once(crossed):
    """A join or two segments that several kinds find stand in the list once, with the most minutes."""
    ranked, _ = rank(crossed, Model.bundled(), NO_LOOK, top=100_000)
    every = [weighed(each, Model.bundled(), NO_LOOK, 16.0**3 / 1e9) for each in find_candidates(Tables(crossed))]
    (end,) = {tuple(pair) for each in every for pair in np.sort(each.segments, axis=1)[each.kind == "end"]}
    at_wall = [m for each in every for m in each.minutes[(np.sort(each.segments, axis=1) == end).all(axis=1)]]
    (cut,) = {tuple(pair) for each in every for pair in each.supervoxels[each.kind == "crossing"]}
    joined = [m for each in every for m in each.minutes[(each.supervoxels == cut).all(axis=1)]]
    assert (len(at_wall), len(joined)) == (3, 2)
    assert ranked.minutes[(np.sort(ranked.segments, axis=1) == end).all(axis=1)].tolist() == [max(at_wall)]
    assert ranked.minutes[(ranked.supervoxels == cut).all(axis=1)].tolist() == [max(joined)]


def test_a_shorter_list_is_the_beginning_of_a_longer_one(crossed):
    """The best places are the same however many are kept, also where kinds find the same correction."""
    long, _ = rank(crossed, Model.bundled(), NO_LOOK)
    for top in (1, 2, 3, 5):
        short, _ = rank(crossed, Model.bundled(), NO_LOOK, top=top)
        assert short.supervoxels.tolist() == long.supervoxels[:top].tolist()
        assert short.kind.tolist() == long.kind[:top].tolist()


def test_a_run_without_skeletons_says_what_adds_them(tmp_path):
    """Without the branch there are no ends; the command names the branch, and after ``petaseg add`` it finds them."""
    file = bars_run(tmp_path, skeletons=None)
    finished = run(file)
    used = [name for name, source in SOURCES.items() if is_used(source, Tables(finished))]
    assert used == ["merge tree"]
    said = petaseg("suspects", file)
    assert said.returncode == 0, said.stderr
    assert f"for ends of skeletons and crossings of skeletons: petaseg add {file} skeletons" in said.stdout.replace(
        "\n", ""
    )
    added = petaseg("add", file, "skeletons", "--quiet")
    assert added.returncode == 0, added.stderr
    again = petaseg("suspects", file, "--look", "0", "--look-merger", "0")
    assert again.returncode == 0, again.stderr
    assert "looked at: merge tree, ends of skeletons, crossings of skeletons" in again.stdout
    assert "crossing" in again.stdout


def test_ends_near_masked_voxels_are_none(tmp_path):
    """An end beside voxels that a mask excludes is where the tissue ends, and proposes nothing."""
    mask = np.ones(SHAPE, np.uint8)
    mask[:, 20:30, WALL + 2] = 0
    given = {"mask": write_volume(tmp_path / "mask.zarr", mask, resolution_nm=(NM, NM, NM))}
    finished = run(bars_run(tmp_path, given=given))
    (forest,) = forests(finished)
    assert len(Ends.of(forest, finished).segments) >= 2
    assert len(found(finished, "end")) == 0


def test_what_ends_touch_is_what_a_plain_loop_counts(crossed):
    """Faces between an end's segment and others are those that a loop over all voxels near it finds."""
    (forest,) = forests(crossed)
    ends = Ends.of(forest, crossed)
    near = touching(crossed, ends.voxels, ends.segments, ends.headings)
    labels, supervoxels = (crossed.layout.read(name, crossed.layout.roi) for name in ("labels", "supervoxels"))
    for number, (voxel, segment) in enumerate(zip(ends.voxels, ends.segments, strict=True)):
        faces: dict[tuple[int, int], int] = {}
        for own in np.argwhere(labels == segment):
            if ((own - voxel) ** 2).sum() * NM**2 > 100**2:
                continue
            for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)):
                other = tuple(own + step)
                if all(0 <= at < side for at, side in zip(other, SHAPE, strict=True)) and labels[other] not in (
                    0,
                    segment,
                ):
                    pair = int(supervoxels[tuple(own)]), int(supervoxels[other])
                    faces[pair] = faces.get(pair, 0) + 1
        mine = near.place == number
        assert dict(zip(map(tuple, near.pairs[mine].tolist()), near.faces[mine].tolist(), strict=True)) == faces


def test_a_walk_ends_where_the_branch_does():
    """Walks stop at an end, at a fork, or as soon as they are long enough, and know their length."""
    places = np.array([[0, 0, n] for n in range(5)] + [[0, 1, 4], [0, -1, 4]], float) * 10
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [4, 6]])
    forest = Forest(np.ones(7, np.uint64), places, np.ones(7), edges)
    stops, lengths, before = forest.walk(np.array([0, 0, 4, 4]), np.array([1, 1, 3, 5]), 25.0)
    assert stops.tolist() == [3, 3, 1, 5]
    assert lengths.tolist() == [30, 30, 30, 10]
    assert before.tolist() == [2, 2, 2, 4]
    whole, lengths, _ = forest.walk(np.array([0, 5]), np.array([1, 4]), 1e9)
    assert whole.tolist() == [4, 4]
    assert lengths.tolist() == [40, 10]


@pytest.mark.parametrize(("bend", "is_found"), [(0, True), (20, True), (60, False)])
def test_only_straight_lines_cross(crossed, bend, is_found):
    """A fork with four long arms is a crossing if they make two lines that hardly bend."""
    turn = np.deg2rad(bend)
    arms = np.array([[0, 0, 1], [0, np.sin(turn), -np.cos(turn)], [0, 1, 0], [0, -1, 0]])
    steps = np.arange(1, 6)[:, None] * 100
    places = np.vstack([np.zeros(3), *(arm * steps for arm in arms)])
    edges = np.concatenate(
        [[[0 if step == 0 else at + step - 1, at + step] for step in range(5)] for at in (1, 6, 11, 16)]
    )
    forest = Forest(np.full(21, 7, np.uint64), places + 1000, np.full(21, 80.0), edges)
    assert len(Crossings.of(forest, crossed).voxels) == is_found


def test_places_near_the_border_are_not_inside(crossed):
    """A voxel is inside if all faces of the region of interest are farther than 100 nm."""
    voxels = np.array([[20, 60, 60], [6, 60, 60], [7, 60, 60], [32, 60, 60], [33, 60, 60]])
    assert is_inside(voxels, crossed).tolist() == [True, False, True, True, False]


def test_a_model_without_numbers_for_a_kind_uses_others(crossed):
    """Too few ends are wrong in the labels: bundled numbers hold for them, and a stated prior for crossings."""
    ends, crossing = found(crossed, "end"), found(crossed, "crossing")
    model = Model("a test", {}).completed()
    assert model.probability(ends).tolist() == Model.bundled().probability(ends).tolist()
    assert model.probability(crossing).tolist() == [KINDS["crossing"].prior]
    with pytest.raises(ConfigError, match="no numbers for a split"):
        model.probability(Candidates.none("split"))
    assert fitted([(oracle(crossed), 1.0, ends)], "a test").kinds == {}


def test_ends_are_fitted_where_there_are_enough(crossed):
    """With twenty ends of each kind, calibration gives them numbers of their own."""
    ends = found(crossed, "end")
    many = ends.chosen(np.repeat([0, 1], 20))
    wrong = replace(
        many, supervoxels=np.repeat([ends.supervoxels[0], found(crossed, "crossing").supervoxels[0]], 20, axis=0)
    )
    model = fitted([(oracle(crossed), 1.0, wrong)], "a test")
    assert set(model.kinds) == {"end"}


def test_every_kind_has_a_layer_in_the_viewer():
    """The viewer has a colour and a name for each kind, so that no place of the list is left out."""
    assert set(COLOURS) == set(LAYERS) == set(KINDS)
