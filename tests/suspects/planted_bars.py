"""Made-up tissue of bars between cubes: two that cross and are merged there, and one with a wall across it."""

from pathlib import Path

import numpy as np

from tests.runs import write_run, write_volume

SHAPE = (40, 120, 120)
BLOCK, BLOCKS = 10, 12
"""Voxels along each bar that are one supervoxel, and how many of these there are."""
NM = 16
WALL = 60
"""Along x, in the last bar."""
CENTRES = {1: (15, 55, None), 2: (25, None, 55), 3: (15, 25, None)}
"""Of each bar, z y x; it runs along the axis without a number, and is ten voxels wide."""


def bars() -> np.ndarray:
    """The bar of each voxel, 0 where there is none."""
    places = np.indices(SHAPE)
    found = np.zeros(SHAPE, np.uint64)
    for name, centre in CENTRES.items():
        near = [c is None or (places[axis] >= c - 5) & (places[axis] < c + 5) for axis, c in enumerate(centre)]
        found[near[0] & near[1] & near[2]] = name
    return found


def bodies() -> tuple[np.ndarray, np.ndarray]:
    """The body of each voxel, a bar or a cube between them, and its block within the body."""
    bar = bars().astype(int)
    z, y, x = np.indices(SHAPE) // BLOCK
    cube = 4 + (z * BLOCKS + y) * BLOCKS + x
    return np.where(bar > 0, bar, cube), np.where(bar == 2, y, x)


def affinities() -> np.ndarray:
    """High inside blocks, good between those of a bar, low between bodies; the crossing is joined, the wall is not."""
    rng, (body, block) = np.random.default_rng(1), bodies()
    found = np.zeros((3, *SHAPE))
    for axis in range(3):
        other, other_block = np.roll(body, 1, axis), np.roll(block, 1, axis)
        within = np.where(other_block == block, 250, 190)
        found[axis] = np.where(other == body, within, np.where((body < 3) & (other < 3), 150, 12))
        first = [slice(None)] * 3
        first[axis] = slice(0, 1)
        found[axis][tuple(first)] = 0
    found[2][:, :, WALL] = np.where(body[:, :, WALL] == 3, 118, found[2][:, :, WALL])
    noise = rng.integers(-4, 5, found.shape)
    return np.where(found > 0, np.clip(found + noise, 0, 255), 0).astype(np.uint8)


def bars_run(folder: Path, chunk: tuple[int, int, int] = SHAPE, **tables) -> Path:
    """The run file, with skeletons; the true bars are ``truth.zarr`` beside it."""
    given = {"affinities": write_volume(folder / "affinities.zarr", affinities(), resolution_nm=(NM, NM, NM))}
    write_volume(folder / "truth.zarr", bars(), resolution_nm=(NM, NM, NM))
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    given |= tables.pop("given", {})
    tables = {"skeletons": {"const_nm": 50, "smallest_voxels": 1500}, **tables}
    tables = {name: table for name, table in tables.items() if table is not None}
    return write_run(folder, input=given, supervoxels={"filter_width": 1}, **shapes, **tables)
