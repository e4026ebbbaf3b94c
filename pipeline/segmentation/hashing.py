"""Open addressing for the kernels: a table from non-zero 64-bit keys to small numbers, in two plain arrays.

The capacity is a power of two and at most half is used, so a search ends after one or two steps. Nothing is ever
removed; the code that fills a table must grow it in time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.segmentation.compiled import part

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class Table(NamedTuple):
    """A hash table: ``numbers[i]`` belongs to ``keys[i]``; key 0 = free."""

    keys: np.ndarray
    """uint64 (capacity,)"""
    numbers: np.ndarray
    """int32 (capacity,)"""


def new_table(entries: int) -> Table:
    """An empty table for up to ``entries`` keys."""
    capacity = 16
    while capacity < 2 * entries:
        capacity *= 2
    return Table(np.zeros(capacity, np.uint64), np.empty(capacity, np.int32))


@part
def place_of(table, key):  # type: ignore[no-untyped-def]
    """Where a key is, or the free place where it belongs."""
    mask = np.uint64(table.keys.size - 1)
    mixed = key * _GOLDEN
    place = (mixed ^ (mixed >> _HALF)) & mask
    while table.keys[place] != np.uint64(0) and table.keys[place] != key:
        place = (place + np.uint64(1)) & mask
    return place


@part
def grown(table, entries):  # type: ignore[no-untyped-def]
    """The same table, or a copy with room for ``entries`` keys if it has not."""
    if 2 * entries <= table.keys.size:
        return table
    capacity = table.keys.size
    while capacity < 2 * entries:
        capacity *= 2
    larger = Table(np.zeros(capacity, np.uint64), np.empty(capacity, np.int32))
    for i in range(table.keys.size):
        if table.keys[i] != np.uint64(0):
            place = place_of(larger, table.keys[i])
            larger.keys[place] = table.keys[i]
            larger.numbers[place] = table.numbers[i]
    return larger


@part
def pair_key(a, b):  # type: ignore[no-untyped-def]
    """Two different numbers from 0 to 2**32 - 1 as one key, whatever their order; never 0."""
    low, high = np.uint64(min(a, b)), np.uint64(max(a, b))
    return (low << _HALF) | high


@part
def slot_of(table, key):  # type: ignore[no-untyped-def]
    """The first place where a key may be."""
    mixed = key * _GOLDEN
    return (mixed ^ (mixed >> _HALF)) & np.uint64(table.keys.size - 1)
