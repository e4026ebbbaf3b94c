"""Replace the ids of a volume through a table."""

from __future__ import annotations

import numpy as np

from pipeline.errors import CorruptError
from pipeline.segmentation.compiled import kernel
from pipeline.segmentation.hashing import new_table, place_of


def apply_remap(ids: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``values[i]`` wherever ``ids`` is ``keys[i]``; 0 stays 0: uint64, the shape of ``ids``.

    ``ids``, ``keys`` and ``values`` are uint64; no key twice, none 0. ``CorruptError`` if an id has no key.
    """
    ids = np.ascontiguousarray(ids, np.uint64)
    result = np.empty(ids.shape, np.uint64)
    rows = ids.reshape(-1, ids.shape[-1]) if ids.size else ids.reshape(0, 1)
    columns = (np.ascontiguousarray(column, np.uint64) for column in (keys, values))
    missing = _remap(rows, *columns, new_table(len(keys)), result.reshape(rows.shape))
    if missing:
        raise CorruptError(
            f"id {missing} is not among the {len(keys)} of the table; volume and table must be of one run: run again"
        )
    return result


@kernel
def _remap(rows, keys, values, table, result):  # type: ignore[no-untyped-def]
    """Look up each run of equal ids once, or copy it from the row before. Returns the first id without a key, or 0."""
    for i in range(keys.size):
        place = place_of(table, keys[i])
        table.keys[place], table.numbers[place] = keys[i], i
    for y in range(len(rows)):
        last, value = np.uint64(0), np.uint64(0)
        for x in range(rows.shape[1]):
            if rows[y, x] != last:
                last = rows[y, x]
                if y > 0 and rows[y - 1, x] == last:
                    value = result[y - 1, x]
                elif last == np.uint64(0):
                    value = np.uint64(0)
                else:
                    place = place_of(table, last)
                    if table.keys[place] == np.uint64(0):
                        return last
                    value = values[table.numbers[place]]
            result[y, x] = value
    return np.uint64(0)
