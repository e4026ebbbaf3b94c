"""A made-up tissue of rods along x, with one merger and one split planted."""

from pathlib import Path

import numpy as np

from pipeline.geometry import Vec
from tests.runs import write_run, write_volume

SIDE, RODS, LENGTH = 10, 3, 5
"""Voxels of a block, rods along z and along y, and blocks of each rod."""
SHAPE = (SIDE * RODS, SIDE * RODS, SIDE * LENGTH)
SPLIT = Vec(SIDE // 2, SIDE // 2, 2 * SIDE)
"""On the wall across the first rod."""
MERGER = 2 * SIDE
"""Along y, where the last two rods of the last layer touch."""


def blocks() -> tuple[np.ndarray, np.ndarray]:
    """The rod of each voxel, from 1, and its block within the rod."""
    z, y, x = np.indices(SHAPE) // SIDE
    return z * RODS + y + 1, x


def planted_affinities() -> np.ndarray:
    """High inside blocks, good between those of a rod, low between rods; two contacts are just beyond the threshold."""
    rng = np.random.default_rng(1)
    rod, block = blocks()
    affinities = np.zeros((3, *SHAPE))
    for axis in range(3):
        other_rod, other_block = np.roll(rod, 1, axis), np.roll(block, 1, axis)
        within = np.where(other_block == block, 250, 190)
        affinities[axis] = np.where(other_rod == rod, within, 12)
        first = [slice(None)] * 3
        first[axis] = slice(0, 1)
        affinities[axis][tuple(first)] = 0
    affinities[2, :SIDE, :SIDE, 2 * SIDE] = 118
    affinities[1, 2 * SIDE :, 2 * SIDE] = 136
    noise = rng.integers(-4, 5, affinities.shape)
    return np.where(affinities > 0, np.clip(affinities + noise, 0, 255), 0).astype(np.uint8)


def planted_run(folder: Path, chunk: tuple[int, int, int] = SHAPE, **tables) -> Path:
    """The run file; the true rods are ``truth.zarr`` beside it."""
    given = {"affinities": write_volume(folder / "affinities.zarr", planted_affinities(), resolution_nm=(16, 16, 16))}
    write_volume(folder / "truth.zarr", blocks()[0].astype(np.uint64), resolution_nm=(16, 16, 16))
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    return write_run(folder, input=given, supervoxels={"filter_width": 1}, **shapes, **tables)
