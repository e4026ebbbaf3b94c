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

from math import exp

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.inference.lattice import PatchLattice

STEPS = 1 << 16


def profile(width: int) -> np.ndarray:
    """Weights across one side of a patch, (width,) float32, symmetric, in [2^-16, 1]."""
    places = ((2 * i + 1 - width) / width for i in range(width))
    steps = [max(1, round(exp(1 - 1 / (1 - t * t)) * STEPS)) for t in places]
    return np.array(steps, np.float32) / np.float32(STEPS)


def bump_window(patch_shape: Vec) -> np.ndarray:
    """The weights of a patch, (z, y, x) float32, strictly positive; the same for every patch."""
    z, y, x = (profile(width) for width in patch_shape)
    return z[:, None, None] * y[:, None] * x


def weight_sums(lattice: PatchLattice, core: BoundingBox) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along each axis the sum of the weights of all patches over a core: (z,), (y,), (x,) float32.

    Windows are products over the axes and the lattice is a grid, so the sum of the weights of a voxel is the product
    of these three. Each is a sum of multiples of 2^-16, exact in float64 in any order.
    """
    sums = (_axis_sum(lattice, core, axis, places) for axis, places in enumerate(lattice.ranges(core)))
    return tuple(sums)  # type: ignore[return-value]


def _axis_sum(lattice: PatchLattice, core: BoundingBox, axis: int, places: range) -> np.ndarray:
    start, stop = core.start[axis], core.stop[axis]
    weights = profile(lattice.patch_shape[axis])
    total = np.zeros(stop - start, np.float64)
    for i in places:
        first = lattice.position(axis, i)
        a, b = max(start, first), min(stop, first + len(weights))
        total[a - start : b - start] += weights[a - first : b - first]
    return total.astype(np.float32)
