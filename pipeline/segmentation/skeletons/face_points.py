"""The points in which skeletons cross the faces of a block.

Two blocks share the plane of voxels between them. Each pools the voxels of one label that touch on it into contacts,
and both find the same points in each: first that with the greatest distance to the contact's rim, of several the one
nearest the mean place; then, where a neurite runs along the plane, the deepest one that is near none of the points
before, until there is none. Skeletons on both sides pass through them, and so they are one.
"""

from __future__ import annotations

import numpy as np

from pipeline.segmentation.compiled import kernel
from pipeline.segmentation.skeletons.distances import squared_distances
from pipeline.segmentation.skeletons.rules import SkeletonRules, as_array, reach_of

Sides = tuple[float, float, float]
ALONG = -1
"""For an axis, where a neurite runs along a face."""
ROUND = 2.0
"""A contact that has at most so many times the area of the circle in it is a cut across a neurite."""


def face_points(numbers: np.ndarray, sides_nm: Sides, rules: SkeletonRules) -> np.ndarray:
    """The points of all contacts with the six faces of a block, in C order.

    numbers: int32 (z, y, x), 0 = nothing.

    Returns places z, y, x and, as a fourth column, the axis that a neurite is cut across there, or ``ALONG``: int64
    (n, 4). A place that is on several faces can stand there several times.
    """
    found = [np.zeros((0, 4), np.int64)]
    for axis in range(3):
        for place in sorted({0, numbers.shape[axis] - 1}):
            plane = np.ascontiguousarray(numbers.take([place], axis))
            points = _plane_points(plane, sides_nm, rules)
            points[:, axis] += place
            points[points[:, 3] != ALONG, 3] = axis
            found.append(points)
    return np.unique(np.concatenate(found), axis=0)


def _plane_points(plane: np.ndarray, sides_nm: Sides, rules: SkeletonRules) -> np.ndarray:
    """The points of a plane, an array that is one voxel thick along one axis; 0 for an axis in the fourth column."""
    if not plane.any():
        return np.zeros((0, 4), np.int64)
    squares = np.minimum(squared_distances(plane, sides_nm), np.float32((max(plane.shape) * min(sides_nm)) ** 2))
    places, contacts = np.argwhere(plane), np.empty(plane.shape, np.int32)
    count = _pool(plane, contacts)
    which, depth = contacts[tuple(places.T)], squares[tuple(places.T)]
    sums = np.zeros((count, 3), np.int64)
    np.add.at(sums, which, places)
    sizes = np.bincount(which, minlength=count)[which]
    order = np.lexsort((_away(places, sums[which], sizes, sides_nm), -depth))
    chosen = _apart(places, which, depth, order, contacts, np.array(sides_nm), as_array(rules))
    one = sides_nm[0] * sides_nm[1] * sides_nm[2] / sides_nm[plane.shape.index(1)]
    is_cut = sizes[chosen] * one <= ROUND * np.pi * depth[chosen]
    return np.column_stack([places[chosen], np.where(is_cut, 0, ALONG)])


def _away(places: np.ndarray, sums: np.ndarray, sizes: np.ndarray, sides_nm: Sides) -> np.ndarray:
    """Squared distances to the mean place, float64 (n,)."""
    steps = (places * sizes[:, None] - sums) / sizes[:, None] * np.asarray(sides_nm)
    return np.asarray(steps[:, 0] ** 2 + steps[:, 1] ** 2 + steps[:, 2] ** 2)


@kernel
def _apart(places, which, depth, order, contacts, sides, rules):  # type: ignore[no-untyped-def]
    """Those of the places, in an order, that are not within reach of one before in the same contact."""
    taken, count = np.empty(len(order), np.int64), 0
    near = np.zeros(contacts.shape, np.uint8)
    for number in order:
        z, y, x = places[number]
        if near[z, y, x]:
            continue
        taken[count] = number
        count += 1
        reach = reach_of(np.sqrt(np.float64(depth[number])), rules)
        high, wide, far = int(reach / sides[0]), int(reach / sides[1]), int(reach / sides[2])
        for i in range(max(0, z - high), min(contacts.shape[0] - 1, z + high) + 1):
            for j in range(max(0, y - wide), min(contacts.shape[1] - 1, y + wide) + 1):
                for k in range(max(0, x - far), min(contacts.shape[2] - 1, x + far) + 1):
                    if contacts[i, j, k] == which[number]:
                        away = ((i - z) * sides[0]) ** 2 + ((j - y) * sides[1]) ** 2 + ((k - x) * sides[2]) ** 2
                        if away <= reach * reach:
                            near[i, j, k] = 1
    return taken[:count].copy()


@kernel
def _pool(plane, contacts):  # type: ignore[no-untyped-def]
    """Number the contacts, voxels of one label that touch at a side or a corner; the number of them."""
    nz, ny, nx = plane.shape
    contacts[...] = -1
    stack = np.empty((plane.size, 3), np.int32)
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if plane[z, y, x] == 0 or contacts[z, y, x] >= 0:
                    continue
                contacts[z, y, x] = count
                stack[0, 0], stack[0, 1], stack[0, 2] = z, y, x
                height = 1
                while height:
                    height -= 1
                    a, b, c = stack[height, 0], stack[height, 1], stack[height, 2]
                    for i in range(max(0, a - 1), min(nz, a + 2)):
                        for j in range(max(0, b - 1), min(ny, b + 2)):
                            for k in range(max(0, c - 1), min(nx, c + 2)):
                                if plane[i, j, k] == plane[z, y, x] and contacts[i, j, k] < 0:
                                    contacts[i, j, k] = count
                                    stack[height, 0], stack[height, 1], stack[height, 2] = i, j, k
                                    height += 1
                count += 1
    return count
