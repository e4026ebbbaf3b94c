"""Scores at every threshold from one merge tree, without reading a voxel.

The segmentation at threshold t is the union of all merges that score at least t. So the table (truth, supervoxel) is
relabelled step by step from the highest threshold down, and becomes smaller at each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import MIN_NEURON_VOXELS, Scores, score

STEADY = 0.1
"""How far around a threshold its neighbours are averaged, where one is chosen for other tissue."""
ROUNDING = 1e-9
"""Thresholds that differ by less are one."""


class MergeTree(Protocol):
    """The part of a merge tree that a sweep needs: three columns of equal length."""

    @property
    def a(self) -> np.ndarray:
        """The first region of each merge, an id of at least 1."""

    @property
    def b(self) -> np.ndarray:
        """The second region of each merge, an id of at least 1."""

    @property
    def score(self) -> np.ndarray:
        """The score of each merge; infinite for parts of one supervoxel that chunk faces cut."""


@dataclass(frozen=True)
class Merges:
    """A ``MergeTree`` made of three arrays."""

    a: np.ndarray
    b: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class SweepPoint:
    """The scores at one threshold."""

    threshold: float
    scores: Scores


def sweep(
    contingency: Contingency,
    tree: MergeTree,
    thresholds: Iterable[float],
    *,
    min_neuron_voxels: int = MIN_NEURON_VOXELS,
) -> list[SweepPoint]:
    """Score, for every threshold t, the union of all merges that score at least t.

    Args:
        contingency: (truth, supervoxel) counts, before any merge.
        tree: the merges, in any order.
        thresholds: in any order; equal ones count once.
        min_neuron_voxels: as for ``score``.

    Returns:
        One point a threshold, the lowest threshold first.

    Raises:
        VolumeError: the table is empty, a score or threshold is not a number, or a merge names the id 0.
    """
    limits = np.unique(np.asarray(list(thresholds), np.float64))[::-1]
    _check(tree, limits)
    order = np.argsort(-np.asarray(tree.score, np.float64), kind="stable")
    ends = np.searchsorted(-np.asarray(tree.score, np.float64)[order], -limits, side="right")
    ids = np.unique(np.concatenate([contingency.predicted, tree.a, tree.b]).astype(np.uint64))
    first, second = (np.searchsorted(ids, np.asarray(side)[order].astype(np.uint64)) for side in (tree.a, tree.b))
    root, table, done, points = np.arange(len(ids)), contingency, 0, []
    for limit, end in zip(limits, ends, strict=True):
        if end > done:
            root = _united(root, first[done:end], second[done:end])
            table, done = table.relabelled(ids, ids[root]), end
        points.append(SweepPoint(float(limit), score(table, min_neuron_voxels=min_neuron_voxels)))
    return points[::-1]


def best(points: Sequence[SweepPoint]) -> SweepPoint:
    """The point with the smallest total VOI; of equal ones that with the highest threshold, which merges least.

    Raises:
        VolumeError: there is no point.
    """
    if not points:
        raise VolumeError("0 thresholds: the best of at least one can be chosen; give some")
    return min(points, key=lambda point: (point.scores.voi, -point.threshold))


def steadiest(points: Sequence[SweepPoint], within: float = STEADY) -> SweepPoint:
    """The point with the smallest mean VOI of all thresholds at most ``within`` away; of equal ones the highest.

    A sweep over few neurons has narrow dips, where one merge happens to be right; on other tissue they lie elsewhere.
    So a threshold for other tissue is chosen where its neighbours are good too. Thresholds whose neighbourhood reaches
    beyond the sweep do not count, unless all do.

    Raises:
        VolumeError: there is no point.
    """
    lowest = best(points)
    at, voi = np.array([[point.threshold, point.scores.voi] for point in points]).T
    inside = (at - within >= at.min() - ROUNDING) & (at + within <= at.max() + ROUNDING)
    if not inside.any():
        return lowest
    means = np.array([voi[np.abs(at - middle) <= within + ROUNDING].mean() for middle in at])
    return points[int(min(np.flatnonzero(inside), key=lambda k: (means[k], -at[k])))]


def _check(tree: MergeTree, limits: np.ndarray) -> None:
    """Refuse scores and thresholds that are not numbers, and merges of the id 0."""
    if np.isnan(limits).any() or np.isnan(np.asarray(tree.score, np.float64)).any():
        raise VolumeError("nan among thresholds or scores: merges need an order; segment again")
    if len(tree.a) and min(int(np.min(tree.a)), int(np.min(tree.b))) < 1:
        raise VolumeError("a merge with id 0: 0 is no region and never merges; segment again")


def _united(root: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Representatives after more merges: for every node the smallest index of its component, int (n,)."""
    from scipy.sparse import coo_array  # most commands import this file and draw no sweep
    from scipy.sparse.csgraph import connected_components

    size = len(root)
    links = coo_array((np.ones(len(first), np.int8), (root[first], root[second])), shape=(size, size))
    _, component = connected_components(links, directed=False)
    smallest = np.empty(component.max() + 1, np.intp)
    smallest[component[::-1]] = np.arange(size)[::-1]  # of several assignments the last one stays: the smallest index
    return smallest[component[root]]
