"""How far each voxel is from the nearest voxel with another label.

Squares of distances are added up axis by axis, and each step takes the smallest sum, so the result does not depend on
the order in which they are tried.
"""

from __future__ import annotations

import numpy as np

from pipeline.segmentation.compiled import kernel, part

TILE = 16
"""Columns that are copied together: so many neighbours along x are in a line of the cache."""


def squared_distances(numbers: np.ndarray, sides_nm: tuple[float, float, float]) -> np.ndarray:
    """The squared distance from the centre of each voxel to that of the nearest voxel with another number.

    numbers: int32 (z, y, x); the number 0 gets 0. sides_nm: the sides of a voxel, z, y, x. What lies outside the array
    does not count: without another number in sight the distance is infinite.

    Returns float32 (z, y, x) in square nanometres.
    """
    found = np.empty(numbers.shape, np.float32)
    numbers = np.ascontiguousarray(numbers)
    _along_x(numbers, sides_nm[2], found)
    _along_y(numbers, sides_nm[1], found)
    _along_z(numbers, sides_nm[0], found)
    return found


@kernel
def _along_x(numbers, side, found):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    for z in range(nz):
        for y in range(ny):
            row, result = numbers[z, y], found[z, y]
            start = 0
            while start < nx:
                stop = start + 1
                while stop < nx and row[stop] == row[start]:
                    stop += 1
                for x in range(start, stop):
                    before = x - start + 1 if start > 0 else nx * 2
                    behind = stop - x if stop < nx else nx * 2
                    steps = min(before, behind)
                    if row[x] == 0:
                        result[x] = 0
                    elif steps > nx:
                        result[x] = np.inf
                    else:
                        result[x] = (steps * side) * (steps * side)
                start = stop


@kernel
def _along_y(numbers, side, found):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    columns, sums = np.empty((TILE, ny), np.int32), np.empty((TILE, ny), np.float32)
    for z in range(nz):
        for x in range(0, nx, TILE):
            _column_tile(numbers[z, :, x : x + TILE], found[z, :, x : x + TILE], side, columns, sums)


@kernel
def _along_z(numbers, side, found):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    columns, sums = np.empty((TILE, nz), np.int32), np.empty((TILE, nz), np.float32)
    for y in range(ny):
        for x in range(0, nx, TILE):
            _column_tile(numbers[:, y, x : x + TILE], found[:, y, x : x + TILE], side, columns, sums)


@part
def _column_tile(numbers, found, side, columns, sums):  # type: ignore[no-untyped-def]
    """numbers, found: (n, up to TILE); the columns of ``found`` are replaced by the smallest sums."""
    n, width = numbers.shape
    for i in range(n):
        for k in range(width):
            columns[k, i], sums[k, i] = numbers[i, k], found[i, k]
    for k in range(width):
        column, terms = columns[k], sums[k]
        for i in range(n):
            if column[i] != 0:
                found[i, k] = _smallest_sum(column, terms, i, n, side)


@part
def _smallest_sum(column, terms, i, n, side):  # type: ignore[no-untyped-def]
    """The smallest sum of a squared step along the column and of the term there; 0 where another number is."""
    best, own = terms[i], column[i]
    up, down, step = True, True, 1
    while up or down:
        square = np.float32((step * side) * (step * side))
        if square >= best:
            break
        if up:
            if i + step >= n:
                up = False
            elif column[i + step] != own:
                best, up = square, False
            else:
                best = min(best, terms[i + step] + square)
        if down:
            if i < step:
                down = False
            elif column[i - step] != own:
                best, down = min(best, square), False
            else:
                best = min(best, terms[i - step] + square)
        step += 1
    return best
