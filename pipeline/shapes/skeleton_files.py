"""Skeletons in the formats of other programs: Neuroglancer's, SWC, and a table of lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.shapes.measure_tables import table_of
from pipeline.shapes.skeletons import Skeleton

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "id": "id in the volume of the result",
    "path_length_nm": "length of all edges of the skeleton in nanometres",
    "trees": "number of trees: one for each piece that touches no other",
    "ends": "number of vertices with one edge",
    "branch_points": "number of vertices with three edges or more",
    "vertices": "number of vertices",
    "mean_radius_nm": "mean distance of the vertices from the surface, in nanometres",
    "largest_radius_nm": "largest distance of a vertex from the surface, in nanometres",
}
"""Columns of the table of skeletons, and what they mean."""
TYPES = {"id": np.uint64, "path_length_nm": np.float64, "mean_radius_nm": np.float64, "largest_radius_nm": np.float64}
"""Types of the columns that are not int64."""
MICROMETRE = 1000.0
"""Nanometres."""


def info(sharding: Mapping[str, Any]) -> dict[str, Any]:
    """The ``info`` of a folder of skeletons: vertices are in nanometres, and each has its radius."""
    radius = {"id": "radius", "data_type": "float32", "num_components": 1}
    return {
        "@type": "neuroglancer_skeletons",
        "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        "vertex_attributes": [radius],
        "spatial_index": None,
        "sharding": dict(sharding),
    }


def encode(skeleton: Skeleton) -> bytes:
    """The bytes of a skeleton in Neuroglancer's format, x, y, z."""
    places, edges = skeleton.places_nm[:, ::-1].astype("<f4"), skeleton.edges.astype("<u4")
    head = np.array([len(places), len(edges)], "<u4")
    return b"".join(each.tobytes() for each in (head, places, edges, skeleton.radii_nm.astype("<f4")))


def decode(data: bytes) -> Skeleton:
    """The inverse of ``encode``."""
    n, m = np.frombuffer(data, "<u4", 2).tolist()
    places = np.frombuffer(data, "<f4", 3 * n, 8).reshape(-1, 3)[:, ::-1]
    edges = np.frombuffer(data, "<u4", 2 * m, 8 + 12 * n).reshape(-1, 2)
    parents = np.full(n, -1, np.int64)
    parents[edges[:, 1]] = edges[:, 0]
    return Skeleton(places, np.frombuffer(data, "<f4", n, 8 + 12 * n + 8 * m), parents)


def swc(name: int, skeleton: Skeleton) -> str:
    """An SWC file: a line for each vertex, x, y, z and radius in micrometres, parents before their children."""
    lines = [f"# segment {name}; micrometres", "# id type x y z radius parent"]
    places, radii = skeleton.places_nm[:, ::-1].astype(np.float64) / MICROMETRE, skeleton.radii_nm / MICROMETRE
    rows = zip(places.tolist(), radii.tolist(), skeleton.parents.tolist(), strict=True)
    for number, ((x, y, z), radius, parent) in enumerate(rows, 1):
        before = parent + 1 if parent >= 0 else -1
        lines.append(f"{number} 0 {x:.4f} {y:.4f} {z:.4f} {radius:.4f} {before}")
    return "\n".join(lines) + "\n"


def rows_of(skeletons: Mapping[int, Skeleton]) -> dict[str, np.ndarray]:
    """The columns of the table, a row for each skeleton."""
    rows = [_row(name, each) for name, each in skeletons.items()]
    return {
        column: np.array([row[place] for row in rows], TYPES.get(column, np.int64))
        for place, column in enumerate(COLUMNS)
    }


def _row(name: int, skeleton: Skeleton) -> tuple[float, ...]:
    degrees, radii = skeleton.degrees, skeleton.radii_nm.astype(np.float64)
    shape = (int((skeleton.parents < 0).sum()), int((degrees == 1).sum()), int((degrees > 2).sum()), len(degrees))
    return name, skeleton.path_length_nm, *shape, float(radii.mean()), float(radii.max())


def table_of_skeletons(parts: Sequence[Mapping[str, np.ndarray]]) -> pa.Table:
    """The rows of all parts in the order of ids."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    order = np.argsort(joined["id"])
    return table_of(COLUMNS, [joined[name][order] for name in COLUMNS])
