"""Local shape descriptors (Sheridan et al. 2022): the shape of a voxel's object in a window around it.

Within a Gaussian window around voxel v, of all voxels of v's own object, with the coordinate r in units of length:

1. size         w = sum of the window's weights on the object            0 to 1
2. mean offset  m = E[r] - r(v), to the local centre of mass             in units of sigma, -1 to 1 shown as 0 to 1
3. covariance   its diagonal Var[r_i]                                    in units of sigma^2
4. Pearson      Cov[r_i, r_j] / sqrt(Var[r_i] Var[r_j])                  -1 to 1 shown as 0 to 1

All values are clipped to 0 and 1, and are 0 where there is no object.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import ndimage

from pipeline.errors import ConfigError

TRUNCATE = 3.0
"""The window ends at this many sigma."""
LEAST_VARIANCE = 1e-3


def descriptor_channels(ndim: int) -> int:
    """10 in 3D, 6 in 2D."""
    return 2 * ndim + ndim * (ndim - 1) // 2 + 1


def shape_descriptors(
    labels: np.ndarray, sigma: Sequence[float], resolution: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Local shape descriptors: target and mask.

    Args:
        labels: integers (z, y, x) or (y, x); 0 is no object.
        sigma: of the window along each axis, in the unit of ``resolution``; 80 nm in the paper for FIB-25 at 8 nm.
        resolution: size of a voxel along each axis; 1 if left out.

    Returns:
        float32 (10, z, y, x): mean offset z, y, x; variance z, y, x; Pearson zy, zx, yx; size.
        Or float32 (6, y, x): mean offset y, x; variance y, x; Pearson yx; size. And the mask, 1 in objects.

    Raises:
        ConfigError: ``sigma`` or ``resolution`` have another number of axes than the labels.
    """
    sizes = np.ones(labels.ndim) if resolution is None else np.asarray(resolution, float)
    if len(sigma) != labels.ndim or len(sizes) != labels.ndim:
        raise ConfigError(f"sigma {list(sigma)}, resolution {list(sizes)}: one number for each of {labels.ndim} axes")
    widths = np.asarray(sigma, float)
    found = np.zeros((descriptor_channels(labels.ndim), *labels.shape), np.float32)
    ids, compact = np.unique(labels, return_inverse=True)
    numbers = compact.reshape(labels.shape) + int(ids[0] != 0)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        inside = numbers[box] == number
        found[(slice(None), *box)][:, inside] = _describe(inside, widths, sizes)[:, inside]
    mask = (labels != 0).astype(np.float32)
    return found, np.broadcast_to(mask, found.shape)


def _describe(inside: np.ndarray, sigma: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The descriptors of one object in its box: float64 (c, ...), meaningful where ``inside``."""
    grid = np.meshgrid(*(np.arange(n) * size for n, size in zip(inside.shape, sizes, strict=True)), indexing="ij")
    middle = [float(axis[inside].mean()) for axis in grid]
    r = [axis - centre for axis, centre in zip(grid, middle, strict=True)]  # small numbers, so that little cancels
    weight = _window(inside.astype(float), sigma / sizes)
    total = np.where(weight > 0, weight, 1.0)
    mean = [_window(axis * inside, sigma / sizes) / total for axis in r]
    offset = [(m - axis) / s * 0.5 + 0.5 for m, axis, s in zip(mean, r, sigma, strict=True)]

    def covariance(i: int, j: int) -> np.ndarray:
        return np.asarray(_window(r[i] * r[j] * inside, sigma / sizes) / total - mean[i] * mean[j])

    variance = [np.maximum(covariance(i, i), LEAST_VARIANCE) for i in range(inside.ndim)]
    pearson = [
        covariance(i, j) / np.sqrt(variance[i] * variance[j]) * 0.5 + 0.5
        for i, j in combinations(range(inside.ndim), 2)
    ]
    scaled = [v / s**2 for v, s in zip(variance, sigma, strict=True)]
    return np.clip(np.stack([*offset, *scaled, *pearson, weight]), 0.0, 1.0)


def _window(values: np.ndarray, sigma_voxels: np.ndarray) -> np.ndarray:
    """Sums weighted by the Gaussian window, with zeros beyond the box."""
    return ndimage.gaussian_filter(values, sigma_voxels, mode="constant", truncate=TRUNCATE)  # type: ignore[no-any-return]
