"""A mask out of a volume of classes: 1 where a voxel has one of some values, 0 elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Volume


class SelectedVolume(Volume):
    """A volume of integers that is read as uint8: 1 where it has one of ``values``, 0 elsewhere."""

    def __init__(self, volume: Volume, values: Sequence[int]) -> None:
        self.url = volume.url
        self.spec = replace(volume.spec, dtype=np.dtype(np.uint8))
        self._volume = volume
        self._values = np.array(sorted(set(values)), volume.spec.dtype)

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, uint8, 0 and 1."""
        return np.isin(self._volume.read(box), self._values).astype(np.uint8)

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Refused: what was selected is read."""
        raise VolumeError(f"{self.url} is read as 0 and 1; write to the volume itself")


def selected(volume: Volume, values: Sequence[int] | None, to: str | None) -> Volume:
    """The volume as ``SelectedVolume``, or as it is without ``values``.

    Raises ``ConfigError`` beside a conversion, for no value at all, for a volume that does not hold integers, and for
    values that its type cannot hold.
    """
    if values is None:
        return volume
    if to is not None:
        raise ConfigError("select already writes uint8, 0 and 1: leave out --to (and --percentiles), or --select")
    dtype = volume.spec.dtype
    if dtype.kind not in "ui":
        raise ConfigError(f"{volume.url} holds {dtype}, and select takes values of integers: leave it out")
    limits = np.iinfo(dtype)
    if not values or not all(limits.min <= value <= limits.max for value in values):
        raise ConfigError(
            f"select is {list(values)}, and {volume.url} holds {dtype}: give at least one whole number from "
            f"{limits.min} to {limits.max}"
        )
    return SelectedVolume(volume, values)
