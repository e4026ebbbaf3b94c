"""The global lattice of skeleton blocks: which block a chunk of work computes, and its voxels.

A block has ``BLOCK`` voxels on each side, whatever the chunks are, counted from voxel 0 of the global coordinates, and
one more plane that it shares with the block behind it. Distances to surfaces are measured in a window with ``HALO``
more voxels on every side, so that a face of a block is no surface.

    block 0    |0 ................ 128|
    block 1                       |128 ............... 256|
    window 1                 |112 ......................... 272|

A chunk computes the blocks whose first voxel is in its core. Voxels of the lattice can be larger than those of the
labels, by a power of two along each axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.geometry import BoundingBox, Vec
from pipeline.shapes.lattice import owned

BLOCK = 128
"""Voxels of the lattice along each side of a block, without the shared plane."""
HALO = 16
"""Voxels around a block in which surfaces are looked for."""


@dataclass(frozen=True)
class SkeletonBlock:
    """A block of the lattice."""

    index: Vec
    voxels: BoundingBox
    """Its voxels, with the plane that it shares with the next block along each axis."""
    window: BoundingBox
    """These and the voxels around them, as far as the region of interest goes."""


@dataclass(frozen=True)
class SkeletonLattice:
    """All blocks of a region of interest."""

    roi: BoundingBox
    """In voxels of level 0."""
    region: BoundingBox
    """The region of interest in voxels of the lattice."""
    factor: Vec
    """Voxels of level 0 along each side of one of the lattice."""
    resolution_nm: tuple[float, float, float]
    """The sides of a voxel of the lattice."""
    block: int = BLOCK

    @property
    def first(self) -> Vec:
        """The index of the first block."""
        return self.region.start // self.block

    @property
    def last(self) -> Vec:
        """The index of the last block; one that has nothing but the plane of the block before is none."""
        return self.first.maximum((self.region.stop - 2) // self.block)

    @property
    def farthest_nm(self) -> float:
        """The largest radius: where no surface is in sight."""
        return self.block * min(self.resolution_nm)

    def blocks(self, core: BoundingBox) -> Iterator[SkeletonBlock]:
        """The blocks that the chunk with this core, in voxels of level 0, computes, in C order."""
        sides = self.factor * self.block
        return map(self._block, owned(core, self.roi, self.first, self.last, sides))

    def _block(self, index: Vec) -> SkeletonBlock:
        start = index * self.block
        voxels = BoundingBox(start, start + (self.block + 1)).intersect(self.region)
        return SkeletonBlock(index, voxels, BoundingBox(voxels.start - HALO, voxels.stop + HALO).intersect(self.region))

    def read_box(self, voxels: BoundingBox) -> BoundingBox:
        """The voxels of level 0 of which some of the lattice are made."""
        return BoundingBox(voxels.start * self.factor, voxels.stop * self.factor).intersect(self.roi)
