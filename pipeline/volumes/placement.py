"""Where an array lies in the dataset: resolution and offset, from a URL's options, attributes or a default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.base import Mode
from pipeline.volumes.location import Location

UNITS_NM = {
    "angstrom": 0.1,
    "å": 0.1,
    "nanometer": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "micron": 1e3,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "millimeter": 1e6,
    "mm": 1e6,
    "centimeter": 1e7,
    "cm": 1e7,
    "meter": 1e9,
    "m": 1e9,
    "picometer": 1e-3,
}
"""Nanometres of each unit that OME-Zarr and TIFF files use."""
WHOLE = 1e-3
"""How far from a whole voxel an offset may be: the rounding of a float32 translation of a thousand voxels and more."""

Resolution = tuple[float, float, float]


class NoResolutionError(VolumeError):
    """Neither the data nor its URL says how large a voxel is."""


def whole_voxels(url: str, offset_nm: Sequence[float], resolution_nm: Resolution) -> Vec:
    """An offset in voxels from one in nanometres (z, y, x); ``VolumeError`` if it is between voxels."""
    voxels = [t / r for t, r in zip(offset_nm, resolution_nm, strict=True)]
    if any(abs(v - round(v)) > WHOLE for v in voxels):
        raise VolumeError(
            f"{url} begins at {tuple(voxels)} voxels (z, y, x); volumes begin on whole voxels: give the offset "
            "by adding #offset=z,y,x, or resample the data"
        )
    return Vec(*map(round, voxels))


def tidy(values: Sequence[float]) -> Resolution:
    """Nanometres without the last binary digits that unit conversions leave: 4.6, not 4.6000000000000005."""
    z, y, x = (float(f"{v:.9g}") for v in values)
    return z, y, x


def placement(location: Location, found: tuple[Resolution | None, Vec], extent: Vec) -> tuple[Resolution, BoundingBox]:
    """Resolution and bounds: what the URL's options say, else what the file says.

    ``VolumeError`` if neither does, or if a side of a voxel is not positive.
    """
    resolution = location.numbers("resolution") or found[0]
    if resolution is None:
        raise NoResolutionError(
            f"{location.url} does not say how large its voxels are; add their size in nm, z,y,x: "
            f"{location.url}{'&' if location.options else '#'}resolution=8,8,8"
        )
    if not all(math.isfinite(side) and side > 0 for side in resolution):
        raise VolumeError(
            f"{location.url} has voxels of {tuple(resolution)} nm (z, y, x); all three must be positive: correct them, "
            "or replace what the data says by adding #resolution=z,y,x"
        )
    start = location.numbers("offset") or found[1]
    return tidy(resolution), BoundingBox.from_shape(extent, start)  # type: ignore[arg-type]


def from_attributes(url: str, attributes: Mapping[str, Any]) -> tuple[Resolution | None, Vec]:
    """Resolution and offset out of plain attributes, z, y, x.

    ``resolution_nm`` goes with ``offset`` in voxels; ``voxel_size`` or ``resolution`` (as other chunked tools write
    them) with ``offset`` in nanometres.
    """
    offset = [float(v) for v in attributes.get("offset", (0, 0, 0))][-3:]
    if "resolution_nm" in attributes:
        return tidy(attributes["resolution_nm"]), whole_voxels(url, offset, (1.0, 1.0, 1.0))
    size = attributes.get("voxel_size", attributes.get("resolution"))
    if size is None or len(size) < 3:
        return None, whole_voxels(url, offset, (1.0, 1.0, 1.0))
    resolution = tidy(list(size)[-3:])
    return resolution, whole_voxels(url, offset, resolution)


def refuse_writing(location: Location, mode: Mode) -> None:
    """``VolumeError`` for any other mode than ``r``; for the formats that are only read."""
    if mode != "r":
        raise VolumeError(f"{location.url} can only be read; ingest it into a zarr volume to write (petaseg ingest)")
