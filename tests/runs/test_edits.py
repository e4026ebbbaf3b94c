"""Edits of neurons: a run stores what applying them by hand in memory gives, at any threshold and in any chunking."""

from __future__ import annotations

import random
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from pipeline.errors import ConfigError, LeaseError
from pipeline.runs.edit_log import KEY, EditLog, read_log, replace_log
from pipeline.runs.editing import plan_edits, plan_undo
from pipeline.runs.edits_named import Wanted, merge_of, split_of
from pipeline.runs.preview import preview
from pipeline.runs.report import read_merge_tree
from pipeline.runs.run import Run
from pipeline.runs.summary import summarise
from pipeline.runs.verify import verify_run
from pipeline.segmentation.edits import MERGE, SPLIT, Edit, Fit
from pipeline.segmentation.merge_tree import cut_global
from pipeline.stages import opened
from pipeline.stages.apply_edits import ApplyEdits
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.cut_merge_tree import cut_rules
from pipeline.stages.relabel import Relabel
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from tests.runs import petaseg, real_affinities, results, run, write_run, write_volume

SHAPE = (24, 45, 42)
CHUNK = [12, 15, 14]
RULES = {"agglomeration": {"stop_score": 0.2}, "segmentation": {"threshold": 0.6, "min_size": 30}}


class Died(BaseException):
    """The end of a driver, which no handler of errors delays."""


@pytest.fixture(scope="module")
def affinities(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    return write_volume(folder / "affinities.zarr", real_affinities(shared_data, SHAPE), start=(3, 5, 7))


def new_run(folder: Path, affinities: str, chunk=CHUNK) -> Path:
    """The run file of a finished run."""
    shapes = {"chunk_shape": chunk, "storage_chunk_shape": chunk}
    file = write_run(folder, input={"affinities": affinities}, **RULES, **shapes)
    run(file)
    return file


def voxels(finished: Run, name: str) -> np.ndarray:
    opened.forget()
    return open_volume(finished.layout.volume_url(name)).read(finished.layout.roi)


def store(file: Path, edits: list[Edit]) -> None:
    """Add edits to the log as they are, without a look at the result."""
    place = ObjectStore(Run.open(file).home)
    replace_log(place, read_log(place), read_log(place).with_edits(edits))


class ByHand:
    """The supervoxels and contacts of a whole volume in memory, and edits applied to sets of them."""

    def __init__(self, finished: Run) -> None:
        ids, affinities = voxels(finished, "supervoxels"), finished.affinities.read_all(finished.layout.roi)
        self.names, counts = np.unique(ids[ids > 0], return_counts=True)
        self.contacts: dict[tuple[int, int], int] = {}
        for axis in range(3):
            low = np.moveaxis(ids, axis, 0)[:-1].ravel().tolist()
            high = np.moveaxis(ids, axis, 0)[1:].ravel().tolist()
            values = np.moveaxis(affinities[axis], axis, 0)[1:].ravel().tolist()
            for a, b, value in zip(low, high, values, strict=True):
                if a and b and a != b:
                    pair = (min(a, b), max(a, b))
                    self.contacts[pair] = self.contacts.get(pair, 0) + value
        segments = cut_global(read_merge_tree(finished), self.names, counts, cut_rules(finished.setup))
        self.group = dict(zip(self.names.tolist(), segments.tolist(), strict=True))
        self.ties: list[tuple[int, int]] = []
        self.cut: set[tuple[int, int]] = set()

    def apply(self, edit: Edit) -> None:
        if edit.kind == MERGE:
            a, b = edit.first[0], edit.second[0]
            self.ties.append((a, b))
            self._rename(self._members(a) | self._members(b))
            return
        for name in {self.group[each] for each in edit.first} & {self.group[each] for each in edit.second}:
            inside = {each for each, group in self.group.items() if group == name}
            side = self._side(inside, set(edit.first) & inside, set(edit.second) & inside)
            self.cut |= {pair for pair in self.contacts if set(pair) <= inside and len(side & set(pair)) == 1}
            self.ties = [tie for tie in self.ties if not (set(tie) <= inside and len(side & set(tie)) == 1)]
            self._rename(side)
            self._rename(inside - side)

    def _members(self, name: int) -> set[int]:
        return {each for each, group in self.group.items() if group == self.group[name]}

    def _rename(self, members: set[int]) -> None:
        self.group |= dict.fromkeys(members, min(members))

    def _side(self, inside: set[int], first: set[int], second: set[int]) -> set[int]:
        """The supervoxels that the sources hold in the smallest cut that is nearest to them."""
        tied = nx.Graph([tie for tie in self.ties if set(tie) <= inside])
        tied.add_nodes_from(inside)
        blocks = [frozenset(block) for block in nx.connected_components(tied)]
        if any(block & first and block & second for block in blocks):
            blocks = [frozenset([each]) for each in inside]
        of = {each: number for number, block in enumerate(blocks) for each in block}
        graph = nx.Graph()
        graph.add_nodes_from(["source", "sink", *of.values()])
        free = [pair for pair in self.contacts if set(pair) <= inside and pair not in self.cut]
        everything = sum(self.contacts[pair] for pair in free) + 1
        loose = [(tie, everything) for tie in self.ties if set(tie) <= inside]
        for (a, b), weight in [*((pair, self.contacts[pair]) for pair in free), *loose]:
            before = graph.get_edge_data(of[a], of[b], {"capacity": 0})["capacity"]
            graph.add_edge(of[a], of[b], capacity=before + weight)
        graph.add_edges_from([("source", of[each]) for each in first] + [("sink", of[each]) for each in second])
        near = nx.minimum_cut(graph, "sink", "source")[1][1]  # what still reaches the sources
        return {each for each in inside if of[each] in near}

    def labels(self, ids: np.ndarray) -> np.ndarray:
        """The neurons, uint64 (z, y, x), of supervoxels."""
        final = np.array([0, *(self.group[name] for name in self.names.tolist())], np.uint64)
        return final[np.searchsorted(self.names, ids) + (ids > 0)] if ids.any() else ids


def some_edits(hand: ByHand, count: int, seed: int) -> list[Edit]:
    """Random edits that make sense one after another: neighbours are merged, segments of several supervoxels split."""
    dice, edits = random.Random(seed), []
    contacts = sorted(hand.contacts)
    while len(edits) < count:
        if dice.random() < 0.5:
            a, b = dice.choice(contacts)
            edit = Edit(MERGE, (a,), (b,))
            if hand.group[a] == hand.group[b]:
                continue
        else:
            inside = sorted(hand._members(dice.choice(hand.names.tolist())))
            if len(inside) < 4:
                continue
            chosen = dice.sample(inside, dice.choice([2, 3, 4]))
            edit = Edit(SPLIT, tuple(sorted(chosen[:-1])), (chosen[-1],))
        hand.apply(edit)
        edits.append(edit)
    return edits


def proven(finished: Run) -> bool:
    return all(proof.proven for proof in verify_run(finished, None, seed=0))


def test_a_hundred_random_edits_are_those_made_by_hand_at_any_threshold_and_after_a_rerun(
    tmp_path: Path, affinities: str
) -> None:
    """Merges and splits, then another threshold, then a re-run of everything: the neurons of the edits in memory."""
    file = new_run(tmp_path, affinities)
    finished = Run.open(file)
    hand, ids = ByHand(finished), voxels(finished, "supervoxels")
    assert (hand.labels(ids) == voxels(finished, "labels")).all()
    edits = some_edits(hand, 100, seed=1)
    store(file, edits)
    finished = run(file)
    assert (voxels(finished, "labels") == hand.labels(ids)).all()
    assert set(finished.stage("apply_edits").fits()) == {Fit.APPLIED}
    assert proven(finished)
    for threshold in (0.45, 0.8):
        finished = run(file, f"segmentation.threshold={threshold}")
        hand = ByHand(finished)
        for edit in edits:
            hand.apply(edit)
        assert (voxels(finished, "labels") == hand.labels(ids)).all()
    again = run(file, f"segmentation.threshold={threshold}", "agglomeration.stop_score=0.21")
    assert (voxels(again, "labels") == hand.labels(ids)).all()
    names, sizes = np.unique(voxels(again, "labels"), return_counts=True)
    assert summarise(again).segments == (names > 0).sum()
    largest = sorted(zip((-sizes[names > 0]).tolist(), names[names > 0].tolist(), strict=True))
    found = [(-size, label) for label, size in summarise(again).largest]
    assert found == largest[: len(found)]
    assert found


@pytest.mark.parametrize("chunk", [[24, 45, 42], [7, 20, 42], [8, 9, 10]])
def test_any_chunks_give_the_same_bytes(tmp_path: Path, affinities: str, chunk: list[int]) -> None:
    file = new_run(tmp_path / "one", affinities)
    edits = some_edits(ByHand(Run.open(file)), 20, seed=2)
    other = new_run(tmp_path / "other", affinities, chunk)
    store(file, edits)
    store(other, edits)
    assert results(run(file)) == results(run(other))


def test_a_preview_applies_the_edits(tmp_path: Path, affinities: str) -> None:
    """What a preview says of another threshold is what the run has there, edits included."""
    file = new_run(tmp_path, affinities)
    store(file, some_edits(ByHand(Run.open(file)), 20, seed=3))
    here, there = preview(run(file), [0.6, 0.8])
    assert here.is_present
    before = voxels(Run.open(file), "labels")
    found = summarise(run(file, "segmentation.threshold=0.8"))
    assert there.summary.largest == found.largest
    assert (there.summary.segments, there.summary.labelled) == (found.segments, found.labelled)
    differs = voxels(Run.open(file, ["segmentation.threshold=0.8"]), "labels") != before
    chunks = [chunk for chunk in Run.open(file).layout.grid() if differs[chunk.core.slices((3, 5, 7))].any()]
    assert there.rewritten == len(chunks)


@pytest.fixture
def file(tmp_path: Path, affinities: str) -> Path:
    return new_run(tmp_path, affinities)


def two(finished: Run) -> tuple[int, int]:
    """Two segments that touch."""
    hand = ByHand(finished)
    pair = next(pair for pair in sorted(hand.contacts) if hand.group[pair[0]] != hand.group[pair[1]])
    return hand.group[pair[0]], hand.group[pair[1]]


def edit(file: Path, *wanted: Wanted) -> Run:
    """What ``petaseg edit`` does, in this process."""
    opened.forget()
    found = Run.open(file)
    plan_edits(found, wanted).store(found)
    return run(file)


def test_undo_gives_the_bytes_of_before(file: Path) -> None:
    """A run without edits has the labels, tables and fingerprints that it had before there were any."""
    finished = Run.open(file)
    before = results(finished), [stage.fingerprint for stage in finished.stages]
    a, b = two(finished)
    assert results(edit(file, merge_of(f"{a},{b}")))["labels"] != before[0]["labels"]
    plan_undo(Run.open(file), 1).store(Run.open(file))
    finished = run(file)
    assert (results(finished), [stage.fingerprint for stage in finished.stages]) == before


def test_only_chunks_whose_labels_change_are_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge rewrites the chunks that hold the segment that loses its id, and no others."""
    finished = Run.open(file)
    before, (a, b) = voxels(finished, "labels"), two(finished)
    written: list[str] = []
    write = Relabel.write
    monkeypatch.setattr(
        Relabel, "write", lambda self, chunk, made: (write(self, chunk, made), written.append(chunk.name))
    )
    after = voxels(edit(file, merge_of(f"{a},{b}")), "labels")
    changed = {
        chunk.name
        for chunk in finished.layout.grid()
        if (before != after)[chunk.core.slices(finished.layout.roi.start)].any()
    }
    assert set(written) == changed
    assert 0 < len(changed) < len(finished.layout.grid())


@pytest.mark.parametrize(("stage", "left"), [(ApplyEdits, 1), (AssignSegments, 9), (Relabel, 1)])
def test_a_driver_that_dies_in_an_edit_is_gone_on_with(
    file: Path, tmp_path: Path, affinities: str, monkeypatch: pytest.MonkeyPatch, stage: type[ChainStage], left: int
) -> None:
    """The log is stored first, so ``petaseg run`` finishes the edit; until then no other edit is taken."""
    a, b = two(Run.open(file))
    write, countdown = stage.write, [left]

    def dying(self, chunk, products):
        countdown[0] -= 1
        if not countdown[0]:
            raise Died
        write(self, chunk, products)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write", dying)
        with pytest.raises(Died):
            edit(file, merge_of(f"{a},{b}"))
    refused = petaseg("edit", file, "--undo", "1")
    assert "has no finished relabel under this configuration" in " ".join(refused.stderr.split())
    other = new_run(tmp_path / "other", affinities)
    assert results(run(file)) == results(edit(other, merge_of(f"{a},{b}")))


def test_points_name_the_segments_and_supervoxels_in_which_they_lie(file: Path) -> None:
    """A merge by points keeps the supervoxels at the points; a split between two of them parts these."""
    finished = Run.open(file)
    labels, ids, start = voxels(finished, "labels"), voxels(finished, "supervoxels"), finished.layout.roi.start
    a, b = two(finished)
    points = [tuple((np.argwhere(labels == name)[-1] + start).tolist()) for name in (a, b)]
    text = ";".join(",".join(map(str, point)) for point in points)
    merged = voxels(edit(file, merge_of(text)), "labels")
    at = [tuple(np.subtract(point, start)) for point in points]
    assert read_log(ObjectStore(finished.home)).edits[0].supervoxels == tuple(int(ids[each]) for each in at)
    assert (merged == np.where(labels == max(a, b), min(a, b), labels)).all()
    parts = [",".join(map(str, point)) for point in points]
    split = voxels(edit(file, split_of(str(min(a, b)), *parts)), "labels")
    assert split[at[0]] != split[at[1]]
    assert ((split == merged) | (merged == min(a, b))).all()


def masked_run(folder: Path) -> Path:
    """Two blocks of supervoxels with a gap, and a mask."""
    affinities = np.full((3, 8, 8, 24), 255, np.uint8)
    affinities[..., 10:14] = 0
    mask = np.ones((8, 8, 24), np.uint8)
    mask[:2] = 0
    given = {
        "affinities": write_volume(folder / "affinities.zarr", affinities),
        "mask": write_volume(folder / "mask.zarr", mask),
    }
    shapes = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}
    rules = {"supervoxels": {"max_distance_nm": 8, "filter_width": 1}}
    file = write_run(folder, input=given, **shapes, **rules)
    run(file)
    return file


def test_what_does_not_fit_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    """Value, rule and remedy for ids that there are not, points without a segment, and sides that are none."""
    file = masked_run(tmp_path)
    finished = Run.open(file)
    labels = voxels(finished, "labels")
    a, b = (int(labels[5, 5, x]) for x in (2, 20))
    assert a != b
    assert labels[5, 5, 12] == 0, "the gap is wider than what supervoxels reach"
    for wanted, said in {
        merge_of(f"{a},{a}"): f"is about one segment, {a}; a merge needs two",
        merge_of(f"{a},999999999"): "there is no segment and no supervoxel 999999999 in .*labels.zarr",
        merge_of(f"{a},{a + 1}"): f"there is no segment and no supervoxel {a + 1} in",
        merge_of("5,5,2;5,5,24"): r"point 5,5,24 is outside of the region of interest .*; points are z,y,x",
        merge_of("5,5,2;5,5,12"): "point 5,5,12 lies in the background, beyond every segment",
        merge_of("5,5,2;1,5,2"): "point 1,5,2 is masked, so no segment is there",
        split_of(str(a), "5,5,2", "5,5,20"): f"5,5,20 lies in segment {b}, and {a} is to be split",
        split_of(str(a), "5,5,2", "5,5,3"): f"both sides hold supervoxel {a}, and a supervoxel is never divided",
    }.items():
        with pytest.raises(ConfigError, match=said):
            plan_edits(finished, [wanted])
    with pytest.raises(ConfigError, match="would change nothing, since an edit before it has done this already"):
        plan_edits(finished, [merge_of(f"{a},{b}"), merge_of(f"{b},{a}")])
    with pytest.raises(ConfigError, match=r"--undo is 1, and .* has 0 edits"):
        plan_undo(finished, 1)
    assert not (tmp_path / "run" / KEY).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("5", "must name two segments"), ("1,2,3", "must name two segments"), ("1,2;3", "neither an id nor a point")],
)
def test_a_text_that_names_no_merge_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        merge_of(text)


def test_a_split_needs_both_sides() -> None:
    with pytest.raises(ConfigError, match="needs points or supervoxels on both sides"):
        split_of("5", "1,2,3", None)


def test_what_no_longer_fits_is_listed_and_warned_of(file: Path) -> None:
    """A supervoxel that another run does not have leaves its edit out; the others are applied."""
    a, b = two(Run.open(file))
    hand = ByHand(Run.open(file))
    parts = sorted(max((hand._members(name) for name in hand.names.tolist()), key=len))
    gone = int(hand.names.max()) + 1
    store(
        file,
        [
            Edit(MERGE, (a,), (gone,)),
            Edit(MERGE, (a,), (b,)),
            Edit(MERGE, (b,), (a,)),
            Edit(SPLIT, (parts[0], gone), (parts[-1],)),
        ],
    )
    finished = run(file)
    assert finished.stage("apply_edits").fits() == [Fit.MISSING, Fit.APPLIED, Fit.HELD, Fit.PARTLY]
    assert summarise(finished).warnings[0].startswith("2 of 4 edits do not fit to these supervoxels")
    listed = petaseg("edit", file, "--list").stdout
    for words in ("left out: a supervoxel", "applied, but some", "holds without it", "4 edits of"):
        assert words in listed
    finished = run(file, "supervoxels.threshold=0.9")
    assert len(finished.stage("apply_edits").fits()) == 4


def test_a_second_segmentation_has_a_log_of_its_own(file: Path) -> None:
    """Edits of the folder beside change that segmentation alone."""
    before = results(Run.open(file))["labels"]
    made = petaseg("relabel", file, "--threshold", "0.8", "--output", "other.zarr", "--quiet")
    assert made.returncode == 0, made.stderr
    folder = file.parent / "run" / "beside" / "other"
    a, b = two(Run.open(folder))
    done = petaseg("edit", folder, "--merge", f"{a},{b}", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (folder / KEY).exists()
    assert not (file.parent / "run" / KEY).exists()
    assert voxels(Run.open(folder), "labels")[voxels(Run.open(folder), "labels") == max(a, b)].size == 0
    assert results(Run.open(file))["labels"] == before
    assert proven(Run.open(folder))


def test_two_people_do_not_overwrite_each_others_edits(file: Path) -> None:
    """A log that has changed since it was read is not replaced."""
    place = ObjectStore(Run.open(file).home)
    store(file, [Edit(MERGE, (1,), (2,))])
    with pytest.raises(LeaseError, match="was changed by somebody else just now"):
        replace_log(place, EditLog(), EditLog().with_edits([Edit(MERGE, (3,), (4,))]))
    assert read_log(place).edits == (Edit(MERGE, (1,), (2,)),)


def test_the_command_says_what_it_does(file: Path) -> None:
    a, b = two(Run.open(file))
    tried = petaseg("edit", file, "--merge", f"{a},{b}", "--dry-run")
    assert "this would change; nothing is written" in tried.stdout
    assert not (file.parent / "run" / KEY).exists()
    done = petaseg("edit", file, "--merge", f"{a},{b}")
    assert done.returncode == 0, done.stderr
    assert f"before  {min(a, b)} (" in done.stdout
    undone = petaseg("edit", file, "--undo", "1")
    assert f"after   {min(a, b)} (" in undone.stdout
    assert read_log(ObjectStore(Run.open(file).home)) == EditLog()
    both = petaseg("edit", file, "--list", "--undo", "1")
    assert "--undo and --list is given; petaseg edit takes exactly one of" in both.stderr.replace("\n", " ")
    assert ApplyEdits.name not in [stage.name for stage in Run.open(file).stages]


def test_edits_of_another_input_are_not_applied_and_go_with_its_results(file: Path, tmp_path: Path) -> None:
    """A run directory whose results are of another input is refused; ``--overwrite`` deletes results and edits."""
    a, b = two(Run.open(file))
    edit(file, merge_of(f"{a},{b}"))
    other = write_volume(tmp_path / "other.zarr", np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8))
    changed = [f"input.affinities={other}"]
    assert Run.open(file, changed).edits == ()
    refused = petaseg("run", file, "--set", changed[0])
    assert "holds the results of another input" in " ".join(refused.stderr.split())
    assert Run.open(file).edits
    done = petaseg("run", file, "--set", changed[0], "--overwrite", "--quiet")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / KEY).exists()
