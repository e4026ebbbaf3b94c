"""The place of an array in the dataset: resolution and offset, from a URL's options, else from what the file states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import ZERO, BoundingBox, Vec
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
"""Nanometres of each unit that OME-Zarr and TIFF files use; see ``unit_nm``."""
WHOLE = 1e-3
"""The largest distance of an offset from a whole voxel: the rounding error of float32 translations."""
FARTHEST = 2**53
"""The largest offset in voxels: whole numbers beyond it are not exact in floating point."""
SMALLEST_NM, LARGEST_NM = 1e-3, 1e9
"""The sides of a voxel that somebody may mean: less than an atom, and a metre."""

Resolution = tuple[float, float, float]


class NoResolutionError(VolumeError):
    """Neither the data nor its URL states the size of a voxel."""


@dataclass(frozen=True)
class Stated:
    """What a file states; each part is only read where no option of the URL replaces it, so options mend any file."""

    resolution: Callable[[], Resolution | None] = lambda: None
    """Nanometres per voxel; ``None`` if the file does not say. Raises ``VolumeError`` if it cannot be understood."""
    offset: Callable[[], Vec] = lambda: ZERO
    """The first voxel; 0, 0, 0 if the file does not say. Raises ``VolumeError`` if it cannot be understood."""


def unit_nm(name: object) -> float | None:
    """Nanometres of a unit, by its name in any of its spellings; ``None`` if it is none that is known."""
    word = str(name).strip().replace("\\u00B5", "µ").lower()
    return UNITS_NM.get(word) or UNITS_NM.get(word.removesuffix("s").replace("metre", "meter"))


def whole_voxels(url: str, offset_nm: Sequence[float], resolution_nm: Sequence[float]) -> Vec:
    """An offset in voxels from one in nanometres (z, y, x); ``VolumeError`` if it is between voxels."""
    voxels = _voxels(offset_nm, resolution_nm)
    if not are_whole(offset_nm, resolution_nm):
        raise VolumeError(
            f"{url} begins at {tuple(voxels)} voxels (z, y, x); volumes begin on whole voxels: give the offset "
            "by adding #offset=z,y,x, or resample the data"
        )
    return Vec(*map(round, voxels))


def are_whole(offset_nm: Sequence[float], resolution_nm: Sequence[float]) -> bool:
    """True if an offset in nanometres is a whole number of voxels on each axis."""
    return all(abs(v) <= FARTHEST and abs(v - round(v)) <= WHOLE for v in _voxels(offset_nm, resolution_nm))


def _voxels(offset_nm: Sequence[float], resolution_nm: Sequence[float]) -> list[float]:
    return [t / r if r else math.nan for t, r in zip(offset_nm, resolution_nm, strict=True)]


def tidy(values: Sequence[float]) -> Resolution:
    """Nanometres without the rounding errors of unit conversions: 4.6, not 4.6000000000000005."""
    z, y, x = (float(f"{v:.9g}") for v in values)
    return z, y, x


def placement(location: Location, stated: Stated, extent: Vec) -> tuple[Resolution, BoundingBox]:
    """Resolution and bounds, from the URL's options, else from the file.

    ``VolumeError`` if neither has them, or if a side of a voxel is not positive.
    """
    resolution = location.numbers("resolution") or stated.resolution()
    if resolution is None:
        raise NoResolutionError(
            f"{location.url} does not say how large its voxels are; add their size in nm, z,y,x: "
            f"{location.url}{'&' if location.options else '#'}resolution=8,8,8"
        )
    if not all(SMALLEST_NM <= side <= LARGEST_NM for side in resolution):
        raise VolumeError(
            f"{location.url} has voxels of {tuple(resolution)} nm (z, y, x); all three must be positive, from "
            f"{SMALLEST_NM:g} to {LARGEST_NM:g}: correct them, or replace what the data says by adding "
            "#resolution=z,y,x"
        )
    return tidy(resolution), BoundingBox.from_shape(extent, given_offset(location) or stated.offset())


def given_offset(location: Location) -> Vec | None:
    """The first voxel that the URL's options give; ``ConfigError`` unless it is whole numbers of voxels."""
    numbers = location.numbers("offset")
    if numbers is None:
        return None
    if not all(n.is_integer() and abs(n) <= FARTHEST for n in numbers):
        raise ConfigError(
            f"{location.url}: offset is {location.options['offset']!r}; it counts whole voxels z,y,x, such as 0,0,0"
        )
    return Vec(*map(int, numbers))


def refuse_writing(location: Location, mode: Mode) -> None:
    """Raise ``VolumeError`` for any mode but ``r``, in formats that are only read."""
    if mode != "r":
        raise VolumeError(f"{location.url} can only be read; ingest it into a zarr volume to write (petaseg ingest)")
