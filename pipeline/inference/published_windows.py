"""Blend windows of PyTorch Connectomics (Lin et al. 2021), for comparison; runs blend with ``window.py``.

Both are computed in float32, as in the published code, and are at least 1e-4. Neither is a product over the axes.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Vec

LEAST = 1e-4
SIGMA = 0.2
POWER = -1.5


def gaussian_window(patch_shape: Vec) -> np.ndarray:
    """1e-4 + exp(-r^2 / (2 0.2^2)), r the distance from the middle of the cube from -1 to 1: (z, y, x) float32.

    The outermost voxels lie on the faces of the cube.
    """
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in patch_shape), indexing="ij")
    r = np.sqrt(z * z + y * y + x * x)
    return (LEAST + np.exp(-(r**2) / (2.0 * SIGMA**2))).astype(np.float32)


def superhuman_window(patch_shape: Vec) -> np.ndarray:
    """1e-4 + exp(d - max d), d = -sum over the axes of (u (1 - u))^-1.5, u inside 0 to 1: (z, y, x) float32.

    After the bump of Lee et al. 2017; the outermost voxels lie one step inside the faces.
    """
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n + 2, dtype=np.float32)[1:-1] for n in patch_shape), indexing="ij")
    d = -((x * (1 - x)) ** POWER) - (y * (1 - y)) ** POWER - (z * (1 - z)) ** POWER
    return (LEAST + np.exp(d - d.max())).astype(np.float32)
