"""A sample of a volume's voxels: 27 blocks, at the first, the middle and the last place along each axis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Volume

SHAPE = (32, 32, 32)
"""Voxels of a block, z, y, x."""
EVERY = 3
"""Of how many blocks one is enough for a rough look."""


def sample_blocks(volume: Volume, box: BoundingBox | None = None) -> Iterator[np.ndarray]:
    """The voxels of 27 blocks of a volume, or of a box of it, (z, y, x) or (c, z, y, x); fewer where they coincide."""
    return (volume.read(block) for block in _boxes(box or volume.bounds))


def few_blocks(volume: Volume) -> Iterator[np.ndarray]:
    """A third of ``sample_blocks``, those in the middle along x."""
    boxes = _boxes(volume.bounds)
    return (volume.read(block) for block in boxes[1::EVERY] or boxes)


def _boxes(bounds: BoundingBox) -> list[BoundingBox]:
    axes = [
        sorted({a, a + (b - a) // 2, max(a, b - n)}) for a, b, n in zip(bounds.start, bounds.stop, SHAPE, strict=True)
    ]
    return [BoundingBox.from_shape(SHAPE, corner).intersect(bounds) for corner in product(*axes)]
