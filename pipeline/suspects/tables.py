"""The stored tables of a run as supervoxels with contacts and merges, share by share.

A share holds some of the segments: with all of their supervoxels, all contacts of these, and the merges between them.
A segment is in one share only, chosen by its id, so nothing depends on chunks; a contact of two segments comes with
both. Every share reads the small tables of all chunks again, so that no more than one is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.grid import Chunk
from pipeline.runs.run import Run
from pipeline.segmentation.agglomeration import MERGE
from pipeline.segmentation.merge_tree import Assignment, canonical
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.build_region_graph import BuildRegionGraph

ROWS = 1 << 23
"""Contacts of a share, about."""
NUCLEI = "nuclei"
"""The name that a volume of nuclei has if nothing else is said."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number that spreads ids over all numbers."""


@dataclass(frozen=True, eq=False)
class Share:
    """Some of the segments of a run."""

    number: int
    of: int
    ids: np.ndarray
    """uint64 (n,), ascending: their supervoxels."""
    voxels: np.ndarray
    """int64 (n,)"""
    segments: np.ndarray
    """uint64 (n,): the segment of each"""
    pairs: np.ndarray
    """uint64 (m, 2): supervoxels that touch, the smaller id first, ascending"""
    counts: np.ndarray
    """int64 (m,): affinities on the contact"""
    sums: np.ndarray
    """int64 (m,): their sum, 0..255 each"""
    sides: np.ndarray
    """uint64 (m, 2): the segments of the two"""
    merges: np.ndarray
    """``MERGE`` (k,), best first: merges within one segment"""

    def holds(self, segments: np.ndarray) -> np.ndarray:
        """Which segments are in this share: bool, the shape of ``segments``."""
        return share_of(segments, self.of) == self.number

    @cached_property
    def inner(self) -> np.ndarray:
        """bool (m,): contacts within a segment."""
        return self.sides[:, 0] == self.sides[:, 1]

    def places(self, ids: np.ndarray) -> np.ndarray:
        """The numbers of supervoxels of this share, int64, the shape of ``ids``."""
        return np.searchsorted(self.ids, ids)


def share_of(segments: np.ndarray, shares: int) -> np.ndarray:
    """The share of each segment: int64."""
    return ((segments * SPREAD >> np.uint64(32)) % np.uint64(shares)).astype(np.int64)


@dataclass(frozen=True)
class Tables:
    """The tables of a finished run."""

    run: Run
    rows: int = field(default_factory=lambda: ROWS)
    nuclei: str = NUCLEI
    """The volume of ``organelles.volumes`` that holds nuclei."""

    @cached_property
    def shares(self) -> int:
        """How many shares there are; the result does not depend on it."""
        stage = self.run.stage(BuildRegionGraph.name)
        contacts = self.run.ledger(stage, read_only=True).summary().counters.get("contacts", 0)
        return max(1, -(-int(contacts) // self.rows))

    def __iter__(self) -> Iterator[Share]:
        for number in range(self.shares):
            yield self.share(number)

    def share(self, number: int) -> Share:
        """One share; the only one is read once."""
        return self._only if self.shares == 1 else self._read(number)

    @cached_property
    def _only(self) -> Share:
        return self._read(0)

    def _read(self, number: int) -> Share:
        parts = [self._of_chunk(chunk, number) for chunk in self.chunks()]
        ids, voxels, segments = _supervoxels([part[0] for part in parts])
        pairs, counts, sums, sides = _contacts([part[1] for part in parts])
        merges = self._merges(ids, segments)
        return Share(number, self.shares, ids, voxels, segments, pairs, counts, sums, sides, merges)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks of the run."""
        return iter(self.run.stage(BuildRegionGraph.name).grids()[0])

    def assignment(self, chunk: Chunk) -> Assignment:
        """The supervoxel and the segment of every fragment of a chunk, and of those that touch it."""
        return Assignment.from_arrays(self.run.stage(AssignSegments.name).load(chunk))

    def _of_chunk(self, chunk: Chunk, number: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Supervoxels and contacts of a chunk that belong to a share."""
        stage = self.run.stage(BuildRegionGraph.name)
        assert isinstance(stage, BuildRegionGraph)
        graph, table = stage.graph(chunk), self.assignment(chunk)
        place = np.searchsorted(table.fragment, graph.regions)
        names, segments = table.supervoxel[place], table.segment[place]
        kept = share_of(segments, self.shares) == number
        ends, sides = names[graph.edges], segments[graph.edges]
        touching = (ends[:, 0] != ends[:, 1]) & kept[graph.edges].any(axis=1)
        supervoxels = names[kept], graph.sizes[kept], segments[kept]
        return supervoxels, (ends[touching], sides[touching], graph.counts[touching], graph.sums[touching])

    def _merges(self, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """The merges between supervoxels of one segment, best first."""
        stage = self.run.stage(Agglomerate.name)
        assert isinstance(stage, Agglomerate)
        found = [np.empty(0, MERGE)]
        for chunk in (chunk for grid in stage.grids() for chunk in grid):
            merges = stage.merges(chunk)
            sides = [_looked_up(ids, segments, merges[name]) for name in ("a", "b")]
            found.append(merges[(sides[0] == sides[1]) & (sides[0] > 0)])
        return canonical(np.concatenate(found))


def _looked_up(ids: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted id, 0 for ids that are not there."""
    if not len(ids):
        return np.zeros(len(wanted), np.uint64)
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[place] == wanted, values[place], np.uint64(0))


def _supervoxels(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, voxels and segments of all parts, each supervoxel once."""
    ids, voxels, segments = (np.concatenate([part[column] for part in parts]) for column in range(3))
    names, first, place = np.unique(ids, return_index=True, return_inverse=True)
    total = np.zeros(len(names), np.int64)
    np.add.at(total, place, voxels)
    return names, total, segments[first]


def _contacts(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, counts, sums and segments of all contacts, each pair once and in order."""
    pairs, sides, counts, sums = (np.concatenate([part[column] for part in parts]) for column in range(4))
    turned = pairs[:, 0] > pairs[:, 1]
    pairs[turned], sides[turned] = pairs[turned, ::-1], sides[turned, ::-1]
    order, starts = groups(pairs)
    added = [np.add.reduceat(each[order], starts) if len(starts) else each for each in (counts, sums)]
    return pairs[order][starts], *added, sides[order][starts]


def groups(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows of pairs, and where in it a new pair begins."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ordered = pairs[order]
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, np.flatnonzero(is_new)
