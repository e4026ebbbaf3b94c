"""One tree for each piece of a neuron, out of the skeletons that its blocks have.

Blocks know little of each other: both of a pair may follow a neurite that runs along the plane between them, and each
ends short branches that its neighbour's path covers. So the rule by which a block keeps its branches is applied once
more to the whole neuron:

1. ``_way``     from a root, one end of the piece, the cheapest way to every vertex; where ways meet, a loop opens
2. ``_keep``    the longest way, then that to the farthest vertex near none that is kept, until there is none
3. ``_smooth``  vertices between branch points are averaged along their branch, so that steps of voxels do not count as
                length
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.skeletons.heap import new_heap, pop, push, with_room
from pipeline.segmentation.skeletons.rules import SkeletonRules, as_array, cost_of, reach_of

Sides = tuple[float, float, float]
WINDOW = 3
"""Vertices before and behind one, with which it is averaged."""
CELL = 16
"""Voxels along a side of the cells in which neighbours are looked for."""
STRIDE = 0.5
"""Steps along a path, in reaches, from one place whose surroundings are covered to the next."""


class _Graph(NamedTuple):
    """Vertices and their neighbours."""

    places: np.ndarray
    """float64 (n, 3): nanometres"""
    radii: np.ndarray
    """float64 (n,)"""
    firsts: np.ndarray
    """int64 (n + 1,): where the neighbours of each begin"""
    others: np.ndarray
    """int64: neighbours"""
    cells: np.ndarray
    """int64 (n, 3): the cell of each vertex"""
    order: np.ndarray
    """int64 (n,): vertices by cell"""
    keys: np.ndarray
    """int64 (n,): the cells in that order, as numbers"""
    sides: np.ndarray
    """float64 (3,): sides of a cell"""
    counts: np.ndarray
    """int64 (3,): cells along each axis"""


class _State(NamedTuple):
    """What becomes known of each vertex."""

    pieces: np.ndarray
    """int64"""
    sums: np.ndarray
    """float64: the cost of the way from the root"""
    far: np.ndarray
    """float64: its length"""
    parents: np.ndarray
    """int64"""
    kept: np.ndarray
    """int64: 1 + the number of a vertex that is kept, or 0"""
    covered: np.ndarray
    """uint8"""
    members: np.ndarray
    """int64: the vertices of the piece at hand"""


def trees(
    voxels: np.ndarray, radii_nm: np.ndarray, edges: np.ndarray, sides_nm: Sides, rules: SkeletonRules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trees of a neuron.

    Args:
        voxels: int64 (n, 3), each once, in C order.
        radii_nm: float64 (n,).
        edges: int64 (m, 2), any number of times.
        sides_nm: the sides of a voxel.
        rules: which branches are kept.

    Returns the vertices that are kept, int64 (k,), each behind its parent; the places of the parents among them, -1 for
    a root; and their smoothed positions in units of voxels, float64 (k, 3).
    """
    graph = _graph(voxels, radii_nm, edges, sides_nm)
    kept, parents = _trees(graph, min(sides_nm) ** 2, as_array(rules))
    return kept, parents, _smoothed(voxels[kept].astype(np.float64), parents)


def _graph(voxels: np.ndarray, radii_nm: np.ndarray, edges: np.ndarray, sides_nm: Sides) -> _Graph:
    n, sides = len(voxels), np.asarray(sides_nm)
    both = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    firsts = np.searchsorted(both[:, 0], np.arange(n + 1))
    cells = (voxels - voxels.min(axis=0)) // CELL
    counts = cells.max(axis=0) + 1
    keys = (cells[:, 0] * counts[1] + cells[:, 1]) * counts[2] + cells[:, 2]
    order = np.argsort(keys, kind="stable")
    others = np.ascontiguousarray(both[:, 1])
    return _Graph(voxels * sides, radii_nm, firsts, others, cells, order, keys[order], sides * CELL, counts)


@kernel
def _trees(graph, unit, rules):  # type: ignore[no-untyped-def]
    n = len(graph.radii)
    state = _State(
        np.zeros(n, np.int64),
        np.full(n, np.inf),
        np.zeros(n, np.float64),
        np.full(n, -1),
        np.zeros(n, np.int64),
        np.zeros(n, np.uint8),
        np.empty(n, np.int64),
    )
    found, parents, count = np.empty(n, np.int64), np.empty(n, np.int64), 0
    heap, piece = new_heap(), 0
    for vertex in range(n):
        if state.pieces[vertex]:
            continue
        piece += 2
        heap, size = _way(graph, state, heap, vertex, piece - 1, 0.0)
        root = _farthest(state, size)
        for at in range(size):
            state.sums[state.members[at]] = np.inf
        heap, size = _way(graph, state, heap, root, piece, unit)
        count = _keep(graph, state, size, rules, found, parents, count)
    return found[:count].copy(), parents[:count].copy()


@part
def _way(graph, state, heap, root, piece, unit):  # type: ignore[no-untyped-def]
    """The cheapest way from a root to each vertex that hangs together with it; the number of them.

    unit: as in ``cost_of``; 0 = the shortest way.
    """
    state.sums[root], state.far[root], state.parents[root] = 0.0, 0.0, -1
    push(heap, 0, 0.0, root)
    waiting, size = 1, 0
    while waiting:
        key, vertex = pop(heap, waiting)
        waiting -= 1
        if state.pieces[vertex] == piece:
            continue
        state.pieces[vertex], state.members[size] = piece, vertex
        size += 1
        for at in range(graph.firsts[vertex], graph.firsts[vertex + 1]):
            other = graph.others[at]
            if state.pieces[other] == piece:
                continue
            length = _distance(graph, vertex, other)
            total = key + (length * cost_of(graph.radii[other] ** 2, unit) if unit else length)
            if total < state.sums[other]:
                state.sums[other], state.parents[other] = total, vertex
                state.far[other] = state.far[vertex] + length
                heap = with_room(heap, waiting)
                push(heap, waiting, total, other)
                waiting += 1
    return heap, size


@part
def _farthest(state, size):  # type: ignore[no-untyped-def]
    """The member with the longest way, of several the first one."""
    best = state.members[0]
    for at in range(1, size):
        vertex = state.members[at]
        if state.far[vertex] > state.far[best] or (state.far[vertex] == state.far[best] and vertex < best):
            best = vertex
    return best


@part
def _keep(graph, state, size, rules, found, parents, count):  # type: ignore[no-untyped-def]
    """Append what is kept of the piece at hand; the number of all that are kept."""
    members = np.sort(state.members[:size])
    root = state.members[0]
    found[count], parents[count] = root, -1
    count += 1
    state.kept[root] = count
    for at in np.argsort(-state.far[members], kind="mergesort"):
        vertex = members[at]
        if state.covered[vertex] or state.kept[vertex]:
            continue
        length, here = 0, vertex
        while state.kept[here] == 0:
            state.members[length] = here
            here = state.parents[here]
            length += 1
        first, parent = count, state.kept[here] - 1
        for place in range(length - 1, -1, -1):
            found[count], parents[count] = state.members[place], parent
            parent = count
            count += 1
            state.kept[state.members[place]] = count
        _cover_path(graph, state, rules, found, first, count, here)
    return count


@part
def _cover_path(graph, state, rules, found, first, stop, end):  # type: ignore[no-untyped-def]
    """Cover what is near the new vertices from ``first`` to ``stop``, and near the one where they join the others."""
    gone = due = 0.0
    for place in range(stop - 1, first - 1, -1):
        here = found[place]
        if gone >= due or place == first:
            reach = reach_of(graph.radii[here], rules)
            _cover(graph, state, here, reach)
            gone, due = 0.0, STRIDE * reach
        if place > first:
            gone += _distance(graph, here, found[place - 1])
    _cover(graph, state, end, reach_of(graph.radii[end], rules))


@part
def _cover(graph, state, vertex, reach):  # type: ignore[no-untyped-def]
    """Cover the vertices of the same piece that are not farther away than ``reach``."""
    high, wide, far = int(reach / graph.sides[0]) + 1, int(reach / graph.sides[1]) + 1, int(reach / graph.sides[2]) + 1
    z, y, x = graph.cells[vertex, 0], graph.cells[vertex, 1], graph.cells[vertex, 2]
    for k in range(max(0, z - high), min(graph.counts[0] - 1, z + high) + 1):
        for j in range(max(0, y - wide), min(graph.counts[1] - 1, y + wide) + 1):
            row = (k * graph.counts[1] + j) * graph.counts[2]
            last = row + min(graph.counts[2] - 1, x + far)
            at = np.searchsorted(graph.keys, row + max(0, x - far))
            while at < len(graph.keys) and graph.keys[at] <= last:
                other = graph.order[at]
                at += 1
                if state.pieces[other] == state.pieces[vertex] and _distance(graph, vertex, other) <= reach:
                    state.covered[other] = 1


@part
def _distance(graph, a, b):  # type: ignore[no-untyped-def]
    """Nanometres between two vertices."""
    z = graph.places[a, 0] - graph.places[b, 0]
    y = graph.places[a, 1] - graph.places[b, 1]
    x = graph.places[a, 2] - graph.places[b, 2]
    return np.sqrt(z * z + y * y + x * x)


@kernel
def _smoothed(places, parents):  # type: ignore[no-untyped-def]
    """Each place as the mean of those around it on its branch; roots, branch points and ends stay."""
    n = len(parents)
    children = np.zeros(n, np.int64)
    for vertex in range(n):
        if parents[vertex] >= 0:
            children[parents[vertex]] += 1
    result, chain = places.copy(), np.empty(n, np.int64)
    for end in range(n):
        if children[end] == 1 or parents[end] < 0:
            continue
        length, vertex = 1, parents[end]
        chain[0] = end
        while True:
            chain[length] = vertex
            length += 1
            if parents[vertex] < 0 or children[vertex] != 1:
                break
            vertex = parents[vertex]
        for at in range(1, length - 1):
            most = min(WINDOW, at, length - 1 - at)
            for axis in range(3):
                total = 0.0
                for near in range(at - most, at + most + 1):
                    total += places[chain[near], axis]
                result[chain[at], axis] = total / (2 * most + 1)
    return result
