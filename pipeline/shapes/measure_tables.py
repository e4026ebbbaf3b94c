"""Measures as Parquet: rows in the order of ids, physical units, the meaning of each column in the file's metadata.

The bytes depend on the rows and on the release of pyarrow alone: the writer's options and the size of row groups are
fixed, and nothing tells the time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipeline.shapes.measures import Measures

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1 << 17
"""Rows of a row group."""
SAMPLES = 64
"""Ids by which the length of a range is estimated."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number that spreads ids over all numbers."""
AXES = "zyx"
Nanometres = tuple[float, float, float]

OBJECTS = {
    "id": "id in the volume of the result",
    "voxels": "number of voxels",
    "volume_nm3": "volume in cubic nanometres",
    "surface_nm2": "area of voxel faces to other objects and the background, in square nanometres; on a "
    "sphere this is 1.5 times the smooth surface",
    "border_nm2": "area of voxel faces on the border of the region of interest, in square nanometres",
    "touches_border": "true if one of its voxels is at the border of the region of interest",
    **{f"start_{axis}": f"first voxel of the bounding box along {axis}" for axis in AXES},
    **{f"stop_{axis}": f"one past the last voxel of the bounding box along {axis}" for axis in AXES},
    **{
        f"centre_{axis}": f"centre of mass along {axis}, in voxels; a whole number is the centre of a voxel"
        for axis in AXES
    },
}
"""Columns of the table of objects, and what they mean."""
CONTACTS = {
    "a": "id of one object",
    "b": "id of the other one, the larger id",
    "faces": "number of voxel faces between the two",
    "area_nm2": "area of these faces in square nanometres",
    **{
        f"position_{axis}": f"mean place of the faces along {axis}, in voxels; a whole number is the centre of a voxel"
        for axis in AXES
    },
}
"""Columns of the table of contacts, and what they mean."""


def table_of_objects(measures: Measures, resolution_nm: Nanometres) -> pa.Table:
    """The rows of objects; ``resolution_nm`` is the size of a voxel, z y x."""
    voxels = np.maximum(measures.voxels, 1)[:, None]
    volume = resolution_nm[0] * resolution_nm[1] * resolution_nm[2]
    columns = [
        *(measures.ids, measures.voxels, measures.voxels * volume),
        *(
            area_nm2(measures.faces, resolution_nm),
            area_nm2(measures.border, resolution_nm),
            measures.border.any(axis=1),
        ),
        *(*measures.low.T, *(measures.high + 1).T, *(measures.sums / voxels).T),
    ]
    return table_of(OBJECTS, columns)


def table_of_contacts(measures: Measures, resolution_nm: Nanometres) -> pa.Table:
    """The rows of contacts; ``resolution_nm`` is the size of a voxel, z y x."""
    faces = measures.areas.sum(axis=1)
    places = measures.places / (2 * np.maximum(faces, 1)[:, None])
    return table_of(CONTACTS, [*measures.pairs.T, faces, area_nm2(measures.areas, resolution_nm), *places.T])


def to_parquet(tables: Iterable[pa.Table], meanings: dict[str, str]) -> bytes:
    """A Parquet file with the rows of all tables in their order; tables are of any length, and there is at least one.

    meanings: what each column means; it becomes ``petaseg_columns`` in the metadata of the file, as JSON.
    """
    target = io.BytesIO()
    write_parquet(target, tables, meanings)
    return target.getvalue()


def write_parquet(target: Path | BinaryIO, tables: Iterable[pa.Table], meanings: dict[str, str]) -> None:
    """The same, into a file: a row group is written as soon as its rows are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rest = iter(tables)
    waiting = next(rest)
    schema = waiting.schema.with_metadata({"petaseg_columns": json.dumps(meanings)})
    with pq.ParquetWriter(target, schema, compression="zstd", version="2.6") as writer:
        for table in rest:
            waiting = pa.concat_tables([waiting, table])
            while len(waiting) >= GROUP:
                writer.write_table(_rows(waiting, schema), row_group_size=GROUP)
                waiting = waiting.slice(GROUP)
        for start in range(0, len(waiting), GROUP):
            writer.write_table(_rows(waiting.slice(start), schema), row_group_size=GROUP)


def read_table(data: bytes) -> dict[str, np.ndarray]:
    """The columns of a Parquet file of this module, each (rows,)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    return {name: table[name].to_numpy() for name in table.schema.names}


def _rows(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The first rows of a table, as one row group: of the same rows, the bytes do not depend on how they came."""
    return table.slice(0, GROUP).combine_chunks().cast(schema)


def in_ranges(read: Callable[[], Iterable[Measures]], rows: int) -> Iterable[Measures]:
    """The rows of many parts, added up, in the order of ids and in ranges of ids of about ``rows`` rows each.

    A row of contacts comes with the range of its smaller id. ``read`` is called for each range once, so that no more
    than one range and one part are in memory.
    """
    cuts = cuts_of((keys for part in read() for keys in (part.ids, part.pairs[:, 0])), rows)
    for low, high in zip([None, *cuts], [*cuts, None], strict=True):
        yield Measures.sum([Measures.none(), *(_between(part, low, high) for part in read())])


def cuts_of(parts: Iterable[np.ndarray], rows: int) -> list[np.uint64]:
    """Ids at which ranges of about ``rows`` rows begin, without the first; parts: the ids of rows, uint64 (n,) each."""
    one_of = np.uint64(max(rows // SAMPLES, 1))
    sampled = [np.zeros(0, np.uint64)]
    for keys in parts:
        sampled.append(keys[(keys * SPREAD >> np.uint64(32)) % one_of == 0])
    return list(np.unique(np.sort(np.concatenate(sampled))[SAMPLES::SAMPLES]))


def _between(part: Measures, low: np.uint64 | None, high: np.uint64 | None) -> Measures:
    """The rows of the ids from ``low`` to before ``high``."""
    objects, contacts = (
        (keys >= low if low is not None else np.ones(len(keys), bool))
        & (keys < high if high is not None else np.ones(len(keys), bool))
        for keys in (part.ids, part.pairs[:, 0])
    )
    return part.chosen(objects, contacts)


def area_nm2(faces: np.ndarray, resolution_nm: Nanometres) -> np.ndarray:
    """Square nanometres of faces across each axis, int64 (n, 3)."""
    z, y, x = resolution_nm
    return faces[:, 0] * (y * x) + faces[:, 1] * (z * x) + faces[:, 2] * (z * y)


def table_of(names: Iterable[str], columns: Sequence[np.ndarray]) -> pa.Table:
    """A table of columns, each (rows,)."""
    import pyarrow as pa

    return pa.table([pa.array(np.ascontiguousarray(column)) for column in columns], names=list(names))
