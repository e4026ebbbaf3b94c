"""A volume read as uint8, of which one value is said to be 255: ``affinities.zarr#scale=100``.

    v -> round(255 v / scale), half to even

Values that would be less than 0 or more than 255 are refused: then another value is the largest.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pipeline.config.base import finite_number
from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Volume
from pipeline.volumes.location import Location


class ScaledVolume(Volume):
    """A volume of which the value ``scale`` is read as 255, and others in proportion; it is only read."""

    def __init__(self, volume: Volume, scale: float) -> None:
        self.url, self.spec = volume.url, replace(volume.spec, dtype=np.dtype(np.uint8))
        self._volume, self._scale = volume, scale

    @property
    def is_stored(self) -> bool:
        """See ``Volume``."""
        return self._volume.is_stored

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box as uint8; ``VolumeError`` for values that do not lie between 0 and the scale."""
        values = self._volume.read(box)
        steps = np.rint(values.astype(np.float64) * 255 / self._scale)
        if values.size and not (steps.min() >= 0 and steps.max() <= 255):
            raise VolumeError(
                f"{self.url} holds values from {values.min():g} to {values.max():g}, and says that {self._scale:g} is "
                "the largest: give the value that means 255 as #scale="
            )
        return steps.astype(np.uint8)

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Refused: what is stored has another scale."""
        raise VolumeError(f"{self.url} is open for reading only; open it without #scale= to write")


def scaled(location: Location, volume: Volume) -> Volume:
    """The volume by the scale that the URL gives, or the volume itself; ``ConfigError`` for what is no number."""
    if not says_scale(location):
        return volume
    text = location.options["scale"]
    try:
        scale = finite_number(text)
    except ValueError:
        scale = math.nan
    if not scale > 0:
        raise ConfigError(f"{location.url}: scale is {text!r}; it must be a number above 0, the value that means 255")
    return ScaledVolume(volume, scale)


def says_scale(location: Location) -> bool:
    """True if the URL says what the values mean, so that nobody needs to ask."""
    return "scale" in location.options
