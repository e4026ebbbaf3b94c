"""Targets that are yes or no at every voxel: foreground, membranes, contours, and Lee's erosion of labels.

Labels are integers (y, x) or (z, y, x). "In the plane" means in every section (y, x) by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.morphology import footprint_rectangle

from pipeline.errors import ConfigError

Zero = Literal["unknown", "membrane", "background"]
"""What the label 0 means: not annotated, membrane (annotators drew cells only), or an object like any other."""


def foreground(labels: np.ndarray) -> np.ndarray:
    """1 inside objects: float32 (1, ...). The option '0' of PyTorch Connectomics."""
    return (labels > 0).astype(np.float32)[None]


def contours(labels: np.ndarray, *, dilation: int, background: bool) -> np.ndarray:
    """Outlines of objects in the plane, as PyTorch Connectomics (Lin et al. 2021, option '4-h-bg') draws them.

    background=True: where the labels before and after a voxel differ along y or along x, thickened by a square of
    2 * dilation + 1. The voxel itself is not looked at, so an outline is two voxels wide at dilation 0, and an object
    one voxel wide has none along its middle: a quirk of the central difference, kept.
    background=False: where a square of 2 * dilation + 1 around a voxel holds two objects; nothing at dilation 0.

    Returns:
        float32 (1, ...): 1 on outlines.
    """
    square = _in_plane(2 * dilation + 1, labels.ndim)
    if background:
        found = ndimage.grey_dilation(_central_difference(labels), footprint=square)
    else:
        found = _objects_meet(labels, square)
    return found.astype(np.float32)[None]


def membranes(
    labels: np.ndarray,
    *,
    reach: float,
    in_plane: bool,
    zero: Zero,
    resolution: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Where two cells meet: target and mask.

    A voxel is membrane if a voxel of another cell lies within ``reach`` of it.

    Args:
        labels: integers (y, x) or (z, y, x).
        reach: in the unit of ``resolution``; 1 with voxels of side 1 means the nearest neighbours.
        resolution: size of a voxel, one number an axis; 1 if left out.
        in_plane: look within the section only.
        zero: the meaning of label 0. Unknown voxels are masked out, and so are voxels within reach of one, unless they
            are membrane because of a known neighbour.

    Returns:
        float32 (1, ...) each.
    """
    ball = _ball(reach, resolution or (1.0,) * labels.ndim, in_plane)
    if zero == "background":
        labels = labels + 1
    found = _objects_meet(labels, ball)
    empty = labels == 0
    if zero == "membrane":
        return (found | empty).astype(np.float32)[None], np.ones((1, *labels.shape), np.float32)
    unknown = ndimage.binary_dilation(empty, ball) & ~found | empty
    return (found & ~empty).astype(np.float32)[None], (~unknown).astype(np.float32)[None]


def erode_in_plane(labels: np.ndarray, radius: int = 1) -> np.ndarray:
    """Labels with 0 wherever a square of 2 * radius + 1 in the plane holds more than one object (Lee et al. 2017)."""
    return np.where(_objects_meet(labels, _in_plane(2 * radius + 1, labels.ndim)), 0, labels)


def _central_difference(labels: np.ndarray) -> np.ndarray:
    """1 where the two neighbours along y, or those along x, differ; uint8. The border is repeated outwards."""
    found = np.zeros(labels.shape, np.uint8)
    for axis in (labels.ndim - 2, labels.ndim - 1):
        pads = [(int(a == axis),) * 2 for a in range(labels.ndim)]
        padded = np.pad(labels, pads, "edge")
        last = padded.shape[axis]
        ahead, behind = np.take(padded, range(2, last), axis), np.take(padded, range(last - 2), axis)
        found |= ahead != behind
    return found


def _objects_meet(labels: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """True where the footprint around a voxel holds two labels other than 0; mirrored at the border."""
    ids, compact = np.unique(labels, return_inverse=True)  # filters compute in float64, which has no room for all ids
    numbers = compact.reshape(labels.shape) + int(ids[0] != 0)
    highest = ndimage.maximum_filter(numbers, footprint=footprint, mode="mirror")
    last = np.where(numbers == 0, len(ids) + 1, numbers)
    lowest = ndimage.minimum_filter(last, footprint=footprint, mode="mirror")
    return (highest > 0) & (lowest < highest)  # type: ignore[no-any-return]


def _in_plane(side: int, ndim: int) -> np.ndarray:
    """A square in y and x, one voxel deep."""
    return footprint_rectangle((1,) * (ndim - 2) + (side, side), dtype=bool)  # type: ignore[no-any-return]


def _ball(reach: float, resolution: Sequence[float], in_plane: bool) -> np.ndarray:
    """Voxels within ``reach`` of the one in the middle."""
    sizes = np.array(resolution, float)
    radii = np.floor(reach / sizes * (1 + 1e-9)).astype(int)
    if in_plane:
        radii[:-2] = 0
    if radii.max() == 0:
        raise ConfigError(
            f"reach is {reach:g} and voxels are {list(sizes)}: no neighbour is that near, so there is no membrane; "
            "reach at least one voxel"
        )
    steps = np.ogrid[tuple(slice(-r, r + 1) for r in radii)]
    square = sum((step * size) ** 2 for step, size in zip(steps, sizes, strict=True))
    return np.asarray(square <= reach**2 * (1 + 1e-9))
