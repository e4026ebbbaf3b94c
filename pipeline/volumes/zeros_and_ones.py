"""A volume of truth values as uint8, 0 and 1: masks and labels that other programs store as bool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Volume


class ZerosAndOnes(Volume):
    """A volume whose stored voxels are bool; they are read and written as uint8."""

    def __init__(self, volume: Volume) -> None:
        self.url, self.spec = volume.url, replace(volume.spec, dtype=np.dtype(np.uint8))
        self._volume = volume

    @property
    def is_stored(self) -> bool:
        """See ``Volume``."""
        return self._volume.is_stored

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, 1 where they are true."""
        return self._volume.read(box).astype(np.uint8)

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Store the voxels of a box; ``VolumeError`` for anything but 0 and 1."""
        if data.size and data.max() > 1:
            raise VolumeError(f"{self.url} stores bool, so only 0 and 1 are written, not {data.max()}: correct them")
        self._volume.write(box, data.astype(np.bool_))


def without_bool(volume: Volume) -> Volume:
    """The volume itself, or as uint8 if it stores bool."""
    return ZerosAndOnes(volume) if volume.spec.dtype == np.bool_ else volume
