"""The levels of a pyramid: which voxels a level has, and how large they are.

Voxel v of a level lies in voxel ``v // step`` of the next one, axis by axis, in global coordinates: blocks begin at
multiples of ``step`` counted from voxel 0, not from the first voxel of the dataset. So the same tissue gives the same
blocks in every crop of a dataset, and the offset of each level is a whole number of its voxels, as precomputed layers
need it. Chunks, workers and the region of interest have no effect on where blocks lie.

Axes with voxels at least twice as long as the shortest wait until the others have caught up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pipeline.geometry import BoundingBox, Vec
from pipeline.stages.layout import Layout

Sizes = tuple[float, float, float]


@dataclass(frozen=True)
class PyramidLevel:
    """A level; number 0 is the volume itself."""

    number: int
    step: Vec
    """Voxels of the level before, along each side of a voxel of this one."""
    factor: Vec
    """Voxels of level 0 along each side."""
    bounds: BoundingBox
    """The extent of the dataset, in voxels of this level."""
    roi: BoundingBox
    """What the region of interest touches, in voxels of this level."""
    resolution_nm: Sizes

    def next(self) -> Self:
        """The level above."""
        step = step_of(self.resolution_nm)
        z, y, x = (side * by for side, by in zip(self.resolution_nm, step, strict=True))
        boxes = (_coarse(self.bounds, step), _coarse(self.roi, step))
        return type(self)(self.number + 1, step, self.factor * step, *boxes, (z, y, x))


def pyramid_levels(layout: Layout, levels: int | None) -> tuple[PyramidLevel, ...]:
    """All levels from 0: ``levels`` beside it, by default until one fits into a stored chunk."""
    one = Vec(1, 1, 1)
    found = [PyramidLevel(0, one, one, layout.bounds, layout.roi, layout.resolution_nm)]
    while len(found) - 1 < levels if levels is not None else not _is_small(found[-1], layout):
        found.append(found[-1].next())
    return tuple(found)


def step_of(resolution_nm: Sizes) -> Vec:
    """2 on each axis whose voxels are less than twice as long as the shortest, else 1."""
    shortest = min(resolution_nm)
    return Vec(*(2 if side < 2 * shortest else 1 for side in resolution_nm))


def _coarse(box: BoundingBox, step: Vec) -> BoundingBox:
    return BoundingBox(box.start // step, box.stop.ceil_div(step))


def _is_small(level: PyramidLevel, layout: Layout) -> bool:
    return level.bounds.shape.at_most(layout.storage_chunk_shape)
