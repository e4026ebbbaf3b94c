"""A proofreader who knows the truth: which candidates are wrong, and how VOI falls as they are corrected.

A supervoxel belongs to the true neuron with most of its labelled voxels. It is clear if that has two thirds of them and
there are enough. A merger is real if the two supervoxels that touch there are clear and of different neurons, a split
if they are of one. To correct it is to cut this edge of the segment's tree, or to add it; then VOI follows from the
table (truth, supervoxel), and no voxel is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import score
from pipeline.suspects.candidates import KINDS, Candidates

CLEAR = 2 / 3
LEAST = 30
"""Labelled voxels of a clear supervoxel."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """The true neurons of supervoxels."""

    table: Contingency
    """(truth, supervoxel) counts"""
    ids: np.ndarray
    """uint64 (n,), ascending: supervoxels with labelled voxels"""
    truth: np.ndarray
    """uint64 (n,)"""
    clear: np.ndarray
    """bool (n,)"""

    @classmethod
    def of(cls, table: Contingency) -> Oracle:
        """From counts of labelled voxels; of equally large neurons the smaller id."""
        table = table.without_unassigned()
        order = np.lexsort((table.truth, -table.voxels, table.predicted))
        ids, voxels = table.predicted[order], table.voxels[order]
        first = np.flatnonzero(np.diff(ids, prepend=np.uint64(0)))
        total = np.add.reduceat(voxels, first) if len(first) else voxels
        clear = (voxels[first] >= CLEAR * total) & (total >= LEAST)
        return cls(table, ids[first], table.truth[order][first], clear)

    def judge(self, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates are wrong, and which can be judged since both supervoxels are clear: bool (n,) each."""
        if not len(self.ids):
            return np.zeros(len(candidates), bool), np.zeros(len(candidates), bool)
        place = np.minimum(np.searchsorted(self.ids, candidates.supervoxels), len(self.ids) - 1)
        judged: np.ndarray = ((self.ids[place] == candidates.supervoxels) & self.clear[place]).all(axis=1)
        differ = self.truth[place[:, 0]] != self.truth[place[:, 1]]
        return judged & (differ if KINDS[candidates.kind].error == "merger" else ~differ), judged


@dataclass(frozen=True)
class Step:
    """The state after a number of places."""

    looked: int
    corrected: int
    minutes: float
    """Spent on looking and on mending."""
    voi: float


def correct(
    table: Contingency,
    joins: np.ndarray,
    places: Iterable[tuple[str, np.ndarray, bool]],
    *,
    look: Mapping[str, float],
    mend: Mapping[str, float],
    marks: Collection[int],
) -> list[Step]:
    """Look at places in their order, and correct what is wrong.

    Args:
        table: (truth, supervoxel) counts.
        joins: uint64 (k, 2), the edges of all segments' trees.
        places: error, supervoxels (2,) and whether it is real.
        look: minutes to judge a place of each kind of error.
        mend: minutes to correct one that is real.
        marks: numbers of places after which VOI is measured, ascending.
    """
    edges = {(int(a), int(b)) for a, b in joins}
    steps, looked, corrected, spent = [_measured(table, edges, 0, 0, 0.0)], 0, 0, 0.0
    for error, (a, b), real in places:
        looked, spent = looked + 1, spent + look[error]
        if real:
            (edges.discard if error == "merger" else edges.add)((int(a), int(b)))
            corrected, spent = corrected + 1, spent + mend[error]
        if looked in marks:
            steps.append(_measured(table, edges, looked, corrected, spent))
    return steps


def _measured(table: Contingency, edges: set[tuple[int, int]], looked: int, corrected: int, minutes: float) -> Step:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.array(sorted(edges), np.uint64).reshape(-1, 2)
    ids = np.unique(np.concatenate([table.predicted, pairs.ravel()]))
    a, b = np.searchsorted(ids, pairs).T
    links = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(ids), len(ids)))
    _, component = connected_components(links, directed=False)
    segmented = table.relabelled(ids, component.astype(np.uint64) + 1)
    return Step(looked, corrected, minutes, score(segmented).voi)
