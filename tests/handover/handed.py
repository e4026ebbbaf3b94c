"""Small runs to hand on, and what they hold, computed in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.runs.run import Run
from pipeline.volumes import open_volume
from tests.runs import write_run, write_volume

SHAPE, START = (20, 24, 28), (3, 40, 5)
RESOLUTION = (20, 8, 6)


def affinities() -> np.ndarray:
    """Random affinities, some of which are high along stripes, so that there are supervoxels of all sizes."""
    return np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8)


def handed_run(folder: Path, chunk: tuple[int, int, int] = (10, 12, 14), **tables) -> Path:
    """A run file of a run with hundreds of supervoxels, in a region that is smaller than its volume."""
    source = write_volume(folder / "affinities.zarr", affinities(), RESOLUTION, START)
    given = {"affinities": source, "start": [4, 40, 8], "stop": [23, 63, 33]}
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    rules = {"supervoxels": {"threshold": 0.3, "filter_width": 1, "mode": "volume"}, "segmentation": {"threshold": 0.6}}
    return write_run(folder, **{"input": given, **shapes, **rules, **tables})


def voxels(run: Run, name: str) -> np.ndarray:
    """A volume of a run over its region, uint64 (z, y, x)."""
    return open_volume(run.layout.volume_url(name)).read(run.layout.roi)


def plain_contacts(run: Run, supervoxels: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """For each pair of touching ids, the axis and the affinity of each voxel face between them."""
    start = [a - b for a, b in zip(run.layout.roi.start, START, strict=True)]
    near = affinities()[(slice(None), *(slice(a, a + n) for a, n in zip(start, supervoxels.shape, strict=True)))]
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for axis in range(3):
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        a, b, value = supervoxels[low], supervoxels[high], near[axis][high]
        for i in zip(*np.nonzero((a != b) & (a > 0) & (b > 0)), strict=True):
            pair = min(a[i], b[i]), max(a[i], b[i])
            found.setdefault((int(pair[0]), int(pair[1])), []).append((axis, int(value[i])))
    return found
