"""The bump window, which weights overlapping patches.

The weight of a voxel is a product over the axes of psi(t) = exp(1 - 1 / (1 - t^2)), t in (-1, 1) across the patch: the
smooth bump function of analysis, 1 in the middle and flat zero at the border. Lee et al. 2017 (arXiv:1706.00120) blend
the patches of EM affinities with a bump; theirs falls with (u (1 - u))^-1.5, which at an overlap of a quarter of the
patch is a hard cut in the middle of the overlap, while psi changes from one patch to the other across the whole
overlap.

Weights along an axis are rounded to multiples of 2^-16 and are at least 2^-16: strictly positive, equal on every
machine (the exponential functions of two machines may differ in the last bit), and sums of them are exact.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp

import numpy as np

from pipeline.geometry import Triple
from pipeline.inference.lattice import PatchLattice

STEPS = 1 << 16


def profile(width: int) -> np.ndarray:
    """Weights across one side of a patch, (width,) float32, symmetric, in [2^-16, 1]."""
    places = ((2 * i + 1 - width) / width for i in range(width))
    steps = [max(1, round(exp(1 - 1 / (1 - t * t)) * STEPS)) for t in places]
    return np.array(steps, np.float32) / np.float32(STEPS)


def weight_shares(lattice: PatchLattice, index: Triple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along each axis the weight of a patch over the sum of the weights of all patches: (z,), (y,), (x,) float64.

    Windows are products over the axes and the lattice is a grid, so the share of a patch in a voxel is the product of
    these three; the shares of a voxel add up to 1. Nothing but the lattice decides about them.
    """
    z, y, x = (_axis_shares(lattice, axis, i) for axis, i in enumerate(index))
    return z, y, x


@lru_cache(maxsize=1024)
def _axis_shares(lattice: PatchLattice, axis: int, i: int) -> np.ndarray:
    """The shares of the i-th patch; sums of multiples of 2^-16 are exact in float64 in any order."""
    weights = profile(lattice.patch_shape[axis]).astype(np.float64)
    start, stop = lattice.position(axis, i), lattice.position(axis, i) + len(weights)
    total = np.zeros(len(weights))
    for other in lattice.on_axis(axis, start, stop):
        first = lattice.position(axis, other)
        a, b = max(start, first), min(stop, first + len(weights))
        total[a - start : b - start] += weights[a - first : b - first]
    return weights / total
