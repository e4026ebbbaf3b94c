"""Which chunk computes which patches, so that each is computed once, and which voxels a chunk hands on.

    chunk    |       0       |       1       |       2       |
    patches  [.......]
                   [.......]        a patch belongs to the chunk that holds its first voxel in the region of interest
                         [.......]
                               [.......]
                                     [.......]
    chunk 0  |-----finished----|=|
    chunk 1                    |=|-finished--|    |=| patches of two chunks lie here: their sums are added

Chunks and patches are products of intervals, so all of this is known axis by axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from itertools import product as cartesian
from math import prod

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.inference.lattice import PatchLattice, Ranges

Interval = tuple[int, int]


@dataclass(frozen=True)
class PatchShares:
    """The patches of a lattice that touch a region of interest, divided among the chunks of its grid."""

    lattice: PatchLattice
    grid: ChunkGrid

    def __post_init__(self) -> None:
        if self.grid.bounds != self.lattice.bounds:
            raise ConfigError(
                f"the grid covers {self.grid.bounds} and the lattice {self.lattice.bounds}; both need the same bounds"
            )

    @property
    def count(self) -> int:
        """The number of patches that all chunks compute together: those that touch the region of interest."""
        return prod(map(len, self.lattice.ranges(self.grid.roi)))

    def patches(self, chunk: Chunk) -> Ranges:
        """For each axis the indices of the patches that a chunk computes; some chunks compute none."""
        z, y, x = (self._own(axis, chunk.index[axis]) for axis in range(3))
        return z, y, x

    def reach(self, chunk: Chunk) -> BoundingBox:
        """The voxels of the region of interest on which patches of a chunk lie; empty if it computes none."""
        return _box([self._reach(axis, chunk.index[axis]) for axis in range(3)])

    def finished(self, chunk: Chunk) -> BoundingBox:
        """The voxels on which patches of no other chunk lie: their bytes follow from this chunk alone."""
        return _box([self._finished(axis, chunk.index[axis]) for axis in range(3)])

    def targets(self, chunk: Chunk) -> list[Chunk]:
        """The chunks, often with itself, on whose voxels patches of a chunk lie."""
        box = self.reach(chunk)
        if box.empty:
            return []
        z, y, x = map(range, self.grid.index_of(box.start), self.grid.index_of(box.stop - 1) + 1)
        return [self.grid.chunk(index) for index in cartesian(z, y, x)]

    def sources(self, chunk: Chunk) -> list[Chunk]:
        """The chunks, often with itself, whose patches lie on voxels of a chunk."""
        owners = [sorted({self._owner(axis, i) for i in r}) for axis, r in enumerate(self.lattice.ranges(chunk.core))]
        return [self.grid.chunk(index) for index in cartesian(*owners)]  # type: ignore[arg-type]

    def pieces(self, source: Chunk, target: Chunk) -> tuple[BoundingBox, list[BoundingBox]]:
        """The voxels of a target on which patches of a source lie: what is finished, and boxes of all others."""
        box = self.reach(source).intersect(target.core)
        finished = self.finished(source).intersect(box)
        return finished, list(_around(box, finished))

    def voxels(self) -> tuple[int, int]:
        """The finished voxels of all chunks, and their others; where several chunks have patches, each counts."""
        finished, reached = self._summed(self._finished), self._summed(self._reach)
        return finished, reached - finished

    def _summed(self, interval: Callable[[int, int], Interval]) -> int:
        """The voxels of all chunks whose boxes have these intervals: of products of sums, not of a list of chunks."""
        grid = self.grid
        chunks = (range(first, first + count) for first, count in zip(grid.first, grid.counts, strict=True))
        return prod(sum(b - a for a, b in (interval(axis, i) for i in those)) for axis, those in enumerate(chunks))

    def _own(self, axis: int, index: int) -> range:
        roi = self.grid.roi
        begin = self.grid.bounds.start[axis] + index * self.grid.shape[axis]
        places = self.lattice.beginning(axis, begin, begin + self.grid.shape[axis])
        touching = self.lattice.on_axis(axis, roi.start[axis], roi.stop[axis])
        first = touching.start if index == self.grid.first[axis] else places.start
        return range(first, max(first, min(places.stop, touching.stop)))

    def _owner(self, axis: int, i: int) -> int:
        first = max(self.lattice.position(axis, i), self.grid.roi.start[axis])
        return (first - self.grid.bounds.start[axis]) // self.grid.shape[axis]

    def _reach(self, axis: int, index: int) -> Interval:
        own, roi = self._own(axis, index), self.grid.roi
        if not own:
            return roi.start[axis], roi.start[axis]
        end = self.lattice.position(axis, own[-1]) + self.lattice.patch_shape[axis]
        return max(roi.start[axis], self.lattice.position(axis, own[0])), min(roi.stop[axis], end)

    def _finished(self, axis: int, index: int) -> Interval:
        (start, stop), own = self._reach(axis, index), self._own(axis, index)
        if own and own[0] > 0:
            start = max(start, self.lattice.position(axis, own[0] - 1) + self.lattice.patch_shape[axis])
        if own and own[-1] + 1 < self.lattice.counts[axis]:
            stop = min(stop, self.lattice.position(axis, own[-1] + 1))
        return start, max(start, stop)


def _box(intervals: list[Interval]) -> BoundingBox:
    starts, stops = zip(*intervals, strict=True)
    return BoundingBox(starts, stops)


def _around(box: BoundingBox, inner: BoundingBox) -> Iterator[BoundingBox]:
    """The voxels of a box that are not in another one inside it, as at most six boxes."""
    rest = box
    for axis in range(3):
        low, inside, high = (_cut(rest, axis, *ends) for ends in _thirds(rest, inner, axis))
        yield from (part for part in (low, high) if not part.empty)
        rest = inside


def _thirds(box: BoundingBox, inner: BoundingBox, axis: int) -> Iterator[Interval]:
    """Along an axis the part of a box before another one, beside it, and behind it; an empty one cuts at the start."""
    ends = [box.start[axis], inner.start[axis], inner.stop[axis], box.stop[axis]]
    return pairwise([ends[0], ends[0], ends[0], ends[3]] if inner.empty else ends)


def _cut(box: BoundingBox, axis: int, start: int, stop: int) -> BoundingBox:
    """The part of a box between two places on an axis."""
    first, last = list(box.start), list(box.stop)
    first[axis], last[axis] = start, stop
    return BoundingBox(Vec(*first), Vec(*last))
