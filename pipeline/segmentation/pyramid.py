"""The arithmetic of pyramids: one voxel out of a block of at most 2 x 2 x 2.

A block begins at a multiple of ``factor``, counted from voxel 0 of the global coordinates. Voxels of a block that do
not exist, since the array begins or ends within the block, do not count.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Vec
from pipeline.segmentation.compiled import kernel

MOST = 8
"""Voxels of the largest block."""


def majority(labels: np.ndarray, factor: Vec, start: Vec) -> np.ndarray:
    """The id that most voxels of each block have, the smaller one of several; 0 only where all voxels are 0.

    labels: unsigned integers (z, y, x); ``start`` is its first voxel. factor: 1 or 2 on each axis.
    """
    return _most(labels, factor, start, zero_counts=False)


def most_frequent(classes: np.ndarray, factor: Vec, start: Vec) -> np.ndarray:
    """The number that most voxels of each block have, 0 among them; of several the smallest.

    Arguments as those of ``majority``.
    """
    return _most(classes, factor, start, zero_counts=True)


def _most(labels: np.ndarray, factor: Vec, start: Vec, *, zero_counts: bool) -> np.ndarray:
    result = np.empty(_blocks(Vec(*labels.shape), factor, start), labels.dtype)
    _majority(np.ascontiguousarray(labels), tuple(factor), tuple(start % factor), result, zero_counts)
    return result


def mean(values: np.ndarray, factor: Vec, start: Vec) -> np.ndarray:
    """The mean of each block, rounded to the nearest integer, halves to the even one.

    values: integers (z, y, x), or (c, z, y, x), of up to 32 bits; ``start`` is its first voxel. factor: 1 or 2 on each
    axis.
    """
    channels = np.ascontiguousarray(values).reshape(-1, *values.shape[-3:])
    blocks = _blocks(Vec(*values.shape[-3:]), factor, start)
    result = np.empty((len(channels), *blocks), values.dtype)
    for channel, coarse in zip(channels, result, strict=True):
        _mean(channel, tuple(factor), tuple(start % factor), coarse)
    return result.reshape(*values.shape[:-3], *blocks)


def _blocks(shape: Vec, factor: Vec, start: Vec) -> Vec:
    """The number of blocks that an array touches, along each axis."""
    return (start + shape).ceil_div(factor) - start // factor


@kernel
def _majority(labels, factor, lead, result, zero_counts):  # type: ignore[no-untyped-def]
    """lead: voxels of the first block that lie before the array, z, y, x."""
    ids, counts = np.zeros(MOST, labels.dtype), np.zeros(MOST, np.int64)
    for z in range(result.shape[0]):
        z0, z1 = max(0, z * factor[0] - lead[0]), min(labels.shape[0], (z + 1) * factor[0] - lead[0])
        for y in range(result.shape[1]):
            y0, y1 = max(0, y * factor[1] - lead[1]), min(labels.shape[1], (y + 1) * factor[1] - lead[1])
            for x in range(result.shape[2]):
                x0, x1 = max(0, x * factor[2] - lead[2]), min(labels.shape[2], (x + 1) * factor[2] - lead[2])
                found, first, same = 0, labels[z0, y0, x0], True
                for i in range(z0, z1):
                    for j in range(y0, y1):
                        for k in range(x0, x1):
                            same = same and labels[i, j, k] == first
                if same:  # nine blocks in ten
                    result[z, y, x] = first
                    continue
                for i in range(z0, z1):
                    for j in range(y0, y1):
                        for k in range(x0, x1):
                            value = labels[i, j, k]
                            if value == 0 and not zero_counts:
                                continue
                            place = 0
                            while place < found and ids[place] != value:
                                place += 1
                            if place == found:
                                ids[place], counts[place] = value, 0
                                found += 1
                            counts[place] += 1
                best = 0
                for place in range(1, found):
                    more, equal = counts[place] > counts[best], counts[place] == counts[best]
                    if more or (equal and ids[place] < ids[best]):
                        best = place
                result[z, y, x] = ids[best]


@kernel
def _mean(values, factor, lead, result):  # type: ignore[no-untyped-def]
    """lead: voxels of the first block that lie before the array, z, y, x."""
    for z in range(result.shape[0]):
        z0, z1 = max(0, z * factor[0] - lead[0]), min(values.shape[0], (z + 1) * factor[0] - lead[0])
        for y in range(result.shape[1]):
            y0, y1 = max(0, y * factor[1] - lead[1]), min(values.shape[1], (y + 1) * factor[1] - lead[1])
            for x in range(result.shape[2]):
                x0, x1 = max(0, x * factor[2] - lead[2]), min(values.shape[2], (x + 1) * factor[2] - lead[2])
                total, count = np.int64(0), np.int64((z1 - z0) * (y1 - y0) * (x1 - x0))
                for i in range(z0, z1):
                    for j in range(y0, y1):
                        for k in range(x0, x1):
                            total += np.int64(values[i, j, k])
                below = total // count
                twice = 2 * (total - below * count)
                if twice > count or (twice == count and below % 2 != 0):
                    below += 1
                result[z, y, x] = below
