"""What a volume is: an open dataset at one mip, read and written by boxes in global voxel coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.geometry import BoundingBox, Vec


@dataclass(frozen=True)
class VolumeSpec:
    """Everything needed to create an equal, empty volume."""

    bounds: BoundingBox
    """Extent in voxels of this mip; its start is the volume's offset."""
    resolution_nm: tuple[float, float, float]
    """Nanometres per voxel, z, y, x."""
    dtype: np.dtype
    channels: int | None = None
    """Number of channels, stored first: arrays are (c, z, y, x); ``None`` for plain (z, y, x)."""
    storage_chunk: Vec = (64, 64, 64)
    """Voxels of one stored object's inner chunk."""
    storage_shard: Vec | None = None
    """Voxels of one stored object, if several chunks share one; writers must cover whole objects."""

    @property
    def write_unit(self) -> Vec:
        """The smallest box that one writer may own: the shard if there is one, else the storage chunk."""
        return self.storage_shard or self.storage_chunk


class Volume(Protocol):
    """An open dataset at one mip."""

    url: str
    spec: VolumeSpec

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, (z, y, x) or (c, z, y, x); unwritten voxels are 0. ``BoundsError`` outside."""
        ...

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Store the voxels of a box; ``BoundsError`` outside, ``VolumeError`` for a wrong shape or type."""
        ...
