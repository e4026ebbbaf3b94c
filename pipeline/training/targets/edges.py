"""Affinities from labels, as targets with a mask.

Channel k at voxel v is 1 if v and v + offsets[k] lie in one object, else 0; it is masked unless both lie inside the
patch and both labels are known (not 0). Objects are eroded first: a voxel that touches another object counts as
membrane and is in no object, so that contacts become visible walls (Lee et al. 2017 do so in the plane).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

Offset = tuple[int, ...]
"""From a voxel to its partner: (z, y, x), or (y, x) in two dimensions."""

SUPERHUMAN_OFFSETS: tuple[tuple[int, int, int], ...] = (
    *((0, 0, -1), (0, -1, 0), (-1, 0, 0)),
    *((0, 0, -3), (0, -3, 0), (-2, 0, 0)),
    *((0, 0, -9), (0, -9, 0), (-3, 0, 0)),
    *((0, 0, -27), (0, -27, 0), (-4, 0, 0)),
)
"""The twelve edges of Lee et al. 2017 (for sections of about 30 nm and pixels of 6 nm), in their order."""


def affinities(
    labels: np.ndarray, offsets: Sequence[Offset], eroded: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and mask, both float32 (c, z, y, x), or (c, y, x) for labels (y, x).

    labels: integers (z, y, x); 0 is unknown.
    eroded: labels with 0 at membranes; the labels themselves if left out.
    """
    inside = labels if eroded is None else eroded
    targets = np.zeros((len(offsets), *labels.shape), np.float32)
    mask = np.zeros_like(targets)
    for k, offset in enumerate(offsets):
        here, there = overlap_slices(offset)
        if all(abs(o) < n for o, n in zip(offset, labels.shape, strict=True)):
            targets[k][here] = (inside[here] == inside[there]) & (inside[here] > 0)
            mask[k][here] = (labels[here] > 0) & (labels[there] > 0)
    return targets, mask


def edge_padded_affinities(labels: np.ndarray, distances: Sequence[int], *, centred: bool = False) -> np.ndarray:
    """Affinities along each axis as PyTorch Connectomics makes them (options '2', '2-z-y-x-v1' and '2-z-y-x-v2').

    There is no mask: an edge that leaves the volume ends at the nearest voxel inside it. 0 is background, and the
    affinity of a background voxel is 0.

    Args:
        labels: integers (z, y, x) or (y, x).
        distances: length of the edge along each axis; (1, 1, 1) is option '2'.
        centred: channel k at v is the edge from v - d to v + d (v2); otherwise from v to v - d (v1).

    Returns:
        float32 (ndim, ...), one channel an axis.
    """
    channels = []
    for axis, distance in enumerate(distances):
        positions = np.arange(labels.shape[axis])
        behind = np.take(labels, np.maximum(positions - distance, 0), axis)
        ahead = np.take(labels, np.minimum(positions + distance, positions[-1]), axis) if centred else labels
        channels.append((ahead == behind) & (ahead != 0))
    return np.stack(channels).astype(np.float32)


def overlap_slices(offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of v and of v + offset, for all v for which both lie inside an array."""
    here = tuple(slice(-o, None) if o < 0 else slice(None, -o or None) for o in offset)
    there = tuple(slice(None, o) if o < 0 else slice(o or None, None) for o in offset)
    return here, there


def erode(labels: np.ndarray) -> np.ndarray:
    """The labels with 0 at every voxel that has another label among its six neighbours (four in 2D)."""
    eroded = labels.copy()
    for axis in range(labels.ndim):
        here, there = overlap_slices(tuple(-int(a == axis) for a in range(labels.ndim)))
        differs = labels[here] != labels[there]
        eroded[here][differs] = 0
        eroded[there][differs] = 0
    return eroded


def widen_borders(labels: np.ndarray, voxels: int) -> np.ndarray:
    """The labels (z, y, x) or (y, x) with 0 at voxels that have another label within this many voxels along y and x.

    Each section by itself. What lies beyond the edge of the array is like the voxel at the edge.
    """
    size = (1,) * (labels.ndim - 2) + (2 * voxels + 1,) * 2
    least, most = (extreme(labels, size, mode="nearest") for extreme in (minimum_filter, maximum_filter))
    return np.where(least == most, labels, 0)
