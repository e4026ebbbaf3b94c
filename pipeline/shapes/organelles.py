"""Which objects of another volume lie in which neuron, as a table of Parquet: nuclei, mitochondria, synapses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "organelle": "name of the volume of objects, as the run file says it",
    "object": "id of the object in that volume",
    "voxels": "voxels of the object within the region of interest",
    "id": "id in the volume of the result; 0 for the part of the object that lies in none",
    "inside": "voxels of the object in it",
    "share": "inside divided by voxels",
    "host": "true for one row of each object: the id that has most of it, of equal ones the smaller",
}
"""Columns of the table, and what they mean."""


def table_of(name: str, objects: np.ndarray, ids: np.ndarray, inside: np.ndarray) -> pa.Table:
    """The rows of some objects of one volume, all rows of each, in the order of objects, then ids.

    objects, ids: uint64 (rows,). inside: int64 (rows,), the voxels that both share.
    """
    import pyarrow as pa

    first = _begins(objects)
    lengths = np.diff(np.flatnonzero(first), append=len(objects))
    voxels = np.repeat(np.add.reduceat(inside, np.flatnonzero(first)) if len(inside) else inside, lengths)
    return pa.table(
        {
            "organelle": pa.array([name] * len(voxels), pa.string()),
            **{"object": objects, "voxels": voxels, "id": ids, "inside": inside},
            **{"share": inside / np.maximum(voxels, 1), "host": _largest(objects, ids, inside)},
        }
    )


def _begins(objects: np.ndarray) -> np.ndarray:
    """True where an object's first row is, bool (rows,)."""
    return np.append(True, objects[1:] != objects[:-1])[: len(objects)]


def _largest(objects: np.ndarray, ids: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """True for the row with most voxels of each object, of equal ones the first."""
    order = np.lexsort((ids, -inside, objects))
    largest = np.zeros(len(order), bool)
    largest[order[_begins(objects[order])]] = True
    return largest


def hosted(columns: Mapping[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    """How many objects each id is the host of: for each organelle int64 in the order of ``ids``, uint64 (n,).

    columns: those of the table, each (rows,).
    """
    found = {}
    for name in np.unique(columns["organelle"].astype(str)).tolist():
        hosts = columns["id"][columns["host"] & (columns["organelle"] == name)]
        unique, counts = np.unique(hosts, return_counts=True)
        place = np.minimum(np.searchsorted(unique, ids), max(len(unique) - 1, 0))
        found[name] = np.where(unique[place] == ids, counts[place], 0) if len(unique) else np.zeros(len(ids), np.int64)
    return found


def hosts_of(data: bytes, name: str, least_share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of one volume with their hosts: object and id, uint64 (n,), and the voxels that both share, int64 (n,).

    data: the table as a file. Objects whose host is no id, or has less than ``least_share`` of them, are left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["object", "id", "inside"]
    chosen = [("organelle", "==", name), ("host", "==", True), ("id", ">", 0), ("share", ">=", least_share)]
    table = pq.read_table(pa.BufferReader(data), columns=names, filters=chosen)
    objects, ids, inside = (table[column].to_numpy() for column in names)
    return objects, ids, inside
