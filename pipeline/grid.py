"""The global chunk grid: which voxels a unit of work writes, and which it reads.

      read_box = core grown by the halo, clipped to the region of interest
    +---------------------+
    |   +-------------+   |      cores tile the region of interest without gap or overlap;
    |   |    core     |   |      chunk (i, j, k) begins at bounds.start + (i, j, k) * shape,
    |   +-------------+   |      so the grid depends on the dataset and the shape alone,
    +---------------------+      not on the region of interest.

Level 0 holds the chunks. A chunk of level n + 1 covers 2 x 2 x 2 chunks of level n; the last level has one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product as cartesian

from pipeline.errors import ConfigError
from pipeline.geometry import ZERO, BoundingBox, Triple, Vec, as_vec, product


@dataclass(frozen=True, order=True)
class Chunk:
    """One unit of work: it writes ``core`` and nothing else, and reads ``read_box``."""

    level: int
    index: Vec
    core: BoundingBox
    read_box: BoundingBox

    @property
    def name(self) -> str:
        """Its coordinates as a file name: ``2_0_5``, and ``L1_1_0_2`` above level 0."""
        place = "_".join(map(str, self.index))
        return place if self.level == 0 else f"L{self.level}_{place}"


@dataclass(frozen=True)
class ChunkGrid:
    """All chunks of one level over a region of interest."""

    bounds: BoundingBox
    """The dataset's full extent; the grid is anchored at its start."""
    roi: BoundingBox
    """The region of interest; cores and read boxes are clipped to it."""
    shape: Vec
    """Voxels of a chunk at this level."""
    halo: tuple[Vec, Vec] = (ZERO, ZERO)
    """Context voxels read before and after the core."""
    level: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_vec(self.shape, "chunk shape"))
        if min(self.shape) < 1:
            raise ConfigError(f"chunk shape is {list(self.shape)}; every side must be at least 1 voxel")
        if self.roi.empty or not self.bounds.contains(self.roi):
            raise ConfigError(
                f"region of interest {self.roi} must be a non-empty part of the dataset {self.bounds}; "
                "correct input.start and input.stop"
            )

    @cached_property
    def first(self) -> Vec:
        """Index of the first chunk that touches the region of interest; kept, as each record of a ledger asks."""
        return self.index_of(self.roi.start)

    @cached_property
    def counts(self) -> Vec:
        """Chunks along z, y, x."""
        return self.index_of(self.roi.stop - 1) - self.first + 1

    def __len__(self) -> int:
        return product(self.counts)

    def __iter__(self) -> Iterator[Chunk]:
        return (self.chunk(index) for index in self.indices())

    def indices(self) -> Iterator[Triple]:
        """The indices of all chunks in C order; plain tuples, as there can be millions."""
        z, y, x = map(range, self.first, self.first + self.counts)
        return cartesian(z, y, x)

    def chunk(self, index: Triple) -> Chunk:
        """The chunk of an index; ``ConfigError`` if the grid has no such chunk."""
        place = as_vec(index, "chunk index")
        core = BoundingBox.from_shape(self.shape, self.bounds.start + place * self.shape).intersect(self.roi)
        if core.empty:
            raise ConfigError(f"chunk {index} is not in the grid of {self.counts} chunks that begins at {self.first}")
        return Chunk(self.level, place, core, core.grow(*self.halo).intersect(self.roi))

    def position(self, index: Triple) -> int:
        """C-order position of a chunk in this grid: 0 .. len - 1; by plain numbers, as each record of a ledger asks."""
        z, y, x = index
        first_z, first_y, first_x = self.first
        _, rows, columns = self.counts
        return ((z - first_z) * rows + y - first_y) * columns + x - first_x

    def index_at(self, position: int) -> Vec:
        """The index of the chunk at a C-order position."""
        rest, x = divmod(position, self.counts[2])
        z, y = divmod(rest, self.counts[1])
        return self.first + Vec(z, y, x)

    def coarsen(self) -> ChunkGrid:
        """The grid one level up: 2 x 2 x 2 chunks become one."""
        return replace(self, shape=self.shape * 2, level=self.level + 1)

    def levels(self) -> list[ChunkGrid]:
        """This grid and all above it, up to the one with a single chunk."""
        grids = [self]
        while len(grids[-1]) > 1:
            grids.append(grids[-1].coarsen())
        return grids

    def children(self, chunk: Chunk) -> list[Chunk]:
        """The chunks of this (finer) grid that a chunk one level up covers, in C order."""
        if chunk.level != self.level + 1:
            raise ConfigError(f"chunk {chunk.name} is not one level above this grid (level {self.level})")
        start = (chunk.index * 2).maximum(self.first)
        stop = (chunk.index * 2 + 2).minimum(self.first + self.counts)
        z, y, x = map(range, start, stop)
        return [self.chunk(index) for index in cartesian(z, y, x)]

    def index_of(self, voxel: Vec) -> Vec:
        """The index of the chunk that writes a voxel."""
        return (voxel - self.bounds.start) // self.shape
