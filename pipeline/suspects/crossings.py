"""Crossings of skeletons: where four arms leave a place in two nearly straight lines, two neurons may be merged.

A1    B2        A fork with four arms, or two forks with three each and a short joint between them.
  \\  /
   ><           Both lines A and B must have been whole before a merge joined them; cutting the join of that
  /  \\          merge then takes one line from the other. Crossings within one supervoxel are not found: the
B1    A2        merge tree cannot cut it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.runs.run import Run
from pipeline.suspects.candidates import Candidates
from pipeline.suspects.forest import Forest, forests
from pipeline.suspects.merge_tree import joined_by, joins_of
from pipeline.suspects.tables import Share, Tables
from pipeline.suspects.touching import supervoxels_at

ARM_NM = 1000.0
"""How long an arm is followed."""
LEAST_NM = 300.0
"""Length of the shortest arm that counts."""
JOINT_NM = 100.0
"""Two forks are one crossing up to this distance, and twice the larger radius of both."""
STRAIGHT = 0.85
"""Cosine of the largest bend of a line: 32 degrees."""
PAIRINGS = np.array([[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]])
"""How four arms make two lines: the first two are one, the last two the other."""


@dataclass(frozen=True, eq=False)
class Crossings:
    """Places where two lines cross."""

    segments: np.ndarray
    """uint64 (n,)"""
    voxels: np.ndarray
    """int64 (n, 3): z, y, x of the fork, of two the first"""
    arms: np.ndarray
    """int64 (n, 4, 3): a voxel on each arm, first the two of one line"""
    straight: np.ndarray
    """float64 (n,): cosine of the bend of the line that bends more, ``STRAIGHT``..1"""
    joints_nm: np.ndarray
    """float64 (n,): from one fork to the other"""

    @classmethod
    def of(cls, forest: Forest, run: Run) -> Crossings:
        """Those of skeletons, in the order of forks."""
        nm = run.layout.resolution_nm
        found = zip(_single(forest), _double(forest), strict=True)
        forks, starts, nexts, joints = (np.concatenate(columns) for columns in found)
        stops, lengths, _ = forest.walk(starts.reshape(-1), nexts.reshape(-1), ARM_NM)
        headings = forest.headings(starts.reshape(-1), stops).reshape(-1, 4, 3)
        straight, pairing = _straightest(headings)
        kept = (straight >= STRAIGHT) & (lengths.reshape(-1, 4).min(axis=1, initial=np.inf) >= LEAST_NM)
        stops = np.take_along_axis(stops.reshape(-1, 4), PAIRINGS[pairing], axis=1)[kept]
        arms = forest.voxels(stops.reshape(-1), nm).reshape(-1, 4, 3)
        forks = forks[kept]
        return cls(forest.segments[forks], forest.voxels(forks, nm), arms, straight[kept], joints[kept])

    def chosen(self, rows: np.ndarray) -> Crossings:
        """Some of them, by bool (n,) or by places."""
        return Crossings(*(column[rows] for column in vars(self).values()))


def _single(forest: Forest) -> tuple[np.ndarray, ...]:
    """Forks with four arms: the fork, int64 (n,), where arms start and go on, int64 (n, 4), and the joint, 0."""
    forks = np.flatnonzero(forest.degrees == 4)
    return forks, np.repeat(forks[:, None], 4, axis=1), forest.neighbours(forks, 4), np.zeros(len(forks))


def _double(forest: Forest) -> tuple[np.ndarray, ...]:
    """Pairs of near forks with three arms each, as ``_single``; the first has the smaller number."""
    forks = np.flatnonzero(forest.degrees == 3)
    nexts = forest.neighbours(forks, 3)
    starts = np.repeat(forks, 3)
    others, joints, last = forest.walk(starts, nexts.reshape(-1), ARM_NM)
    farthest = JOINT_NM + 2 * np.maximum(forest.radii_nm[starts], forest.radii_nm[others])
    rows = np.flatnonzero((forest.degrees[others] == 3) & (joints <= farthest) & (starts < others))
    own, far = (
        _without(forest.neighbours(each, 3), used)
        for each, used in ((starts[rows], nexts.reshape(-1)[rows]), (others[rows], last[rows]))
    )
    ends = np.repeat(np.stack([starts[rows], others[rows]], axis=1), 2, axis=1)
    return starts[rows], ends, np.concatenate([own, far], axis=1), joints[rows]


def _without(neighbours: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The two of three neighbours, int64 (n, 3), that are not ``used``."""
    return neighbours[neighbours != used[:, None]].reshape(-1, 2)


def _straightest(headings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of four arms, float64 (n, 4, 3), the cosine of the larger bend of the best pairing, and which one that is."""
    against = -(headings[:, :, None] * headings[:, None]).sum(axis=3)
    bends = [np.minimum(against[:, a, b], against[:, c, d]) for a, b, c, d in PAIRINGS]
    every = np.stack(bends, axis=1)
    return every.max(axis=1), every.argmax(axis=1)


def find(tables: Tables) -> Iterator[Candidates]:
    """The candidates of a run, share by share."""
    for share in tables:
        for forest in forests(tables.run):
            found = Crossings.of(forest, tables.run)
            found = found.chosen(share.holds(found.segments))
            yield _proposed(found, share, tables.run)


def _proposed(found: Crossings, share: Share, run: Run) -> Candidates:
    """The joins that brought two whole lines together."""
    ids = supervoxels_at(run, found.arms.reshape(-1, 3), np.repeat(found.segments, 4)).reshape(-1, 4)
    known = np.all(ids > 0, axis=1)
    found, ids = found.chosen(known), ids[known]
    lines, between = joined_by(share, ids.reshape(-1, 2)).reshape(-1, 2), joined_by(share, ids[:, [0, 2]])
    is_made: np.ndarray = (between >= 0) & (lines < between[:, None]).all(axis=1)
    found = found.chosen(is_made)
    cut = joins_of(share, run.threshold, between[is_made])
    features = np.concatenate([cut.features, np.stack([found.straight, np.log1p(found.joints_nm)], axis=1)], axis=1)
    return replace(cut, kind="crossing", features=features, places=found.voxels)
