"""Corrections of a segmentation by people, in supervoxels, on top of the cut of the merge tree.

    merge a, b       the segments that hold supervoxels a and b are one
    split A from B   the segment that holds supervoxels of A and of B falls into two, by a minimum cut between them

**Rules.** Edits are applied in their order to the segments of the cut; a later one wins over an earlier one.

1. A merge unites two segments, and ties its two supervoxels together.
2. A split cuts each segment that holds supervoxels of both sides through the contacts between its supervoxels
   (``min_cut``). Ties hold, unless nothing else joins the two sides; then a split cuts them, too. What a split has cut
   stays cut: if a later merge joins both parts again, only that merge holds them together.
3. A segment is named by its smallest supervoxel, as everywhere.

Supervoxels and contacts do not depend on the chunking, so the result does not, either. What does not fit to the
supervoxels or the segments at hand is left out, and said (``Fit``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np

from pipeline.segmentation.merge_tree import Assignment
from pipeline.segmentation.min_cut import source_side
from pipeline.segmentation.region_graph import pick

MERGE, SPLIT = "merge", "split"


@dataclass(frozen=True)
class Edit:
    """One correction."""

    kind: str
    """``merge`` or ``split``."""
    first: tuple[int, ...]
    """A merge: one supervoxel. A split: those that are on one side."""
    second: tuple[int, ...]
    """A merge: the other supervoxel. A split: those that are on the other side."""

    @property
    def supervoxels(self) -> tuple[int, ...]:
        """All that it names."""
        return (*self.first, *self.second)

    def plain(self) -> list[Any]:
        """Plain values, for fingerprints."""
        return [self.kind, list(self.first), list(self.second)]


class Fit(IntEnum):
    """How an edit fits to the segments of a cut."""

    APPLIED = 0
    HELD = 1
    """The segments were one, or apart, already."""
    PARTLY = 2
    """A split that is applied without the supervoxels that there are not."""
    MISSING = 3
    """Not applied: a supervoxel that it needs is not there."""

    @property
    def fits(self) -> bool:
        """False if a supervoxel is not there."""
        return self in (Fit.APPLIED, Fit.HELD)


@dataclass(frozen=True, eq=False)
class Members:
    """All supervoxels of some segments, and the contacts among them."""

    supervoxels: np.ndarray
    """uint64 (n,), ascending"""
    segments: np.ndarray
    """uint64 (n,): the segment of each, by the cut of the merge tree"""
    sizes: np.ndarray
    """int64 (n,): voxels"""
    edges: np.ndarray
    """int64 (m, 2), ascending: touching supervoxels as places in ``supervoxels``, the smaller first"""
    sums: np.ndarray
    """int64 (m,): the sum of the affinities on each contact"""

    @classmethod
    def sum(cls, parts: Sequence[Members]) -> Members:
        """The members that several chunks know, each of them in part."""
        names = np.concatenate([part.supervoxels for part in parts] or [np.empty(0, np.uint64)])
        supervoxels, first, place = np.unique(names, return_index=True, return_inverse=True)
        segments = np.concatenate([part.segments for part in parts] or [np.empty(0, np.uint64)])[first]
        sizes = np.zeros(len(supervoxels), np.int64)
        np.add.at(sizes, place, np.concatenate([part.sizes for part in parts] or [np.empty(0, np.int64)]))
        pairs = [np.searchsorted(supervoxels, part.supervoxels)[part.edges] for part in parts]
        edges, sums = summed_edges(pairs, [part.sums for part in parts])
        return cls(supervoxels, segments, sizes, edges, sums)


@dataclass(frozen=True, eq=False)
class Edited:
    """What edits make of some segments."""

    ids: np.ndarray
    """uint64 (n,): the final segment of each supervoxel of ``Members``"""
    fits: tuple[Fit, ...]
    """How each edit fits."""


@dataclass(frozen=True, eq=False)
class Overrides:
    """The segments of a cut that edits rename, and the supervoxels that they move to another segment."""

    segments: np.ndarray
    """uint64 (k,), ascending: segments of the cut of which all supervoxels get one other id"""
    segment_ids: np.ndarray
    """uint64 (k,): this id"""
    supervoxels: np.ndarray
    """uint64 (l,), ascending: supervoxels of segments that were split, as far as their id changes"""
    supervoxel_ids: np.ndarray
    """uint64 (l,): their id"""

    @classmethod
    def of(cls, members: Members, ids: np.ndarray) -> Overrides:
        """The changes from the segments of some members to their final ids, uint64 (n,)."""
        segments, first, place = np.unique(members.segments, return_index=True, return_inverse=True)
        mixed = np.zeros(len(segments), bool)
        mixed[place[ids != ids[first][place]]] = True
        renamed = ~mixed & (ids[first] != segments)
        moved = mixed[place] & (ids != members.segments)
        return cls(segments[renamed], ids[first][renamed], members.supervoxels[moved], ids[moved])

    def apply(self, table: Assignment) -> Assignment:
        """The table of a chunk with the final ids."""
        segment = table.segment.copy()
        for keys, values, names in (
            (self.segments, self.segment_ids, table.segment),
            (self.supervoxels, self.supervoxel_ids, table.supervoxel),
        ):
            if len(keys):
                place = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
                found = keys[place] == names
                segment[found] = values[place[found]]
        return replace(table, segment=segment)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Overrides:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        return cls(**pick(arrays, [field.name for field in fields(cls)]))


def summed_edges(pairs: Sequence[np.ndarray], sums: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Contacts of which several parts know something: each once, int64 (m, 2), ascending; and the sums of all parts.

    pairs: int (., 2), in any order. sums: int64 (.,).
    """
    both = np.sort(np.concatenate([*pairs, np.empty((0, 2), np.int64)]).astype(np.int64), axis=1)
    edges, place = np.unique(both, axis=0, return_inverse=True)
    total = np.zeros(len(edges), np.int64)
    np.add.at(total, place.ravel(), np.concatenate([*sums, np.empty(0, np.int64)]).astype(np.int64))
    return edges, total


def apply_edits(edits: Sequence[Edit], members: Members) -> Edited:
    """Apply edits in their order.

    members: all supervoxels of every segment of which an edit names one.
    """
    state = _State(members)
    fits = tuple(state.merge(edit) if edit.kind == MERGE else state.split(edit) for edit in edits)
    return Edited(members.supervoxels[state.group], fits)


class _State:
    """The segments between two edits; each is named by the place of its smallest supervoxel."""

    def __init__(self, members: Members) -> None:
        self.members = members
        _, first, place = np.unique(members.segments, return_index=True, return_inverse=True)
        self.group = first[place]
        self.alive = np.ones(len(members.edges), bool)
        self.ties = np.empty((0, 2), np.int64)

    def places(self, names: Sequence[int]) -> np.ndarray:
        """Where supervoxels are, int64; those that are not there are left out."""
        known, wanted = self.members.supervoxels, np.array(names, np.uint64)
        place = np.searchsorted(known, wanted)
        here = place < len(known)
        here[here] = known[place[here]] == wanted[here]
        return place[here]

    def merge(self, edit: Edit) -> Fit:
        """Unite the segments of two supervoxels."""
        pair = self.places(edit.supervoxels)
        if len(pair) < 2:
            return Fit.MISSING
        self.ties = np.concatenate([self.ties, pair[None]])
        one, other = np.sort(self.group[pair])
        self.group[self.group == other] = one
        return Fit.HELD if one == other else Fit.APPLIED

    def split(self, edit: Edit) -> Fit:
        """Cut every segment that holds supervoxels of both sides."""
        sources, sinks = self.places(edit.first), self.places(edit.second)
        if not len(sources) or not len(sinks):
            return Fit.MISSING
        shared = np.intersect1d(self.group[sources], self.group[sinks])
        for group in shared:
            self._cut(group, sources[self.group[sources] == group], sinks[self.group[sinks] == group])
        whole = len(sources) + len(sinks) == len(edit.supervoxels)
        return Fit.PARTLY if not whole else Fit.APPLIED if len(shared) else Fit.HELD

    def _cut(self, group: int, sources: np.ndarray, sinks: np.ndarray) -> None:
        inside = np.flatnonzero(self.group == group)
        edges, ties = self.members.edges, self.ties
        kept = self.alive & (self.group[edges] == group).all(axis=1)
        tied = (self.group[ties] == group).all(axis=1)
        within = (np.searchsorted(inside, each) for each in (edges[kept], ties[tied], sources, sinks))
        local, local_ties, local_sources, local_sinks = within
        side = source_side(len(inside), local, self.members.sums[kept], local_ties, local_sources, local_sinks)
        self.alive[np.flatnonzero(kept)[side[local[:, 0]] != side[local[:, 1]]]] = False
        broken = np.flatnonzero(tied)[side[local_ties[:, 0]] != side[local_ties[:, 1]]]
        self.ties = np.delete(ties, broken, axis=0)
        for part in (inside[side], inside[~side]):
            self.group[part] = part[0]
