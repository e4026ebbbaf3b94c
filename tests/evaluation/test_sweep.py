"""A sweep over the merge tree scores each threshold as relabelling the voxels does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.cluster.hierarchy import DisjointSet

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import score
from pipeline.evaluation.sweep import Merges, SweepPoint, best, steadiest, sweep

IDS = np.array([3, 10, 11, 40, 2**63, 2**64 - 1], np.uint64)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Merges]:
    shape = draw(arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5))
    truth = draw(arrays.arrays(np.uint32, shape, elements=st.integers(0, 3)))
    truth.flat[0] = 1
    leaves = np.concatenate([[np.uint64(0)], IDS])[draw(arrays.arrays(np.int8, shape, elements=st.integers(0, 5)))]
    count = draw(st.integers(0, 8))
    ends = [IDS[draw(arrays.arrays(np.int8, count, elements=st.integers(0, 5)))] for _ in "ab"]
    scores = draw(arrays.arrays(np.float64, count, elements=st.sampled_from([0.0, 0.25, 0.5, 0.9, np.inf])))
    return truth, leaves, Merges(*ends, scores)


def relabelled(leaves: np.ndarray, tree: Merges, threshold: float) -> np.ndarray:
    sets = DisjointSet([0, *IDS.tolist()])
    for a, b, value in zip(tree.a.tolist(), tree.b.tolist(), tree.score.tolist(), strict=True):
        if value >= threshold:
            sets.merge(a, b)
    return np.array([min(sets.subset(i)) for i in leaves.ravel().tolist()], np.uint64).reshape(leaves.shape)


@given(cases(), st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0, np.inf]), min_size=1))
def test_a_sweep_is_relabelling_the_voxels_at_each_threshold(case, thresholds: list[float]) -> None:
    truth, leaves, tree = case
    points = sweep(Contingency.from_labels(truth, leaves), tree, thresholds, min_neuron_voxels=2)
    assert [point.threshold for point in points] == sorted(set(thresholds))
    for point in points:
        voxels = relabelled(leaves, tree, point.threshold)
        assert point.scores == score(Contingency.from_labels(truth, voxels), min_neuron_voxels=2)


def test_the_best_point_has_the_smallest_voi_and_merges_least() -> None:
    truth = np.repeat([1, 2], 40)
    leaves = np.repeat([1, 2, 3, 4], 20)
    tree = Merges(np.array([1, 3, 1]), np.array([2, 4, 3]), np.array([0.8, 0.7, 0.2]))
    points = sweep(Contingency.from_labels(truth, leaves), tree, [0.1, 0.3, 0.5, 0.75, 0.9])
    assert [point.scores.voi for point in points] == [1, 0, 0, 0.5, 1]
    assert best(points).threshold == 0.5


def curve(vois: list[float]) -> list[SweepPoint]:
    """Points at 0, 0.05, 0.1 ... of given VOI, all of it split."""
    scores = score(Contingency.from_labels(np.ones(3, int), np.ones(3, int)))
    return [SweepPoint(0.05 * k, replace(scores, voi_split=voi)) for k, voi in enumerate(vois)]


def test_the_steadiest_point_lies_where_its_neighbours_are_good_too() -> None:
    """A narrow dip is the best point; the steadiest one lies in the middle of the wide valley, as low or not."""
    points = curve([5, 5, 0.5, 5, 5, 2, 1, 0.9, 1, 2, 5, 5])
    assert best(points).threshold == pytest.approx(0.1)
    assert steadiest(points).threshold == pytest.approx(0.35)
    assert steadiest(points, 0).threshold == best(points).threshold


def test_the_steadiest_point_has_its_neighbourhood_within_the_sweep() -> None:
    """Thresholds near the ends are not chosen, unless the sweep is too short; of equal ones the highest is."""
    assert steadiest(curve([0, 0, 1, 1, 1, 1, 1])).threshold == pytest.approx(0.1)
    assert steadiest(curve([1] * 7)).threshold == pytest.approx(0.2)
    assert steadiest(curve([2, 1, 3])).threshold == pytest.approx(0.05)


def test_what_has_no_order_or_meaning_is_refused() -> None:
    table = Contingency.from_labels(np.ones(3, int), np.ones(3, int))
    none = Merges(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0))
    with pytest.raises(VolumeError, match="nan"):
        sweep(table, none, [float("nan")])
    with pytest.raises(VolumeError, match="id 0"):
        sweep(table, Merges(np.array([0]), np.array([1]), np.array([0.5])), [0.5])
    with pytest.raises(VolumeError, match="at least one"):
        best([])
    assert sweep(table, none, []) == []
    assert isinstance(sweep(table, none, [0.5])[0], SweepPoint)
