"""A run as Parquet: tables of supervoxels, contacts, merges and neurons, and ``run.json`` with what they are of.

Row groups are written as they come, so that memory is bounded by a bucket of rows; the bytes depend on the rows alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.handover.source import CONTACT, SUPERVOXEL, Source
from pipeline.handover.tables import NEURON, Tables, gather
from pipeline.segmentation.agglomeration import MERGE
from pipeline.shapes.measure_tables import AXES, area_nm2, table_of, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

BOX = {
    **{f"start_{axis}": f"first voxel of the bounding box along {axis}" for axis in AXES},
    **{f"stop_{axis}": f"one past the last voxel of the bounding box along {axis}" for axis in AXES},
}
SUPERVOXELS = {
    "id": "id in the volume of supervoxels; 1 + the place of its first voxel in the bounds, in C order z, y, x",
    "segment": "id of its neuron in the result",
    "voxels": "number of voxels",
    **{f"first_{axis}": f"its first voxel along {axis}; this voxel lies in the supervoxel" for axis in AXES},
    **BOX,
    **{f"centre_{axis}": f"centre of mass along {axis}, in voxels; it may lie outside" for axis in AXES},
}
"""Columns of ``supervoxels.parquet``, and what they mean."""
CONTACTS = {
    "a": "id of one supervoxel",
    "b": "id of the other one, the larger id",
    "faces": "number of voxel faces between the two; 0 if only affinities of distant voxels connect them",
    "area_nm2": "area of these faces in square nanometres",
    **{f"position_{axis}": f"mean place of the faces along {axis}, in voxels" for axis in AXES},
    "affinities": "number of affinities between the two",
    "score": "score of this contact alone, 0 to 1: the mean of its affinities or their quantile, as the linkage says",
}
"""Columns of ``contacts.parquet``, and what they mean."""
MERGES = {
    "order": "place of the merge in the tree, from 0: the best first",
    "a": "id of one region, the smallest id of its supervoxels; the region after the merge is called so, too",
    "b": "id of the other region, the larger id",
    "score": "score of the merge, 0 to 1; a threshold of at most this joins the two",
}
"""Columns of ``merges.parquet``, and what they mean."""
NEURONS = {
    "id": "id in the result; `segment` of the table of supervoxels",
    "supervoxels": "number of its supervoxels",
    "voxels": "number of voxels",
    "volume_nm3": "volume in cubic nanometres",
    **BOX,
}
"""Columns of ``neurons.parquet``, and what they mean."""


def write_parquet_tables(source: Source, place: Path, on_progress: Callable[[int, int], None]) -> None:
    """Write the tables into a folder that exists."""
    sorting = place / "sorting"
    tables = gather(source, sorting, on_progress)
    for name, meanings, rows in (
        ("supervoxels", SUPERVOXELS, _supervoxels(source, tables)),
        ("contacts", CONTACTS, _contacts(source, tables)),
        ("merges", MERGES, _merges(tables)),
        ("neurons", NEURONS, _neurons(source, tables)),
    ):
        write_parquet(place / f"{name}.parquet", rows, meanings)
    (place / "run.json").write_text(json.dumps(source.facts, indent=2) + "\n")
    shutil.rmtree(sorting)


def _supervoxels(source: Source, tables: Tables) -> Iterator[pa.Table]:
    for rows in _with_none(tables.supervoxels(), SUPERVOXEL):
        centre = rows["sums"] / np.maximum(rows["voxels"], 1)[:, None]
        names = rows["id"], rows["segment"], rows["voxels"]
        yield table_of(SUPERVOXELS, [*names, *source.first_voxels(rows["id"]).T, *_box(rows), *centre.T])


def _contacts(source: Source, tables: Tables) -> Iterator[pa.Table]:
    for rows, score in chain([(np.zeros(0, CONTACT), np.zeros(0))], tables.contacts()):
        faces = rows["faces"].sum(axis=1)
        position = rows["places"] / (2 * np.maximum(faces, 1)[:, None])
        area = area_nm2(rows["faces"], source.layout.resolution_nm)
        yield table_of(CONTACTS, [rows["a"], rows["b"], faces, area, *position.T, rows["count"], score])


def _merges(tables: Tables) -> Iterator[pa.Table]:
    first = 0
    for rows in _with_none(tables.merges(), MERGE):
        order = np.arange(first, first + len(rows))
        yield table_of(MERGES, [order, rows["a"], rows["b"], rows["score"]])
        first += len(rows)


def _neurons(source: Source, tables: Tables) -> Iterator[pa.Table]:
    z, y, x = source.layout.resolution_nm
    for rows in _with_none(tables.neurons(), NEURON):
        sizes = rows["supervoxels"], rows["voxels"], rows["voxels"] * (z * y * x)
        yield table_of(NEURONS, [rows["id"], *sizes, *_box(rows)])


def _with_none(parts: Iterable[np.ndarray], dtype: np.dtype) -> Iterator[np.ndarray]:
    """No rows first, so that a table without rows has its columns."""
    yield np.zeros(0, dtype)
    yield from parts


def _box(rows: np.ndarray) -> list[np.ndarray]:
    return [*rows["low"].T, *(rows["high"] + 1).T]
