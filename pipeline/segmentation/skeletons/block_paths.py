"""The skeletons of all pieces in a block (TEASAR, Sato et al. 2000, in the way of kimimaro).

1. ``_rooted``  each piece from its root: the end farthest from a point on a face or, if it has none, from its first
                voxel
2. ``_join``    the cheapest path from the end farthest from the root, and from each point on a face, to what the
                skeleton has so far; near the surface a way is dear, so paths run in the middle
3. ``_cover``   everything near a path belongs to it
4. the same from the voxel farthest from the root that belongs to no path, until there is none

A piece is what one label has in the block, by sides, edges and corners. Everything is worked through in a fixed order,
and ties go to the voxel that comes first, so a block always gives the same skeletons.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.skeletons.face_points import face_points
from pipeline.segmentation.skeletons.heap import new_heap, pop, push, with_room
from pipeline.segmentation.skeletons.rules import SkeletonRules, as_array, cost_of, reach_of

Sides = tuple[float, float, float]
STRIDE = 0.5
"""Steps along a path, in reaches, from one place whose surroundings are covered to the next."""


class _Work(NamedTuple):
    """Arrays of the padded block, one entry a voxel in C order."""

    numbers: np.ndarray
    """int32; 0 = nothing"""
    squares: np.ndarray
    """float32: squared distance to the surface"""
    costs: np.ndarray
    """float32: of a nanometre of way"""
    pieces: np.ndarray
    """int32: the piece; 0 = none yet"""
    covered: np.ndarray
    """uint8: whether it belongs to a path"""
    vertices: np.ndarray
    """int32: one more than the number of the vertex there; 0 = none"""
    sums: np.ndarray
    """float64: cost of the way from where a search began"""
    before: np.ndarray
    """int32: the voxel before, on that way"""
    searches: np.ndarray
    """int32: the search that reached it last"""
    order: np.ndarray
    """int32: the voxels of a piece as they were reached from its root"""
    places: np.ndarray
    """int32: the voxel of each vertex"""
    parents: np.ndarray
    """int32: the vertex before, on the way to the root; -1 for a root"""
    steps: np.ndarray
    """int64 (26,): from a voxel to its neighbours"""
    lengths: np.ndarray
    """float64 (26,): the lengths of these steps in nanometres"""
    sides: np.ndarray
    """float64 (3,): sides of a voxel in nanometres"""
    shape: np.ndarray
    """int64 (3,): of the padded block"""
    rules: np.ndarray
    """float64 (2,)"""


def block_paths(
    numbers: np.ndarray, squares: np.ndarray, sides_nm: Sides, rules: SkeletonRules
) -> tuple[np.ndarray, np.ndarray]:
    """The skeletons of a block.

    numbers: int32 (z, y, x), a number for each label, 0 = nothing. squares: float32 (z, y, x), squared distances to the
    surface. sides_nm: of a voxel.

    Returns the voxels of the vertices, int32 (n, 3), and for each the vertex before it on the way to the root of its
    piece, int32 (n,), -1 for the root.
    """
    padded = np.pad(numbers, 1)
    shape = np.array(padded.shape, np.int64)
    points = face_points(numbers, sides_nm, rules)
    points = np.column_stack([np.ravel_multi_index(tuple(points[:, :3].T + 1), padded.shape), points[:, 3]])
    work = _working_arrays(padded, np.pad(squares, 1), sides_nm, rules)
    count = _skeletons(work, points)
    places = np.stack(np.unravel_index(work.places[:count], tuple(shape)), axis=1) - 1
    return places.astype(np.int32), work.parents[:count].copy()


def _working_arrays(numbers: np.ndarray, squares: np.ndarray, sides_nm: Sides, rules: SkeletonRules) -> _Work:
    n, around = numbers.size, [step for step in np.ndindex(3, 3, 3) if step != (1, 1, 1)]
    offsets: np.ndarray = np.array(around) - 1
    sides = np.array(sides_nm)
    shape = np.array(numbers.shape, np.int64)
    return _Work(
        numbers=numbers.reshape(-1),
        squares=squares.reshape(-1),
        costs=np.empty(n, np.float32),
        pieces=np.zeros(n, np.int32),
        covered=np.zeros(n, np.uint8),
        vertices=np.zeros(n, np.int32),
        sums=np.empty(n, np.float64),
        before=np.empty(n, np.int32),
        searches=np.zeros(n, np.int32),
        order=np.empty(n, np.int32),
        places=np.empty(n, np.int32),
        parents=np.empty(n, np.int32),
        steps=offsets @ np.array([shape[1] * shape[2], shape[2], 1]),
        lengths=np.sqrt(((offsets * sides) ** 2).sum(axis=1)),
        sides=sides,
        shape=shape,
        rules=as_array(rules),
    )


@kernel
def _skeletons(work, points):  # type: ignore[no-untyped-def]
    """Fill ``places`` and ``parents``; the number of vertices."""
    unit = min(work.sides[0], work.sides[1], work.sides[2]) ** 2
    for voxel in range(work.numbers.size):
        if work.numbers[voxel]:
            work.costs[voxel] = cost_of(np.float64(work.squares[voxel]), unit)
    heap, piece, count, searches = new_heap(), 0, 0, 0
    for point in points[:, 0]:
        if work.pieces[point] == 0:
            piece += 2
            size = _rooted(work, point, points, piece)
            heap, count, searches = _piece(work, heap, points, piece, size, count, searches)
    none = points[:0]
    for voxel in range(work.numbers.size):
        if work.numbers[voxel] and work.pieces[voxel] == 0:
            piece += 2
            size = _rooted(work, voxel, none, piece)
            heap, count, searches = _piece(work, heap, none, piece, size, count, searches)
    return count


@part
def _rooted(work, voxel, points, piece):  # type: ignore[no-untyped-def]
    """Flood the piece around a voxel from its root, the end that is farthest away; how many voxels it has.

    No end is where a face cuts the piece: there the skeleton goes on, or ends in the middle of the cut.
    """
    size = _flood(work, voxel, 0, piece - 1)
    for point, axis in points:
        if work.pieces[point] == piece - 1 and axis >= 0:
            _cover_cut(work, point, axis)
    end = _last_free(work, size)
    return _flood(work, voxel if end < 0 else end, piece - 1, piece)


@part
def _cover_cut(work, point, axis):  # type: ignore[no-untyped-def]
    """Cover a disc around a point on a face: the cut through the neurite that goes on behind the face."""
    nx, plane, sides = work.shape[2], work.shape[1] * work.shape[2], work.sides
    z, y, x = point // plane, point // nx % work.shape[1], point % nx
    reach = np.sqrt(np.float64(work.squares[point])) + sides[axis]
    high, wide, far = int(reach / sides[0]), int(reach / sides[1]), int(reach / sides[2])
    for k in range(max(1, z - high), min(work.shape[0] - 2, z + high) + 1):
        for j in range(max(1, y - wide), min(work.shape[1] - 2, y + wide) + 1):
            for i in range(max(1, x - far), min(nx - 2, x + far) + 1):
                other = k * plane + j * nx + i
                away = ((k - z) * sides[0]) ** 2 * (axis != 0) + ((j - y) * sides[1]) ** 2 * (axis != 1)
                away += ((i - x) * sides[2]) ** 2 * (axis != 2)
                if away <= reach * reach and work.pieces[other] == work.pieces[point]:
                    work.covered[other] = 1


@part
def _last_free(work, size):  # type: ignore[no-untyped-def]
    """The last voxel in ``order`` that is not covered; -1 if there is none."""
    for at in range(size - 1, -1, -1):
        if work.covered[work.order[at]] == 0:
            return work.order[at]
    return -1


@part
def _flood(work, root, before, piece):  # type: ignore[no-untyped-def]
    """Give a number to the piece around a voxel, whose voxels had ``before``; how many voxels it has."""
    work.order[0], work.pieces[root] = root, piece
    own, size, at = work.numbers[root], 1, 0
    while at < size:
        voxel = work.order[at]
        at += 1
        for k in range(26):
            other = voxel + work.steps[k]
            if work.numbers[other] == own and work.pieces[other] == before:
                work.pieces[other] = piece
                work.order[size] = other
                size += 1
    return size


@part
def _piece(work, heap, points, piece, size, count, searches):  # type: ignore[no-untyped-def]
    """The skeleton of a piece whose voxels are in ``order``."""
    root = work.order[0]
    work.places[count], work.parents[count] = root, -1
    count += 1
    work.vertices[root] = count
    end = _last_free(work, size)
    if end >= 0:
        searches += 1
        heap, count = _join(work, heap, end, count, searches)
    for point in points[:, 0]:
        if work.pieces[point] == piece:
            searches += 1
            heap, count = _join(work, heap, point, count, searches)
    for at in range(size - 1, 0, -1):
        voxel = work.order[at]
        if work.covered[voxel] == 0:
            searches += 1
            heap, count = _join(work, heap, voxel, count, searches)
    return heap, count, searches


@part
def _join(work, heap, start, count, search):  # type: ignore[no-untyped-def]
    """Add the cheapest path from a voxel to the skeleton of its piece, and cover what is near it."""
    if work.vertices[start]:
        return heap, count
    heap, end = _search(work, heap, start, search)
    voxel, parent, first = end, work.vertices[end] - 1, count
    while voxel != start:
        voxel = work.before[voxel]
        work.places[count], work.parents[count] = voxel, parent
        parent = count
        count += 1
        work.vertices[voxel] = count
    gone = due = 0.0
    for vertex in range(count - 1, first - 1, -1):
        here = work.places[vertex]
        if gone >= due or vertex == first:
            reach = reach_of(np.sqrt(np.float64(work.squares[here])), work.rules)
            _cover(work, here, reach)
            gone, due = 0.0, STRIDE * reach
        if vertex > first:
            gone += _distance(work, here, work.places[vertex - 1])
    _cover(work, end, reach_of(np.sqrt(np.float64(work.squares[end])), work.rules))
    return heap, count


@part
def _search(work, heap, start, search):  # type: ignore[no-untyped-def]
    """Dijkstra's search from a voxel to the nearest vertex of its piece, which is returned."""
    piece = work.pieces[start]
    work.sums[start], work.searches[start], work.before[start] = 0.0, search, start
    push(heap, 0, 0.0, start)
    size = 1
    while size:
        key, voxel = pop(heap, size)
        size -= 1
        if work.vertices[voxel]:
            return heap, voxel
        if key > work.sums[voxel]:
            continue
        for k in range(26):
            other = voxel + work.steps[k]
            if work.pieces[other] != piece:
                continue
            total = key + work.lengths[k] * work.costs[other]
            if work.searches[other] != search or total < work.sums[other]:
                work.sums[other], work.searches[other], work.before[other] = total, search, voxel
                heap = with_room(heap, size)
                push(heap, size, total, other)
                size += 1
    return heap, start


@part
def _cover(work, voxel, reach):  # type: ignore[no-untyped-def]
    """Cover the voxels of the same piece that are not farther away than ``reach``."""
    piece, nx = work.pieces[voxel], work.shape[2]
    plane = work.shape[1] * nx
    z, y, x = voxel // plane, voxel // nx % work.shape[1], voxel % nx
    high = int(reach / work.sides[0])
    for k in range(max(1, z - high), min(work.shape[0] - 2, z + high) + 1):
        rest = reach * reach - ((k - z) * work.sides[0]) ** 2
        wide = int(np.sqrt(max(rest, 0.0)) / work.sides[1])
        for j in range(max(1, y - wide), min(work.shape[1] - 2, y + wide) + 1):
            left = rest - ((j - y) * work.sides[1]) ** 2
            far = int(np.sqrt(max(left, 0.0)) / work.sides[2])
            row = k * plane + j * nx
            for other in range(row + max(1, x - far), row + min(nx - 2, x + far) + 1):
                if work.pieces[other] == piece:
                    work.covered[other] = 1


@part
def _distance(work, a, b):  # type: ignore[no-untyped-def]
    """Nanometres between two voxels that touch."""
    nx, plane = work.shape[2], work.shape[1] * work.shape[2]
    z, y = a // plane - b // plane, a // nx % work.shape[1] - b // nx % work.shape[1]
    x = a % nx - b % nx
    return np.sqrt((z * work.sides[0]) ** 2 + (y * work.sides[1]) ** 2 + (x * work.sides[2]) ** 2)
