"""The skeletons of many segments as one graph, and walks along its branches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.runs.run import Run
from pipeline.shapes.skeletons import Skeleton
from pipeline.shapes.stored_skeletons import StoredSkeletons
from pipeline.stages.write_skeletons import WriteSkeletons


@dataclass(frozen=True, eq=False)
class Forest:
    """The vertices of all skeletons, one behind another."""

    segments: np.ndarray
    """uint64 (n,): the segment of each vertex"""
    places_nm: np.ndarray
    """float64 (n, 3): z, y, x"""
    radii_nm: np.ndarray
    """float64 (n,)"""
    edges: np.ndarray
    """int64 (m, 2)"""

    @classmethod
    def of(cls, skeletons: dict[int, Skeleton]) -> Forest:
        """The skeletons of these segments, in their order."""
        parts = list(skeletons.values())
        sizes = [len(each.parents) for each in parts]
        starts = np.cumsum([0, *sizes])
        return cls(
            np.repeat(np.array(list(skeletons), np.uint64), sizes),
            np.concatenate([np.zeros((0, 3)), *(each.places_nm for each in parts)]),
            np.concatenate([np.zeros(0), *(each.radii_nm for each in parts)]),
            np.concatenate([np.zeros((0, 2), np.int64), *(e.edges + s for e, s in zip(parts, starts, strict=False))]),
        )

    @cached_property
    def _neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the neighbours of each vertex begin, int64 (n + 1,), and all of them, those of a vertex ascending."""
        ends = np.concatenate([self.edges, self.edges[:, ::-1]])
        order = np.lexsort((ends[:, 1], ends[:, 0]))
        counts = np.bincount(ends[:, 0], minlength=len(self.segments))
        return np.cumsum([0, *counts]), ends[order, 1]

    @property
    def degrees(self) -> np.ndarray:
        """int64 (n,): the edges of each vertex."""
        return np.diff(self._neighbours[0])

    def neighbours(self, vertices: np.ndarray, count: int) -> np.ndarray:
        """The first neighbours of vertices that have at least ``count``, int64 (k, count)."""
        firsts, others = self._neighbours
        return others[firsts[vertices][:, None] + np.arange(count)]

    def voxels(self, vertices: np.ndarray, resolution_nm: tuple[float, float, float]) -> np.ndarray:
        """The voxels in which vertices lie, int64 (k, 3)."""
        return np.floor(self.places_nm[vertices] / np.array(resolution_nm)).astype(np.int64)

    def walk(
        self, starts: np.ndarray, nexts: np.ndarray, farthest_nm: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From vertices over one of their neighbours along the branch, until it ends, forks, or is so long.

        Returns the vertex where each walk stops, int64 (k,), its length in nanometres, float64 (k,), and the vertex
        before the last, int64 (k,).
        """
        before, here, degrees = starts.copy(), nexts.copy(), self.degrees
        lengths = self._between(before, here)
        rows = np.flatnonzero((degrees[here] == 2) & (lengths < farthest_nm))
        while len(rows):
            both = self.neighbours(here[rows], 2)
            following = np.where(both[:, 0] == before[rows], both[:, 1], both[:, 0])
            lengths[rows] += self._between(here[rows], following)
            before[rows], here[rows] = here[rows], following
            rows = rows[(degrees[following] == 2) & (lengths[rows] < farthest_nm)]
        return here, lengths, before

    def _between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((self.places_nm[a] - self.places_nm[b]) ** 2).sum(axis=1))

    def headings(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """The unit vectors from ``starts`` to ``stops``, float64 (k, 3)."""
        ways = self.places_nm[stops] - self.places_nm[starts]
        return ways / np.maximum(np.sqrt((ways**2).sum(axis=1)), 1e-9)[:, None]


def forests(run: Run) -> Iterator[Forest]:
    """The skeletons of a run, shard by shard."""
    stage = run.stage(WriteSkeletons.name)
    assert isinstance(stage, WriteSkeletons)
    stored = StoredSkeletons(lambda name: stage.store.get(f"{stage.folder}/{name}"), stage.fragments.sharding)
    return map(Forest.of, stored.shards())
