"""Targets that are distances: signed to the nearest border of the foreground, and inside every object.

Both follow PyTorch Connectomics (Lin et al. 2021), whose code differs from the paper: distances are squashed by tanh,
and taken in every section by itself unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import ndimage
from skimage import measure, morphology

FAR = 5.0
"""Distance (after scaling) where a section has no border at all: tanh(5) = 0.9999."""
SECTION_DEPTH = 6.0
"""Depth of a voxel in units of its width, where PyTorch Connectomics measures distances in 3D."""
SMALLEST_HOLE = 16
"""Holes of an object with fewer voxels are filled before distances are measured."""
EPSILON = 1e-6
PAD = 2
MARGIN = 4
"""Voxels around an object within which a small hole is told from the surroundings."""


def signed_distance(
    labels: np.ndarray,
    *,
    inside: float,
    outside: float,
    in_plane: bool,
    squash: bool,
    resolution: Sequence[float] = (SECTION_DEPTH, 1.0, 1.0),
) -> np.ndarray:
    """Distance to the border of the foreground, positive inside: option '6-2d-8-50' of PyTorch Connectomics
    with 8 inside, 50 outside, in the plane, squashed.

    d(v, background) / inside - d(v, foreground) / outside, then tanh. Where there is no border, 5 before the tanh.

    Args:
        labels: integers (z, y, x) or (y, x); 0 is background.
        inside, outside: distances are divided by these (alpha and beta; the CREMI configuration has alpha 4).
        in_plane: measure in every section (y, x) by itself, with pixels of side 1; otherwise in 3D.
        resolution: size of a voxel (z, y, x) in 3D.
        squash: apply tanh, as the code does and the paper does not.

    Returns:
        float32 (1, ...).
    """
    sampling = None if in_plane else tuple(resolution)[-labels.ndim :]
    distance = _by_section(
        labels, in_plane, lambda part: _scaled(part != 0, inside, sampling) - _scaled(part == 0, outside, sampling)
    )
    return (np.tanh(distance) if squash else distance).astype(np.float32)[None]


def instance_distance(
    labels: np.ndarray,
    *,
    levels: int | None,
    in_plane: bool,
    separate_background: bool,
    resolution: Sequence[float] = (1.0, 1.0, 1.0),
    border_is_background: bool = False,
) -> np.ndarray:
    """Distance to the border of the own object, 1 at its deepest voxel: option '5' of PyTorch Connectomics.

    Parts of an object that do not touch (in the plane, or in 3D) count as objects of their own; holes of fewer than 16
    voxels are filled. An object without any border is deepest everywhere.

    Args:
        labels: integers (z, y, x) or (y, x); 0 is background.
        levels: number of equal steps from 0 to 1 into which distances are sorted, counted from 1; ``None`` for the
            distances themselves.
        in_plane: measure in every section by itself, with pixels of side 1; otherwise in 3D.
        resolution: size of a voxel (z, y, x) in 3D.
        border_is_background: measure to the border of the volume as well.
        separate_background: give the background level 0, or distance -1, of its own. Without it, as in the reference
            code, background has it only in sections (or volumes) without any object; elsewhere it shares level 1, or
            distance 0, with the rim of objects.

    Returns:
        int64 (...) levels from 0 to ``levels``, or float32 (...) distances.
    """
    sampling = None if in_plane else tuple(resolution)[-labels.ndim :]
    distance = _by_section(labels, in_plane, lambda part: _depths(part, sampling, border_is_background))
    if separate_background:
        distance = np.where(labels == 0, -1.0, distance)
    if levels is None:
        return distance.astype(np.float32)
    edges = [-1.0, *(float(i) / float(levels) for i in range(levels)), 1.1]
    return (np.digitize(distance, edges) - 1).astype(np.int64)


def _by_section(labels: np.ndarray, in_plane: bool, measure_part: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``measure_part`` of every section, or of the whole."""
    if not in_plane or labels.ndim == 2:
        return measure_part(labels)
    return np.stack([measure_part(section) for section in labels])


def _scaled(inside: np.ndarray, scale: float, sampling: tuple[float, ...] | None) -> np.ndarray:
    """Distance of voxels inside to the nearest one outside, over ``scale``; ``FAR`` everywhere if there is none."""
    if inside.all():
        return np.full(inside.shape, FAR)
    return ndimage.distance_transform_edt(inside, sampling) / scale  # type: ignore[no-any-return]


def _depths(labels: np.ndarray, sampling: tuple[float, ...] | None, pad: bool) -> np.ndarray:
    """Distance inside every connected object over its maximum; 0 outside, or -1 if there is no object."""
    parts = measure.label(labels)
    if pad:
        parts = np.pad(parts, PAD)
    depth = np.full(parts.shape, 0.0 if parts.any() else -1.0)
    for box, filled in _filled(parts):
        distance = _scaled(filled, 1.0, sampling)
        depth[box] = np.maximum(depth[box], distance / (distance.max() + EPSILON))
    return depth[(slice(PAD, -PAD),) * labels.ndim] if pad else depth


def _filled(parts: np.ndarray) -> Iterable[tuple[tuple[slice, ...], np.ndarray]]:
    """Every object without its small holes, and the box that holds it with its surroundings."""
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        wide = tuple(slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in box)
        inside = parts[wide] == number
        if _smallest_part(~inside) < SMALLEST_HOLE:  # a hole, or background that goes on outside the box
            inside = morphology.remove_small_holes(parts == number, max_size=SMALLEST_HOLE - 1, connectivity=1)[wide]
        yield wide, inside


def _smallest_part(background: np.ndarray) -> int:
    """Voxels of the smallest connected part."""
    return int(min(np.bincount(measure.label(background, connectivity=1).ravel())[1:], default=SMALLEST_HOLE))
