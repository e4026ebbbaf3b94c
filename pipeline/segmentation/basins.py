"""Basins of a height map by steepest ascent, cut at a box.

1. ``pointers``  every voxel points to the highest of itself and its neighbours; on equal heights, the first in C order
2. ``crossings`` which pairs of voxels on the two sides of a core's low faces are in one basin
3. ``basins``    follow the pointers to the summits; summits that touch at the full height are one
4. ``first_ids`` within the core a basin is named by its first voxel

Pointers ascend a strict order (height, then minus the place in C order), so they make a forest and the basins do not
depend on the order in which voxels are visited.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.heights import NOTHING

STAY = 3
"""The way of a summit. Ways 0, 1, 2 lead back along z, y, x; ways 6, 5, 4 lead forward along z, y, x."""

NOWHERE = 7
"""The way of a voxel without a label."""

WAY = 7
"""The bits of a pointer that hold the way."""

FULL = 8
"""The bit of a pointer that is set if the voxel has the full height."""


def pointers(heights: np.ndarray, offset: Vec, shape: Vec, *, volume: bool, full_height: int) -> np.ndarray:
    """The way of steepest ascent from each voxel of a box, and whether it has the full height: uint8 (z, y, x).

    ``heights`` is C-contiguous int32; the box begins at ``offset`` and lies at least one voxel inside it. Unless
    ``volume``, pointers stay in their section.
    """
    out = np.empty(shape, np.uint8)
    nothing = np.full(shape[2], NOTHING, np.int32)
    _point(heights, offset, volume, full_height, nothing, out)
    return out


def crossings(pointer: np.ndarray, low: Vec, shape: Vec, axis: int) -> np.ndarray:
    """Voxels v of a core's low face along ``axis`` that share a basin with v - e_axis: int64 (n, 3).

    They are z, y, x within the core, which has ``shape`` and begins at ``low`` in ``pointer``, with ``low[axis] >= 1``.
    """
    box = BoundingBox.from_shape(shape, low).slices()
    window = np.moveaxis(pointer, axis, 0)[low[axis] - 1 : low[axis] + 1]
    before, face = window[(slice(None), *box[:axis], *box[axis + 1 :])]
    together = ((face & WAY) == axis) | ((before & WAY) == 6 - axis) | ((face & before & FULL) != 0)
    return np.insert(np.argwhere(together), axis, 0, axis=1)


def basins(pointer: np.ndarray, *, volume: bool) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of pointers within a box; a pointer that leaves it ends there.

    Touching voxels of the full height are one basin; across sections only if ``volume``. Returns the number of each
    voxel's summit, int32 (z, y, x), -1 without a label, and for each summit the smallest number among those of its
    basin, int32 (n,).
    """
    shape = pointer.shape
    summits = np.empty(shape, np.int32)
    plane, row = shape[1] * shape[2], shape[2]
    strides = np.array([-plane, -row, -1, 0, 1, row, plane, 0])
    count = _climb(_closed(pointer).ravel(), strides, summits.ravel())
    smallest = np.arange(count, dtype=np.int32)
    _unite(pointer, summits, volume, smallest)
    return summits, smallest


def first_ids(summits: np.ndarray, smallest: np.ndarray, low: Vec, shape: Vec, start: Vec, bounds: Vec) -> np.ndarray:
    """Ids of a core's fragments, uint64 (z, y, x): 1 + the linear index of the fragment's first voxel; 0 no label.

    The core begins at ``low`` in ``summits`` and at ``start`` in a dataset of ``bounds`` voxels.
    """
    ids = np.empty(shape, np.uint64)
    _name(summits, smallest, low, start, bounds, np.zeros(smallest.size, np.uint64), ids)
    return ids


@kernel
def _point(heights, offset, volume, full_height, nothing, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    start, stop = offset[2], offset[2] + nx
    for z in range(nz):
        zz = z + offset[0]
        for y in range(ny):
            yy = y + offset[1]
            below = heights[zz - 1, yy, start:stop] if volume else nothing
            above = heights[zz + 1, yy, start:stop] if volume else nothing
            behind, ahead = heights[zz, yy - 1, start:stop], heights[zz, yy + 1, start:stop]
            row = heights[zz, yy]
            left, own, right = row[start - 1 : stop - 1], row[start:stop], row[start + 1 : stop + 1]
            _point_row(below, behind, left, own, right, ahead, above, np.int32(full_height), out[z, y])


@part
def _point_row(below, behind, left, own, right, ahead, above, full_height, out):  # type: ignore[no-untyped-def]
    """The first of the highest in C order. Every choice is a selection without a branch, so the row is vectorised."""
    for x in range(own.size):
        best, way = below[x], np.int32(0)
        if behind[x] > best:
            best, way = behind[x], np.int32(1)
        if left[x] > best:
            best, way = left[x], np.int32(2)
        if own[x] > best:
            best, way = own[x], np.int32(STAY)
        if right[x] > best:
            best, way = right[x], np.int32(4)
        if ahead[x] > best:
            best, way = ahead[x], np.int32(5)
        if above[x] > best:
            way = np.int32(6)
        if own[x] == np.int32(NOTHING):
            way = np.int32(NOWHERE)
        if own[x] == full_height:
            way = np.int32(way + np.int32(FULL))
        out[x] = way


def _closed(pointer: np.ndarray) -> np.ndarray:
    """The ways, with those that leave the box turned into STAY."""
    way = pointer & WAY
    for axis in range(3):
        first, last = (np.moveaxis(way, axis, 0)[i] for i in (0, -1))
        first[first == axis] = STAY
        last[last == 6 - axis] = STAY
    return way


@kernel
def _climb(way, strides, summits):  # type: ignore[no-untyped-def]
    """Number the summits and give every voxel the number of its own. Each voxel is visited and written once."""
    count = 0
    for i in range(way.size):
        summits[i] = -2 if way[i] != NOWHERE else -1
    for i in range(way.size):
        if summits[i] != -2:
            continue
        top = i
        while summits[top] == -2 and way[top] != STAY:
            top += strides[way[top]]
        if summits[top] == -2:
            summits[top] = count
            count += 1
        number, at = summits[top], i
        while summits[at] == -2:
            summits[at] = number
            at += strides[way[at]]
    return count


@kernel
def _unite(pointer, summits, volume, smallest):  # type: ignore[no-untyped-def]
    """Union of the summits of touching voxels of the full height, along the three axes (see ``_touch``)."""
    nz, ny = pointer.shape[:2]
    for z in range(nz):
        for y in range(ny):
            own, numbers = pointer[z, y], summits[z, y]
            _touch(own[:-1], own[1:], numbers[:-1], numbers[1:], smallest)
            if y > 0:
                _touch(pointer[z, y - 1], own, summits[z, y - 1], numbers, smallest)
            if z > 0 and volume:
                _touch(pointer[z - 1, y], own, summits[z - 1, y], numbers, smallest)
    for i in range(smallest.size):
        smallest[i] = smallest[smallest[i]]


@part
def _touch(first, second, first_summits, second_summits, smallest):  # type: ignore[no-untyped-def]
    """Unite the summits of two rows wherever both have the full height; the smaller number is the root."""
    for x in range(first.size):
        if first[x] & second[x] & FULL and first_summits[x] != second_summits[x]:
            a, b = _root(first_summits[x], smallest), _root(second_summits[x], smallest)
            smallest[max(a, b)] = min(a, b)


@part
def _root(number, smallest):  # type: ignore[no-untyped-def]
    while smallest[number] != number:
        smallest[number] = smallest[smallest[number]]
        number = smallest[number]
    return number


@kernel
def _name(summits, smallest, low, start, bounds, first, ids):  # type: ignore[no-untyped-def]
    nz, ny, nx = ids.shape
    for z in range(nz):
        for y in range(ny):
            row = summits[z + low[0], y + low[1]]
            place = ((z + start[0]) * bounds[1] + y + start[1]) * bounds[2] + start[2] + 1
            for x in range(nx):
                number = row[x + low[2]]
                if number < 0:
                    ids[z, y, x] = 0
                    continue
                number = smallest[number]
                if first[number] == 0:
                    first[number] = np.uint64(place + x)
                ids[z, y, x] = first[number]
