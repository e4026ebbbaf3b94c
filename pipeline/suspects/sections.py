"""Sections where affinities collapse: their mean lies far below that of the sections around them.

1. ``Sums.of``      for each channel and section the sum and number of affinities, chunk by chunk: integers
2. ``collapsed``    sections whose mean lies far below the median of their neighbours

Such a section tears neurons apart all over it, which no place of the list stands for. How many minutes it costs cannot
be told from its mean; so these sections are a list of their own, in ``tables/sections.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.grid import Chunk, ChunkGrid
from pipeline.runs.run import Run
from pipeline.shapes.measure_tables import AXES, table_of, to_parquet
from pipeline.stages.tissue import tissue
from pipeline.storage import ObjectStore

TABLE = "tables/sections.parquet"
AROUND = 8
"""Sections before and behind one that it is compared with."""
SPREADS = 6.0
"""How many spreads a mean lies below what is expected; a spread is 1.48 times the median absolute deviation."""
LEAST_SPREAD = 0.005
"""Affinity, 0..1; a smaller spread counts as this."""
LEAST_DROP = 0.05
"""Affinity, 0..1, by which a mean lies below what is expected at least."""
COLUMNS = {
    "z": "the section",
    "y": "middle of the section along y",
    "x": "middle of the section along x",
    "axis": "the affinities that collapse: those of neighbours along this axis",
    "mean": "their mean within the tissue of the section, 0..1",
    "expected": f"median of the means of up to {AROUND} sections before and behind it",
    "spreads": "how far the mean lies below it, in spreads: 1.48 times the median absolute deviation of all sections",
}
"""Columns of the table, and what they mean."""


@dataclass(frozen=True)
class Section:
    """One row."""

    z: int
    y: int
    x: int
    axis: str
    mean: float
    expected: float
    spreads: float


@dataclass(frozen=True, eq=False)
class Sums:
    """The affinities of every section."""

    first: int
    """The first section, z."""
    sums: np.ndarray
    """int64 (3, z): of 0..255 each"""
    counts: np.ndarray
    """int64 (3, z): voxels of the tissue; 0 where no voxel has a neighbour"""

    @classmethod
    def of(cls, run: Run) -> Sums:
        """Those of a run, read chunk by chunk."""
        layout = run.layout
        sums, counts = (np.zeros((3, layout.roi.shape.z), np.int64) for _ in range(2))
        for chunk in ChunkGrid(layout.bounds, layout.roi, layout.chunk_shape):
            at = slice(chunk.core.start.z - layout.roi.start.z, chunk.core.stop.z - layout.roi.start.z)
            added, voxels = _of_chunk(run, chunk)
            sums[:, at] += added
            counts[:, at] += voxels
        if layout.roi.start.z == layout.bounds.start.z:
            counts[0, 0] = 0  # nothing lies before the first section
        return cls(layout.roi.start.z, sums, counts)


def _of_chunk(run: Run, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Sums of affinities, int64 (3, z), and voxels of tissue, int64 (z,), of the sections of a chunk."""
    affinities = run.affinities.read(chunk.core)
    mask = tissue(run.inputs.mask_url, run.layout, chunk.core)
    within = np.ones(affinities.shape[1:], bool) if mask is None else mask
    return (affinities * within).sum(axis=(2, 3), dtype=np.int64), within.sum(axis=(1, 2))


def find_sections(run: Run) -> list[Section]:
    """The sections of a finished run where affinities collapse, in the order of z, then of axes."""
    sums, middle = Sums.of(run), run.layout.roi.middle
    rows = [
        (z, channel, mean, expected, spreads)
        for channel in range(len(AXES))
        for z, mean, expected, spreads in collapsed(sums.sums[channel], sums.counts[channel])
    ]
    return [Section(sums.first + z, middle.y, middle.x, AXES[channel], *rest) for z, channel, *rest in sorted(rows)]


def collapsed(sums: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, float, float, float]]:
    """The sections of one channel, int64 (z,), that collapse: number, mean, what is expected, and spreads below it.

    Sections without voxels are left out, and no neighbours of others.
    """
    known = np.flatnonzero(counts)
    means = sums[known] / counts[known] / 255
    if len(known) < 3:
        return
    expected = np.array([_around(means, known, row) for row in range(len(known))])
    drops = expected - means
    spread = max(float(np.median(np.abs(drops - np.median(drops)))) * 1.4826, LEAST_SPREAD)
    for row in np.flatnonzero((drops >= LEAST_DROP) & (drops >= SPREADS * spread)):
        yield int(known[row]), float(means[row]), float(expected[row]), float(drops[row] / spread)


def _around(means: np.ndarray, places: np.ndarray, row: int) -> float:
    """The median of the sections around one; its own mean where there is none."""
    near = np.abs(places - places[row]) <= AROUND
    near[row] = False
    return float(np.median(means[near])) if near.any() else float(means[row])


def write_sections(run: Run, sections: list[Section]) -> None:
    """Store the table; under the driver's lease."""
    columns: list[np.ndarray] = [
        np.array([getattr(each, name) for each in sections], _type_of(name)) for name in COLUMNS
    ]
    ObjectStore(run.home).put(TABLE, to_parquet([table_of(COLUMNS, columns)], COLUMNS), durable=True)


def _type_of(name: str) -> type:
    return {name: int for name in "zyx"}.get(name, str if name == "axis" else float)
