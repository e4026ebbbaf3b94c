"""Affinities from labels: what the network should say, and where it is asked.

Channel k at voxel v is 1 if v and v + offsets[k] lie in one object, else 0; it is asked only where both lie inside the
patch and both labels are known (not 0). Objects are eroded first: a voxel that touches another object counts as
membrane and is one with nothing, so that contacts become visible walls (Lee et al. 2017 do so in the plane).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.geometry import Vec


def affinities(
    labels: np.ndarray, offsets: Sequence[Vec], eroded: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and mask, both float32 (c, z, y, x).

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


def overlap_slices(offset: Vec) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of v and of v + offset, for all v for which both lie inside an array."""
    here = tuple(slice(-o, None) if o < 0 else slice(None, -o or None) for o in offset)
    there = tuple(slice(None, o) if o < 0 else slice(o or None, None) for o in offset)
    return here, there


def erode(labels: np.ndarray) -> np.ndarray:
    """The labels with 0 at every voxel that has another label among its six neighbours."""
    eroded = labels.copy()
    for axis in range(3):
        here, there = overlap_slices(tuple(-int(a == axis) for a in range(3)))  # type: ignore[arg-type]
        differs = labels[here] != labels[there]
        eroded[here][differs] = 0
        eroded[there][differs] = 0
    return eroded
