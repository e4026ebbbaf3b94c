"""Height maps out of affinities: how far a voxel is from the nearest membrane, in integers, with bounded context.

1. ``_inside_row``      sum the affinities of a voxel's faces; it is inside a cell where the sum reaches a threshold
2. ``_row_distances``   along x: squared distance to the nearest voxel of the other kind, capped
3. ``_meet``            along y, then z: the smallest of (squared distance there + squared step), within the cap
4. ``_box_sums``        a box filter over the distances of the inside, as integer sums, along z, y, x
5. ``_write_row``       inside: the filtered distance; outside: minus the distance; beyond the cap or the mask: NOTHING

The distance transform is exact and separable (Saito and Toriwaki 1994, Pattern Recognition 27: 1551). One signed number
per voxel serves both transforms: positive inside, negative outside, and a voxel of the other kind is at distance 0.
Squared distances are in units of ``scale`` nm squared, the largest unit in which every step of the grid is whole.
"""

from __future__ import annotations

from math import gcd, isqrt
from typing import NamedTuple

import numpy as np
from numba import njit

from pipeline.geometry import Vec

NOTHING = -(2**31)
"""Height of a voxel that gets no label: no other height is as low, so no pointer leads to it."""

FRACTION_BITS = 8
"""Distances are rounded down to 1/256 nm."""


class Metric(NamedTuple):
    """Capped distances as whole numbers: squared steps along z, y, x, and the table from squares to heights."""

    steps: tuple[int, int, int]
    """Squared length of one voxel along z, y, x, in ``scale`` nm squared."""
    reach: Vec
    """How many voxels away a membrane can be and still be nearer than the cap, z, y, x."""
    cap: int
    """The cap's square, rounded up, in ``scale`` nm squared."""
    table: np.ndarray
    """int32 (cap + 1,): square -> distance in 1/256 nm."""


def metric(resolution_nm: Vec, max_distance_nm: int, axes: tuple[int, ...]) -> Metric:
    """The capped Euclidean metric of a grid of ``resolution_nm`` voxels along ``axes`` (the others are not crossed)."""
    unit = gcd(*(resolution_nm[a] ** 2 for a in axes))
    cap = -(-(max_distance_nm**2) // unit)
    table = [isqrt((square * unit) << (2 * FRACTION_BITS)) for square in range(cap)]
    table.append(max_distance_nm << FRACTION_BITS)
    steps = tuple(n * n // unit for n in resolution_nm)
    return Metric(steps, reach_of(resolution_nm, max_distance_nm, axes), cap, np.array(table, np.int32))  # type: ignore[arg-type]


def reach_of(resolution_nm: Vec, max_distance_nm: int, axes: tuple[int, ...]) -> Vec:
    """The largest number of steps along each axis that stays nearer than the cap; 0 along axes not crossed."""
    return tuple((max_distance_nm - 1) // n if a in axes else 0 for a, n in enumerate(resolution_nm))  # type: ignore[return-value]


def height_map(
    affinities: np.ndarray,
    mask: np.ndarray | None,
    *,
    low_face: tuple[bool, bool, bool],
    axes: tuple[int, ...],
    threshold: int,
    rule: Metric,
    filter_width: int,
) -> np.ndarray:
    """Heights of a box of voxels: int32 (z + 2, y + 2, x + 2), with a frame of NOTHING around the box.

    ``affinities`` is uint8 (3, z, y, x), channel k at voxel v between v and v - e_k; ``mask`` is bool (z, y, x), False
    where there is no tissue. ``low_face[k]`` says whether the first plane along axis k has a partner before it. Where a
    face is missing the opposite one counts twice; an axis without any face counts as if both were 255.
    """
    z, y, x = affinities.shape[1:]
    mask = np.ones((1, 1, 1), np.bool_) if mask is None else np.ascontiguousarray(mask)
    used = tuple(a in axes for a in range(3))
    radii = tuple(filter_width // 2 if u else 0 for u in used)
    squares = np.empty((z, y, x), np.int32)
    heights = np.full((z + 2, y + 2, x + 2), NOTHING, np.int32)
    _sections(
        np.ascontiguousarray(affinities), mask, low_face, used, threshold, rule.steps, rule.reach, rule.cap, squares
    )
    _columns(squares, rule.steps[0], rule.reach[0], rule.cap, rule.table, radii[0], heights)
    _filter(squares, mask, rule.cap, rule.table, radii[1], radii[2], heights)
    return heights


@njit(nogil=True, cache=True)
def _sections(affinities, mask, low_face, used, threshold, steps, reach, cap, squares):  # type: ignore[no-untyped-def]
    """Fill ``squares`` with the signed squared distances within each section."""
    _, nz, ny, nx = affinities.shape
    inside = np.empty(nx, np.bool_)
    rows = np.empty((ny, nx), np.int32)
    for z in range(nz):
        for y in range(ny):
            _inside_row(affinities, z, y, low_face, used, threshold, inside)
            if mask.size > 1:
                inside &= mask[z, y]
            _row_distances(inside, steps[2], cap, rows[y])
        _meet(rows, steps[1], reach[1], cap, squares[z])


@njit(nogil=True, cache=True)
def _inside_row(affinities, z, y, low_face, used, threshold, inside):  # type: ignore[no-untyped-def]
    """Whether the affinities on the faces of each voxel of a row sum up to the threshold."""
    nx = affinities.shape[3]
    evidence = np.zeros(nx, np.int32)
    if used[0]:
        _add_faces(affinities[0, :, y], z, low_face[0], evidence)
    if used[1]:
        _add_faces(affinities[1, z], y, low_face[1], evidence)
    row = affinities[2, z, y]
    if nx == 1 and not low_face[2]:
        evidence += 510
    else:
        low, high = row[:-1], row[1:]
        for x in range(nx - 1):
            evidence[x] += np.int32(low[x]) + np.int32(high[x])
        if not low_face[2]:
            evidence[0] += np.int32(row[1]) - np.int32(row[0])
        evidence[nx - 1] += 2 * np.int32(row[nx - 1])
    for x in range(nx):
        inside[x] = evidence[x] >= threshold


@njit(nogil=True, cache=True)
def _add_faces(rows, i, has_low, evidence):  # type: ignore[no-untyped-def]
    """Add the affinities of the low and high faces of row ``i`` of ``rows`` (n, x) to ``evidence``."""
    n, nx = rows.shape
    if n == 1 and not has_low:
        evidence += 510
        return
    low = rows[i if i > 0 or has_low else i + 1]
    high = rows[i + 1 if i + 1 < n else i]
    for x in range(nx):
        evidence[x] += np.int32(low[x]) + np.int32(high[x])


@njit(nogil=True, cache=True)
def _row_distances(inside, step, cap, squares):  # type: ignore[no-untyped-def]
    """Signed squared distance, at most ``cap``, to the nearest voxel of the other kind in the row."""
    n, start = inside.size, 0
    while start < n:
        stop = start + 1
        while stop < n and inside[stop] == inside[start]:
            stop += 1
        sign = 1 if inside[start] else -1
        for x in range(start, stop):
            before = x - start + 1 if start > 0 else n
            after = stop - x if stop < n else n
            near = min(before, after)
            squares[x] = sign * (cap if near == n else min(cap, near * near * step))
        start = stop


@njit(nogil=True, cache=True)
def _meet(rows, step, reach, cap, out):  # type: ignore[no-untyped-def]
    """Extend signed squared distances within ``rows`` (n, x) by those of other rows, ``step`` squared units apart.

    A row farther off than the largest distance found so far cannot make any smaller.
    """
    n = rows.shape[0]
    for i in range(n):
        best = out[i]
        best[:] = rows[i]
        largest = cap
        for j in range(1, reach + 1):
            square = j * j * step
            if square >= largest:
                break
            if i >= j:
                largest = _meet_row(best, rows[i - j], square)
            if i + j < n:
                largest = _meet_row(best, rows[i + j], square)


@njit(nogil=True, cache=True)
def _meet_row(best, other, square):  # type: ignore[no-untyped-def]
    """Improve ``best`` by ``other`` at a squared offset; return its largest distance."""
    largest = np.int32(0)
    offset = np.int32(square)
    for x in range(best.size):
        own, there = best[x], other[x]
        if own > 0:
            own = min(own, np.int32(max(there, np.int32(0)) + offset))
        else:
            own = max(own, np.int32(min(there, np.int32(0)) - offset))
        best[x] = own
        largest = max(largest, max(own, np.int32(-own)))
    return largest


@njit(nogil=True, cache=True)
def _columns(squares, step, reach, cap, table, radius, heights):  # type: ignore[no-untyped-def]
    """Finish the distances along z, and sum the inside's along z into ``heights``."""
    nz, ny, nx = squares.shape
    before = np.empty((nz, nx), np.int32)
    after = np.empty((nz, nx), np.int32)
    for y in range(ny):
        before[:] = squares[:, y]
        _meet(before, step, reach, cap, after)
        squares[:, y] = after
        for z in range(nz):
            for x in range(nx):
                before[z, x] = table[max(after[z, x], np.int32(0))]
        _box_sums(before, radius, heights[1 : nz + 1, y + 1])


@njit(nogil=True, cache=True)
def _box_sums(rows, radius, out):  # type: ignore[no-untyped-def]
    """Sums of ``2 * radius + 1`` rows of ``rows`` (n, x) around each; beyond an end the last row repeats."""
    n, nx = rows.shape
    total = (rows[0] * (radius + 1)).astype(np.int32)
    for i in range(1, radius + 1):
        total += rows[min(i, n - 1)]
    for i in range(n):
        out[i, 1 : nx + 1] = total
        enter, leave = rows[min(i + radius + 1, n - 1)], rows[max(i - radius, 0)]
        for x in range(nx):
            total[x] += enter[x] - leave[x]


@njit(nogil=True, cache=True)
def _filter(squares, mask, cap, table, radius_y, radius_x, heights):  # type: ignore[no-untyped-def]
    """Finish the box filter along y and x; give the outside its negative distance, or NOTHING."""
    nz, ny, nx = squares.shape
    rows = np.empty((ny, nx), np.int32)
    sums = np.empty((ny, nx + 2), np.int32)
    for z in range(nz):
        rows[:] = heights[z + 1, 1 : ny + 1, 1 : nx + 1]
        _box_sums(rows, radius_y, sums)
        for y in range(ny):
            row = heights[z + 1, y + 1, 1 : nx + 1]
            _box_row(sums[y, 1 : nx + 1], radius_x, row)
            _outside_row(squares[z, y], cap, table, row)
            if mask.size > 1:
                for x in range(nx):
                    row[x] = row[x] if mask[z, y, x] else np.int32(NOTHING)


@njit(nogil=True, cache=True)
def _box_row(values, radius, out):  # type: ignore[no-untyped-def]
    """Sums of ``2 * radius + 1`` values around each; beyond an end the last value repeats."""
    n = values.size
    total = values[0] * (radius + 1)
    for x in range(1, radius + 1):
        total += values[min(x, n - 1)]
    for x in range(n):
        out[x] = total
        total += values[min(x + radius + 1, n - 1)] - values[max(x - radius, 0)]


@njit(nogil=True, cache=True)
def _outside_row(squares, cap, table, row):  # type: ignore[no-untyped-def]
    """Overwrite the heights of voxels that are not inside."""
    for x in range(row.size):
        if squares[x] <= -cap:
            row[x] = NOTHING
        elif squares[x] <= 0:
            row[x] = -table[-squares[x]]
