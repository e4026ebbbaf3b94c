"""Height maps out of affinities: how far a voxel is from the nearest membrane and how clear its faces are, in integers.

1. ``_face_sums``      evidence: the sum of the affinities on a voxel's faces; at the threshold or above, it is inside
2. ``_row_distances``  along x: squared distance to the nearest voxel of the other kind, capped
3. ``_meet``           along y, then z: the smallest of (squared distance there + squared step), within the cap
4. ``_box_sums``       inside: a box filter over (distance + evidence), as integer sums, along z, y, x
5. ``_outside_row``    outside: minus the distance; beyond the cap or the mask: NOTHING
6. ``_border_row``     only with a border level: voxels with less evidence than that lie below all others, by evidence

The distance transform is exact and separable (Saito and Toriwaki 1994, Pattern Recognition 27: 1551). One signed number
per voxel serves both transforms: positive inside, negative outside, and a voxel of the other kind is at distance 0.
Squared distances are in units of ``unit`` nm squared, the largest in which every step of the grid is whole.

Distance alone has no valley where a membrane is too faint for the threshold; the evidence has one. Both are capped, so
that the inside of a soma is a plateau of the full height.

A border level is for borders that lie where the evidence is least. Both the distance and the filter move a border away
from there: the first towards the middle of all that is below the threshold, the second by a voxel or so.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd, isqrt
from typing import NamedTuple

import numpy as np

from pipeline.geometry import Vec, product
from pipeline.segmentation.compiled import kernel, part

NOTHING = -(2**31)
"""The height of a voxel that gets no label. No other height is as low, so no pointer leads to it."""

FRACTION_BITS = 8
"""Heights are in 1/256 nm, rounded down."""


class Scale(NamedTuple):
    """Everything that turns affinities into heights along some axes, as whole numbers."""

    axes: tuple[bool, bool, bool]
    """Whether neighbours, distances and the filter go along z, y, x."""
    threshold: int
    """The least evidence of a voxel that is inside."""
    steps: Vec
    """Squared length of one voxel along z, y, x, in ``unit`` nm squared."""
    reach: Vec
    """The largest number of voxels along z, y, x at which a membrane is still nearer than the cap."""
    radii: Vec
    """Radius of the box filter in voxels, z, y, x."""
    cap: int
    """The square of the cap, rounded up, in ``unit`` nm squared."""
    distances: np.ndarray
    """int32 (cap + 1,): squared distance -> height."""
    evidences: np.ndarray
    """int32 (largest evidence + 1,): evidence -> height."""
    border_level: int
    """Below this evidence, the height is the evidence minus the level, which is negative; 0 = no such voxels."""

    @property
    def full_height(self) -> int:
        """The height of a voxel around which distance and evidence are all at their caps."""
        return product(self.radii * 2 + 1) * int(self.distances[-1] + self.evidences[-1])


@lru_cache(maxsize=16)
def height_scale(
    *,
    resolution_nm: Vec,
    axes: tuple[int, ...],
    threshold: int,
    saturation: int,
    evidence_nm: int,
    max_distance_nm: int,
    filter_width: int,
    border_level: int,
) -> Scale:
    """The scale of heights on a grid of ``resolution_nm`` voxels; see ``SupervoxelRules`` for the other numbers."""
    unit = gcd(*(resolution_nm[a] ** 2 for a in axes))
    cap = -(-(max_distance_nm**2) // unit)
    distances = [isqrt((square * unit) << (2 * FRACTION_BITS)) for square in range(cap)]
    distances.append(max_distance_nm << FRACTION_BITS)
    largest = 2 * 255 * len(axes)
    evidences = [(min(e, saturation) * evidence_nm << FRACTION_BITS) // saturation for e in range(largest + 1)]
    return Scale(
        axes=(0 in axes, 1 in axes, 2 in axes),
        threshold=threshold,
        steps=resolution_nm * resolution_nm // unit,
        reach=reach_of(resolution_nm, max_distance_nm, axes),
        radii=Vec(*(filter_width // 2 if a in axes else 0 for a in range(3))),
        cap=cap,
        distances=np.array(distances, np.int32),
        evidences=np.array(evidences, np.int32),
        border_level=border_level,
    )


def reach_of(resolution_nm: Vec, max_distance_nm: int, axes: tuple[int, ...]) -> Vec:
    """The largest number of steps along each axis that stays nearer than the cap; 0 along axes not crossed."""
    return Vec(*((max_distance_nm - 1) // n if a in axes else 0 for a, n in enumerate(resolution_nm)))


def height_map(
    affinities: np.ndarray, mask: np.ndarray | None, low_face: tuple[bool, bool, bool], scale: Scale
) -> np.ndarray:
    """Heights of a box of voxels: int32 (z + 2, y + 2, x + 2), with a frame of NOTHING around the box.

    ``affinities`` is uint8 (3, z, y, x), channel k at voxel v between v and v - e_k; ``mask`` is bool (z, y, x), False
    where there is no tissue. ``low_face[k]`` says whether the first plane along axis k has a partner before it. Where a
    face is missing the opposite one counts twice; an axis without any face counts as if both were 255.
    """
    z, y, x = affinities.shape[1:]
    tissue = np.empty((0, 0, 0), np.bool_) if mask is None else np.ascontiguousarray(mask)
    evidence = np.empty((z, y, x), np.uint16)
    squares = np.empty((z, y, x), np.int32)
    heights = np.full((z + 2, y + 2, x + 2), NOTHING, np.int32)
    _sections(np.ascontiguousarray(affinities), tissue, low_face, scale, evidence, squares)
    _columns(evidence, squares, scale, heights)
    _filter(evidence, squares, tissue, scale, heights)
    return heights


@kernel
def _sections(affinities, tissue, low_face, scale, evidence, squares):  # type: ignore[no-untyped-def]
    """Fill ``evidence``, and ``squares`` with the signed squared distances within each section."""
    nz, ny, nx = squares.shape
    inside = np.empty(nx, np.bool_)
    rows = np.empty((ny, nx), np.int32)
    for z in range(nz):
        for y in range(ny):
            sums = evidence[z, y]
            _face_sums(affinities, z, y, low_face, scale.axes, sums)
            for x in range(nx):
                inside[x] = sums[x] >= scale.threshold
            if tissue.size > 0:
                for x in range(nx):
                    inside[x] &= tissue[z, y, x]
            _row_distances(inside, scale.steps[2], scale.cap, rows[y])
        _meet(rows, scale.steps[1], scale.reach[1], scale.cap, squares[z])


@part
def _face_sums(affinities, z, y, low_face, axes, sums):  # type: ignore[no-untyped-def]
    """Sum the affinities on the faces of each voxel of a row."""
    nx = sums.size
    row = affinities[2, z, y]
    if nx == 1:
        sums[0] = 2 * np.uint16(row[0]) if low_face[2] else 510
    else:
        for x in range(nx - 1):
            sums[x] = np.uint16(row[x]) + np.uint16(row[x + 1])
        if not low_face[2]:
            sums[0] = 2 * np.uint16(row[1])
        sums[nx - 1] = 2 * np.uint16(row[nx - 1])
    nz, ny = affinities.shape[1:3]
    if axes[0]:
        low, high = _faces(z, nz, low_face[0])
        _add_faces(affinities[0, low, y], affinities[0, high, y], nz > 1 or low_face[0], sums)
    if axes[1]:
        low, high = _faces(y, ny, low_face[1])
        _add_faces(affinities[1, z, low], affinities[1, z, high], ny > 1 or low_face[1], sums)


@part
def _faces(i, n, has_low):  # type: ignore[no-untyped-def]
    """The rows that hold the affinities of the low and the high face of row ``i`` of ``n``."""
    return i if i > 0 or has_low else min(i + 1, n - 1), min(i + 1, n - 1)


@part
def _add_faces(low, high, has_any, sums):  # type: ignore[no-untyped-def]
    """Add the affinities of the low and high faces of a row to ``sums``."""
    for x in range(sums.size):
        sums[x] += np.uint16(low[x]) + np.uint16(high[x]) if has_any else np.uint16(510)


@part
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


@part
def _meet(rows, step, reach, cap, out):  # type: ignore[no-untyped-def]
    """Extend signed squared distances within ``rows`` (n, x) by those of other rows, ``step`` squared units apart.

    A row farther off than the largest distance found so far cannot make any smaller.
    """
    n = rows.shape[0]
    for i in range(n):
        best = out[i]
        _copy(rows[i], best)
        largest = cap
        for j in range(1, reach + 1):
            square = j * j * step
            if square >= largest:
                break
            if i >= j:
                largest = _meet_row(best, rows[i - j], square)
            if i + j < n:
                largest = _meet_row(best, rows[i + j], square)


@part
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


@part
def _copy(source, target):  # type: ignore[no-untyped-def]
    for x in range(target.size):
        target[x] = source[x]


@kernel
def _columns(evidence, squares, scale, heights):  # type: ignore[no-untyped-def]
    """Finish the distances along z, and sum distance and evidence of the inside along z into ``heights``."""
    nz, ny, nx = squares.shape
    distances, evidences = scale.distances, scale.evidences
    before = np.empty((nz, nx), np.int32)
    after = np.empty((nz, nx), np.int32)
    for y in range(ny):
        for z in range(nz):
            _copy(squares[z, y], before[z])
        _meet(before, scale.steps[0], scale.reach[0], scale.cap, after)
        for z in range(nz):
            for x in range(nx):
                square = after[z, x]
                squares[z, y, x] = square
                before[z, x] = distances[square] + evidences[evidence[z, y, x]] if square > 0 else 0
        _box_sums(before, scale.radii[0], after)
        for z in range(nz):
            _copy(after[z], heights[z + 1, y + 1, 1 : nx + 1])


@part
def _box_sums(rows, radius, out):  # type: ignore[no-untyped-def]
    """Sums of ``2 * radius + 1`` rows of ``rows`` (n, x) around each; beyond an end the last row repeats."""
    n, nx = rows.shape
    for x in range(nx):
        out[0, x] = rows[0, x] * np.int32(radius + 1)
    for i in range(1, radius + 1):
        _add_row(rows[min(i, n - 1)], out[0])
    for i in range(1, n):
        enter, leave, before, total = rows[min(i + radius, n - 1)], rows[max(i - 1 - radius, 0)], out[i - 1], out[i]
        for x in range(nx):
            total[x] = before[x] + enter[x] - leave[x]


@part
def _add_row(row, total):  # type: ignore[no-untyped-def]
    for x in range(total.size):
        total[x] += row[x]


@kernel
def _filter(evidence, squares, tissue, scale, heights):  # type: ignore[no-untyped-def]
    """Finish the box filter along y and x; give the outside and what is near a border their heights."""
    nz, ny, nx = squares.shape
    rows = np.empty((ny, nx), np.int32)
    sums = np.empty((ny, nx), np.int32)
    for z in range(nz):
        for y in range(ny):
            _copy(heights[z + 1, y + 1, 1 : nx + 1], rows[y])
        _box_sums(rows, scale.radii[1], sums)
        for y in range(ny):
            row = heights[z + 1, y + 1, 1 : nx + 1]
            _box_row(sums[y], scale.radii[2], row)
            _outside_row(squares[z, y], scale.cap, scale.distances, row)
            if scale.border_level > 0:
                _border_row(evidence[z, y], scale.border_level, row)
            if tissue.size > 0:
                for x in range(nx):
                    row[x] = row[x] if tissue[z, y, x] else np.int32(NOTHING)


@part
def _box_row(values, radius, out):  # type: ignore[no-untyped-def]
    """Sums of ``2 * radius + 1`` values around each; beyond an end the last value repeats."""
    n = values.size
    total = values[0] * (radius + 1)
    for x in range(1, radius + 1):
        total += values[min(x, n - 1)]
    for x in range(n):
        out[x] = total
        total += values[min(x + radius + 1, n - 1)] - values[max(x - radius, 0)]


@part
def _outside_row(squares, cap, distances, row):  # type: ignore[no-untyped-def]
    """Overwrite the heights of voxels that are not inside."""
    for x in range(row.size):
        if squares[x] <= -cap:
            row[x] = NOTHING
        elif squares[x] <= 0:
            row[x] = -distances[-squares[x]]


@part
def _border_row(evidence, level, row):  # type: ignore[no-untyped-def]
    """Overwrite the heights of voxels with less evidence than ``level``; all others that have a label are above 0."""
    for x in range(row.size):
        if evidence[x] < level and row[x] != np.int32(NOTHING):
            row[x] = np.int32(evidence[x]) - np.int32(level)
