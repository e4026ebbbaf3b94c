"""Any volume as the chunks of a Neuroglancer precomputed layer, read when the viewer asks for them.

So every format and place that ``open_volume`` knows can be looked at, with the offset and the size of voxels that it
knows, and nothing is copied. Coarser levels are those that the volume has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes import Volume, open_volume
from pipeline.volumes.formats import entry_of
from pipeline.volumes.location import parse_location, require_format

CHUNK = Vec(64, 64, 64)
"""Voxels of a chunk that is sent, z, y, x."""
TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
"""What Neuroglancer can show; floating-point numbers of other sizes are sent as float32, labels as uint64."""


@dataclass(frozen=True)
class ServedVolume:
    """The levels of a volume, finest first."""

    levels: Sequence[Volume]
    kind: Literal["image", "segmentation"]

    @classmethod
    def open(cls, url: str, kind: Literal["image", "segmentation"], coarser: str = "") -> ServedVolume:
        """Open a volume with all coarser levels that it has; ``coarser``: another volume with levels of it."""
        levels = list(_levels(url))
        if coarser and len(levels) == 1:
            levels += _levels(coarser)
        return cls(levels, kind)

    @property
    def bounds(self) -> BoundingBox:
        """The extent in voxels of the finest level."""
        return self.levels[0].bounds

    @property
    def dtype(self) -> np.dtype:
        """The type that is sent."""
        stored = self.levels[0].dtype
        if self.kind == "segmentation":
            return np.dtype("uint32" if stored.itemsize <= 4 else "uint64")
        return stored if stored.name in TYPES else np.dtype("float32")

    def info(self) -> dict[str, Any]:
        """The info file of the layer (Neuroglancer's specification of precomputed volumes)."""
        return {
            "@type": "neuroglancer_multiscale_volume",
            "type": self.kind,
            "data_type": self.dtype.name,
            "num_channels": self.levels[0].spec.channels or 1,
            "scales": [_scale(number, volume) for number, volume in enumerate(self.levels)],
        }

    def chunk(self, level: int, box: BoundingBox) -> bytes:
        """The voxels of a box of a level, raw: x fastest, then y, z, and the channel.

        Raises ``ConfigError`` for a level or a box that there is not.
        """
        if not 0 <= level < len(self.levels):
            raise ConfigError(f"there is no level {level}; levels are 0 to {len(self.levels) - 1}")
        volume = self.levels[level]
        if box.empty or not volume.bounds.contains(box) or any(side > 4 * CHUNK[0] for side in box.shape):
            raise ConfigError(f"{box} is no chunk of {volume.url}, which has {volume.bounds}")
        voxels = volume.read(box).astype(self.dtype, copy=False)
        return np.ascontiguousarray(voxels, self.dtype.newbyteorder("<")).tobytes()


def _levels(url: str) -> Iterator[Volume]:
    """A volume and the levels above it."""
    yield open_volume(url)
    location = parse_location(url)
    options = entry_of(location.format or require_format(location)).options
    if "mip" not in options or "mip" in location.options:
        return
    for mip in count(1):
        try:
            level = open_volume(f"{url}{'&' if location.options else '#'}mip={mip}")
        except (ConfigError, VolumeError):
            return  # the volume has no coarser level
        yield level


def _scale(number: int, volume: Volume) -> dict[str, Any]:
    box = volume.bounds
    return {
        "key": str(number),
        "size": list(reversed(box.shape)),
        "voxel_offset": list(reversed(box.start)),
        "resolution": list(reversed(volume.resolution_nm)),
        "chunk_sizes": [list(reversed(CHUNK))],
        "encoding": "raw",
    }


def box_of(name: str) -> BoundingBox:
    """The box of a chunk's name, ``x0-x1_y0-y1_z0-z1``, in which numbers may be negative; ``ValueError`` otherwise."""
    sides = []
    for side in name.split("_"):
        cut = side.index("-", 1)
        sides.append((int(side[:cut]), int(side[cut + 1 :])))
    (x0, x1), (y0, y1), (z0, z1) = sides
    return BoundingBox(Vec(z0, y0, x0), Vec(z1, y1, x1))
