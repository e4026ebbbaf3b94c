"""One channel of a volume as a volume without channels: ``image.zarr#channel=0``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Mode, Volume
from pipeline.volumes.location import Location


class OneChannel(Volume):
    """A volume (z, y, x) that holds one channel of another; it is only read."""

    def __init__(self, volume: Volume, channel: int) -> None:
        self.url, self.spec = volume.url, replace(volume.spec, channels=None)
        self._volume, self._channel = volume, channel

    @property
    def is_stored(self) -> bool:
        """See ``Volume``."""
        return self._volume.is_stored

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, (z, y, x); all channels are read, and one is kept."""
        return np.ascontiguousarray(self._volume.read(box)[self._channel])

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Refused: the other channels belong to the same stored voxels."""
        raise VolumeError(f"{self.url} is open for reading only; open it without #channel= to write")


def chosen_channel(location: Location, volume: Volume, mode: Mode) -> Volume:
    """The channel that the URL names, or the volume itself if it names none.

    Raises ``ConfigError`` for a number that is no channel, ``VolumeError`` to write or where there are no channels.
    """
    text = location.options.get("channel")
    if text is None:
        return volume
    if mode != "r":
        raise VolumeError(f"{location.url}: one channel can only be read; leave #channel= out to write all")
    count = volume.spec.channels
    if count is None:
        raise VolumeError(f"{location.url} has no channels to choose from; leave channel={text} out")
    if not text.isdecimal() or int(text) >= count:
        raise ConfigError(f"{location.url}: channel is {text!r}; it must be a whole number from 0 to {count - 1}")
    return OneChannel(volume, int(text))
