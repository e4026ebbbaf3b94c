"""A queue for the kernels that gives back the smallest key first, of equal keys the smallest number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.segmentation.compiled import part


class Heap(NamedTuple):
    """A binary heap in two arrays; how many entries it has is kept by who uses it."""

    keys: np.ndarray
    """float64 (capacity,)"""
    numbers: np.ndarray
    """int64 (capacity,)"""


@part
def new_heap():  # type: ignore[no-untyped-def]
    """An empty heap."""
    return Heap(np.empty(1024, np.float64), np.empty(1024, np.int64))


@part
def with_room(heap, size):  # type: ignore[no-untyped-def]
    """The same heap, or a copy with room for more than ``size`` entries if it has not."""
    if size < heap.keys.size:
        return heap
    larger = Heap(np.empty(2 * heap.keys.size, np.float64), np.empty(2 * heap.keys.size, np.int64))
    larger.keys[:size], larger.numbers[:size] = heap.keys[:size], heap.numbers[:size]
    return larger


@part
def push(heap, size, key, number):  # type: ignore[no-untyped-def]
    """Add an entry behind ``size`` others."""
    keys, numbers = heap.keys, heap.numbers
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if keys[above] < key or (keys[above] == key and numbers[above] <= number):
            break
        keys[at], numbers[at] = keys[above], numbers[above]
        at = above
    keys[at], numbers[at] = key, number


@part
def pop(heap, size):  # type: ignore[no-untyped-def]
    """Take the first of ``size`` entries out: its key and number."""
    keys, numbers = heap.keys, heap.numbers
    first, found = keys[0], numbers[0]
    key, number = keys[size - 1], numbers[size - 1]
    at, last = 0, size - 1
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        other = child + 1
        if other < last and (
            keys[other] < keys[child] or (keys[other] == keys[child] and numbers[other] < numbers[child])
        ):
            child = other
        if key < keys[child] or (key == keys[child] and number <= numbers[child]):
            break
        keys[at], numbers[at] = keys[child], numbers[child]
        at = child
    keys[at], numbers[at] = key, number
    return first, found
