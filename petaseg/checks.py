"""Checks of arrays before anything is computed: each error gives the value, the rule and the remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.volumes import Volume

Array: TypeAlias = "ArrayLike | Volume"
"""A numpy array, what numpy can make one of, or an open volume."""


def checked_resolution(resolution: Sequence[float]) -> tuple[float, float, float]:
    """Nanometres z, y, x; ``ConfigError`` unless they are three positive numbers."""
    try:
        z, y, x = map(float, resolution)
    except (TypeError, ValueError):
        z = y = x = math.nan
    if not all(math.isfinite(side) and side > 0 for side in (z, y, x)):
        raise ConfigError(
            f"resolution is {resolution!r}; it must be three positive numbers, nanometres per voxel along z, y, x: "
            "resolution=(8, 8, 8)"
        )
    return z, y, x


def resolution_of(array: Array, resolution: Sequence[float] | None) -> tuple[float, float, float]:
    """The resolution that was given, or that of a volume; ``ConfigError`` without either."""
    given = getattr(array, "resolution_nm", None) if resolution is None else resolution
    if given is None:
        raise ConfigError(
            "an array does not say how large its voxels are; give nanometres per voxel along z, y, x: "
            "resolution=(8, 8, 8)"
        )
    return checked_resolution(given)


def checked_image(image: Array, channels: int = 1) -> np.ndarray:
    """The image as uint8 (z, y, x), or (c, z, y, x) for a model of several channels.

    Raises ``ConfigError`` unless it has this shape and its values are whole numbers from 0 to 255.
    """
    voxels = np.asarray(image)
    if channels > 1 and (voxels.ndim != 4 or len(voxels) != channels):
        last = "its channels come last: np.moveaxis(image, -1, 0)" if voxels.shape[-1:] == (channels,) else "stack them"
        raise ConfigError(
            f"the image has shape {voxels.shape}; the model takes (c, z, y, x) with {channels} channels: {last}"
        )
    if channels == 1 and voxels.ndim != 3:
        raise ConfigError(f"the image has shape {voxels.shape}; it must have three axes, (z, y, x): {_axes(voxels)}")
    _refuse_empty("image", voxels)
    if voxels.dtype.kind not in "uif":
        raise ConfigError(f"the image holds {voxels.dtype}; it must be uint8: convert it")
    if voxels.dtype == np.uint8:
        return voxels
    _refuse_not_finite("image", voxels)
    low, high = voxels.min(), voxels.max()
    if low < 0 or high > 255 or (voxels.dtype.kind == "f" and (voxels != np.rint(voxels)).any()):
        raise ConfigError(
            f"the image holds {voxels.dtype} from {low:g} to {high:g}; it must be uint8, or whole numbers from 0 to "
            f"255: {_remedy(float(low), float(high))}"
        )
    return voxels.astype(np.uint8)


def checked_affinities(affinities: Array, channels: int) -> np.ndarray:
    """Affinities (c, z, y, x), uint8 or floating point; ``ConfigError`` unless they can be used."""
    values = np.asarray(affinities)
    if values.ndim != 4 or len(values) != channels:
        raise ConfigError(
            f"the affinities have shape {values.shape}; they must be (c, z, y, x) with {channels} channels, one for "
            f"each offset: {_channels(values, channels)}"
        )
    _refuse_empty("affinities", values)
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        raise ConfigError(
            f"the affinities hold {values.dtype}; they must be uint8 (255 = surely one object), or floating-point "
            "numbers from 0 to 1: convert them"
        )
    if values.dtype.kind == "f":
        _refuse_not_finite("affinities", values)
    _check_range(values)
    return values


def checked_mask(mask: Array, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as uint8 (z, y, x), 1 = tissue; ``ConfigError`` if it is of another shape or no mask."""
    inside = np.asarray(mask)
    if inside.shape != shape:
        raise ConfigError(
            f"the mask has shape {inside.shape}; it must cover the same voxels as the data, {shape}: crop or pad it"
        )
    if inside.dtype.kind not in "bui":
        raise ConfigError(f"the mask holds {inside.dtype}; it must be bool or integers, 0 = outside: mask > 0")
    return (inside != 0).astype(np.uint8)


def _check_range(values: np.ndarray) -> None:
    """Refuse affinities of another range: floating point is rounded to steps of 1/255, which must be 0 to 255."""
    from pipeline.stages.heads import SURE

    low, high = values.min(), values.max()
    if values.dtype == np.uint8 and 0 < high < SURE:
        raise ConfigError(
            f"the affinities are uint8 of which none is larger than {high}; 255 is sure, and {high} is not: "
            f"{'affinities * 255' if high == 1 else 'affinities / 100 if 100 is sure'}, or affinities / 255 if "
            "they are meant as they are"
        )
    steps = np.rint(np.array([low, high], np.float64) * 255)
    if values.dtype.kind == "f" and (steps[0] < 0 or steps[1] > 255):
        raise ConfigError(
            f"the affinities range from {low:g} to {high:g}; floating-point affinities must lie in 0..1: rescale them, "
            "or apply the network's sigmoid"
        )


def _refuse_empty(what: str, values: np.ndarray) -> None:
    if not values.size:
        raise ConfigError(f"the {what} of shape {values.shape} holds no voxel; each axis needs at least one: check it")


def _refuse_not_finite(what: str, values: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        place = tuple(map(int, bad[0]))
        raise ConfigError(
            f"the {what} holds {values[place]} at {place} and in {len(bad):,} voxels in all; every value must be "
            "finite: replace them, np.nan_to_num(array)"
        )


def _axes(voxels: np.ndarray) -> str:
    """The remedy for an image with another number of axes."""
    if voxels.ndim == 2:
        return "one section is image[np.newaxis]"
    if voxels.ndim == 4 and len(voxels) >= 3:
        return "affinities (c, z, y, x) go to petaseg.agglomerate; of several channels take one, image[0]"
    return "leave the other axes out, image[0]" if voxels.ndim > 3 else "stack its sections"


def _channels(values: np.ndarray, channels: int) -> str:
    """The remedy for affinities with other channels."""
    if values.ndim == 4 and values.shape[-1] == channels:
        return "its channels come last: np.moveaxis(affinities, -1, 0)"
    if values.ndim == 4 and len(values) > channels:
        return f"take those of the nearest neighbours, affinities[:{channels}]"
    return "stack one array (z, y, x) for each axis" if values.ndim == 4 else "an image goes to petaseg.segment"


def _remedy(low: float, high: float) -> str:
    """How an image of this range becomes uint8."""
    if low >= 0 and high <= 1:
        return "np.rint(image * 255).astype(np.uint8)"
    if low >= 0 and high <= 255:
        return "np.rint(image).astype(np.uint8)"
    return "np.rint(np.interp(image, (low, high), (0, 255))).astype(np.uint8), with low and high of your choice"
