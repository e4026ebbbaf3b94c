"""Weights by the calibre of neurites: a thin process has few voxels, and a missed one costs as much as a thick one.

1. Border voxels are those that touch another label (6 neighbours, 4 in the plane).
2. The distance of a voxel to the nearest border voxel is the radius of the largest ball around it that stays in its
   object, from voxel centre to voxel centre. The nearest border voxel is one of the own object, so no ball reaches
   into another.
3. A voxel is in a part of calibre t if a ball of radius t / 2 - 1/2 voxel (rounded up to whole voxels) that stays in
   its object holds it: an opening with a ball. Nine voxels pass for a calibre of eight, and eight do not.
4. Its weight is 1 where that holds for t = full, 2 where it first holds for full / 2, and so on.

The weight of a voxel follows from the labels within ``full_nm`` of it; edges of the array are no borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from scipy import ndimage

from pipeline.training.targets.edges import erode

APART = 1e6
"""The distance of sections, in units of ``full_nm``, where each is measured by itself."""


def calibre_weights(
    labels: np.ndarray, resolution_nm: Sequence[float], *, full_nm: float, halvings: int, in_plane: bool
) -> np.ndarray:
    """Weights (1, ...) float32 of labels (z, y, x) or (y, x): 1, 2, 4 ... 2^halvings; 1 where the label is 0.

    full_nm: parts that are thicker than this have weight 1. in_plane: calibre of the profiles in each section.
    """
    flat = in_plane and labels.ndim == 3
    size = (full_nm * APART, *resolution_nm[1:]) if flat else tuple(resolution_nm)
    inside = np.stack([_inside(section) for section in labels]) if flat else _inside(labels)
    room = _distance(inside, size)
    side = min(resolution_nm[-2:] if in_plane else resolution_nm)
    weights = np.ones(labels.shape, np.float32)
    for halving in range(halvings):
        radius = side * ceil(full_nm / 2 ** (halving + 1) / side - 0.5)
        weights[(labels > 0) & ~_opened(room, radius, size)] *= 2
    return weights[None]


def _inside(labels: np.ndarray) -> np.ndarray:
    """True in objects, except at voxels that touch another label."""
    return (labels > 0) & (erode(labels) == labels)


def _opened(room: np.ndarray, radius: float, size: Sequence[float]) -> np.ndarray:
    """True at voxels in a ball of this radius that has room."""
    if radius <= 0:
        return np.ones(room.shape, bool)
    return _distance(room < radius, size) <= radius


def _distance(inside: np.ndarray, size: Sequence[float]) -> np.ndarray:
    """Distance in nm to the nearest voxel that is not inside; infinite if there is none."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(inside, size))
