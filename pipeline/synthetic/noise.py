"""Smooth random fields on an anisotropic grid, fast enough for a dozen of them in one picture."""

from __future__ import annotations

import numpy as np

FloatField = np.ndarray
"""float32, (z, y, x)"""


def smooth_noise(
    shape: tuple[int, int, int],
    pitch_nm: tuple[float, float, float],
    length_nm: float,
    rng: np.random.Generator,
) -> FloatField:
    """A random field of mean 0 and standard deviation about 1 that varies over ``length_nm``.

    White noise on a coarse grid of that spacing, taken to the voxels by a cubic B-spline, one axis after the other.
    Only products and sums of single elements are used, so the number of threads cannot change a bit of it.

    Args:
        shape: voxels, (z, y, x).
        pitch_nm: nm per voxel, (z, y, x).
        length_nm: spacing of the coarse grid.
        rng: the source of randomness; it is advanced.

    Returns:
        float32, ``shape``.
    """
    spacing = [max(length_nm / pitch, 1.0) for pitch in pitch_nm]
    coarse = [int(np.ceil(size / step)) + 4 for size, step in zip(shape, spacing, strict=True)]
    field = rng.standard_normal(coarse, dtype=np.float32)
    for axis in range(3):
        field = _refine(field, axis, shape[axis], spacing[axis], float(rng.random()))
    return field


def _refine(field: FloatField, axis: int, size: int, spacing: float, phase: float) -> FloatField:
    """Interpolate one axis to ``size`` samples by a cubic B-spline, and undo the loss of variance on it."""
    position = phase + np.arange(size) / spacing
    knot = position.astype(np.intp)
    t = position - knot
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    weights /= np.sqrt((weights**2).sum(axis=0).mean())
    spread = [1, 1, 1]
    spread[axis] = size
    return sum(
        np.take(field, knot + tap, axis=axis) * weights[tap].astype(np.float32).reshape(spread) for tap in range(4)
    )
