"""The fixed patches on which a process shows how it computes: other numbers for them mean other bytes in a run.

They are made of whole numbers only, so every machine and every version of numpy makes the same: blocks of 8 x 8 x 8
voxels of one brightness, with noise on them. The blocks drive a network through all of its range; the noise makes each
voxel another sum.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Vec

BLOCK = 8
"""Side of a block of one brightness, in voxels."""


def probe_patches(count: int, shape: Vec) -> np.ndarray:
    """So many different patches, (count, z, y, x) uint8; the same wherever and whenever they are made."""
    return np.stack([_texture(shape, seed) for seed in range(count)])


def _texture(shape: Vec, seed: int) -> np.ndarray:
    z, y, x = np.indices(shape, np.uint32)
    fine = _scrambled(z, y, x, seed)
    coarse = _scrambled(z // BLOCK, y // BLOCK, x // BLOCK, seed)
    return ((3 * (coarse >> 24) + (fine >> 24)) // 4).astype(np.uint8)


def _scrambled(z: np.ndarray, y: np.ndarray, x: np.ndarray, seed: int) -> np.ndarray:
    """A hash of each position, (z, y, x) uint32."""
    mixed = np.full_like(z, seed)
    for part in (z, y, x):
        mixed = (mixed ^ part) * np.uint32(0x9E3779B1)
        mixed = (mixed ^ (mixed >> 15)) * np.uint32(0x846CA68B)
        mixed ^= mixed >> 16
    return mixed
