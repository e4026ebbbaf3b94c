"""Volumes in this process's memory, by name: for tests and small experiments."""

from __future__ import annotations

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location

_arrays: dict[str, tuple[VolumeSpec, np.ndarray]] = {}


class MemoryVolume(CheckedVolume):
    """``memory://name``: one array that all openers in this process share."""

    def __init__(self, url: str, spec: VolumeSpec, array: np.ndarray, *, writable: bool) -> None:
        super().__init__(url, spec, writable=writable)
        self._array = array

    @classmethod
    def open(cls, location: Location, mode: Mode) -> MemoryVolume:
        """Open a volume that was created in this process before."""
        if location.base not in _arrays:
            raise VolumeError(f"{location.url} does not exist in this process; create it first")
        spec, array = _arrays[location.base]
        return cls(location.url, spec, array, writable=mode == "r+")

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if the name is taken."""
        return location.base in _arrays

    @classmethod
    def is_own(cls, location: Location) -> bool:
        """True: only this process makes such volumes."""
        return True

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> MemoryVolume:
        """Store an array of zeros under the name."""
        _arrays[location.base] = (spec, np.zeros(spec.array_shape(spec.bounds), spec.dtype))
        return cls.open(location, "r+")

    def _load(self, box: BoundingBox) -> np.ndarray:
        return self._array[(..., *box.slices(self.spec.bounds.start))].copy()

    def _store(self, box: BoundingBox, data: np.ndarray) -> None:
        self._array[(..., *box.slices(self.spec.bounds.start))] = data


def delete_memory_volume(name: str) -> None:
    """Forget a volume; nothing happens if there is none of this name."""
    _arrays.pop(name, None)
