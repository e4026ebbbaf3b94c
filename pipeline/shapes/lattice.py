"""The global lattice of mesh blocks: which block of which level of detail a chunk of work computes, and its voxels.

Marching cubes works on cells. Cell i of an axis lies between the middles of the voxels i - 1 and i, so the cells of a
region go from its first voxel to one past its last, and surfaces close at its border. A block of level n has ``BLOCK``
times 2 ** n voxels of level 0 on each side, whatever the chunks are; it is counted from voxel 0 of the global
coordinates, and eight blocks make one of the next level.

    voxels of the labels     |  i-1  |   i   |  i+1  |
    cells                        |   i   |  i+1  |
    block b                  cells b * cells .. (b + 1) * cells - 1, from one voxel more

A chunk computes the blocks whose first voxel is in its core. Blocks that begin before the region of interest, or at its
end, belong to the chunk that is nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as cartesian

from pipeline.geometry import BoundingBox, Vec

BLOCK = 64
"""Voxels of level 0 along each side of a block of the finest level of detail."""


@dataclass(frozen=True)
class DetailLevel:
    """A level of detail, with the level of the labels from which it is made."""

    number: int
    factor: Vec
    """Voxels of level 0 along each side of one of its voxels."""
    roi: BoundingBox
    """The region of interest in its voxels."""
    resolution_nm: tuple[float, float, float]

    @property
    def side(self) -> int:
        """Voxels of level 0 along each side of a block."""
        return BLOCK << self.number

    @property
    def cells(self) -> Vec:
        """Cells of a block along z, y, x."""
        return Vec(self.side, self.side, self.side) // self.factor

    @property
    def first(self) -> Vec:
        """The index of the first block."""
        return self.roi.start // self.cells

    @property
    def last(self) -> Vec:
        """The index of the last block."""
        return self.roi.stop // self.cells

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The sides of a voxel, in units of the shortest."""
        z, y, x = (side / min(self.resolution_nm) for side in self.resolution_nm)
        return z, y, x


@dataclass(frozen=True)
class MeshBlock:
    """A block of a level of detail."""

    level: DetailLevel
    index: Vec

    @property
    def voxels(self) -> BoundingBox:
        """The voxels of its level that touch its cells; it may reach beyond the region of interest."""
        start = self.index * self.level.cells
        return BoundingBox(start - 1, start + self.level.cells)


@dataclass(frozen=True)
class MeshLattice:
    """All blocks of a region of interest."""

    roi: BoundingBox
    """In voxels of level 0."""
    levels: tuple[DetailLevel, ...]
    """The finest first."""

    def base(self, level: int) -> Vec:
        """The block of a level that has position 0, so that positions are small, and halve from level to level."""
        return self.levels[-1].first * (1 << len(self.levels) - 1 - level)

    def blocks(self, level: DetailLevel, core: BoundingBox) -> Iterator[MeshBlock]:
        """The blocks of a level that the chunk with this core computes, in C order."""
        sides = Vec(level.side, level.side, level.side)
        found = owned(core, self.roi, level.first, level.last, sides)
        return (MeshBlock(level, index) for index in found)


def owned(core: BoundingBox, roi: BoundingBox, first: Vec, last: Vec, sides: Vec) -> Iterator[Vec]:
    """The blocks that the chunk with this core computes: those whose first voxel it has, in C order.

    Blocks that begin before the region of interest, or at its end, belong to the chunk that is nearest.

    core, roi: in voxels of level 0. first, last: the first and the last block of the region of interest. sides: voxels
    of level 0 along each side of a block.
    """
    axes = (range(*_span(core, roi, first, last, sides, axis)) for axis in range(3))
    return (Vec(*index) for index in cartesian(*axes))


def _span(core: BoundingBox, roi: BoundingBox, first: Vec, last: Vec, sides: Vec, axis: int) -> tuple[int, int]:
    """The first block of the chunk along an axis, and one past its last."""
    start, stop, side, end = core.start[axis], core.stop[axis], sides[axis], last[axis] + 1
    low = first[axis] if start == roi.start[axis] else max(first[axis], -(-start // side))
    high = end if stop == roi.stop[axis] else min(end, -(-stop // side))
    return low, high


def enclosing(boxes: Iterator[BoundingBox]) -> BoundingBox | None:
    """The smallest box that holds all of them; ``None`` if there are none."""
    found: BoundingBox | None = None
    for box in boxes:
        found = box if found is None else BoundingBox(found.start.minimum(box.start), found.stop.maximum(box.stop))
    return found
