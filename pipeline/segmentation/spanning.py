"""The merges inside of segments as trees of supervoxels: which merge a contact belongs to, and what a cut would part.

1. ``joining_merges``  for every contact the merge that brought its two supervoxels together
2. ``cut_sides``       for every edge of the trees: voxels on its far side, and all contacts between its two sides
"""

from __future__ import annotations

import numpy as np

from pipeline.segmentation.compiled import kernel, part


def joining_merges(voxels: np.ndarray, merges: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replay merges, and find the one that joined each pair.

    Args:
        voxels: int64 (n,), of each supervoxel.
        merges: int64 (k, 2), best first: two supervoxels whose clusters are united. Those of one cluster are ignored.
        pairs: int64 (m, 2): the supervoxels of each contact.

    Returns:
        int64 (m,): the merge, or -1 if nothing joined the two; int64 (k, 2): voxels on both sides of each merge.
    """
    into, when = np.arange(len(voxels)), np.full(len(voxels), len(merges))
    sides = np.zeros((len(merges), 2), np.int64)
    _unite(np.ascontiguousarray(merges), into, when, np.ones(len(voxels), np.int64), voxels.copy(), sides)
    found = np.empty(len(pairs), np.int64)
    _find(np.ascontiguousarray(pairs), into, when, len(merges), found)
    return found, sides


def cut_sides(
    voxels: np.ndarray, edges: np.ndarray, pairs: np.ndarray, counts: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each edge of a forest parts, if it alone is cut.

    Args:
        voxels: int64 (n,), of each supervoxel.
        edges: int64 (k, 2), without a circle.
        pairs: int64 (m, 2): contacts between supervoxels of one tree.
        counts, sums: int64 (m,): how many affinities cross each contact, and their sum.

    Returns:
        int64 (k, 2): voxels on either side, the smaller number first; int64 (k, 2): affinities that cross the cut, and
        their sum.
    """
    n, k = len(voxels), len(edges)
    starts, around = _neighbours(n, edges)
    order, parent, depth = np.empty(n, np.int64), np.full(n, -1), np.full(n, -1)
    by = np.full(n, -1)
    _walk(starts, around, np.ascontiguousarray(edges), order, parent, depth, by)
    below = np.zeros((n, 3), np.int64)
    below[:, 0] = voxels
    _cross(np.ascontiguousarray(pairs), counts, sums, parent, depth, below)
    total = np.zeros(n, np.int64)
    _add_up(order, parent, below, total)
    found = np.zeros((k, 4), np.int64)
    used = by >= 0
    found[by[used], 0], found[by[used], 1] = below[used, 0], total[used] - below[used, 0]
    found[by[used], 2:] = below[used, 1:]
    return np.sort(found[:, :2], axis=1), found[:, 2:]


def _neighbours(n: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges of every node: those of node i are ``around[starts[i] : starts[i + 1]]``."""
    ends = edges.T.reshape(-1)
    order = np.argsort(ends, kind="stable")
    starts = np.searchsorted(ends[order], np.arange(n + 1))
    return starts, order % max(len(edges), 1)


@kernel
def _unite(merges, into, when, sizes, voxels, sides):  # type: ignore[no-untyped-def]
    """Unite by size and without shortening paths, so that a path tells when each step was made."""
    for i in range(len(merges)):
        a, b = _top(into, merges[i, 0]), _top(into, merges[i, 1])
        sides[i, 0], sides[i, 1] = voxels[a], voxels[b]
        if a == b:
            continue
        if sizes[a] < sizes[b]:
            a, b = b, a
        into[b], when[b] = a, i
        sizes[a] += sizes[b]
        voxels[a] += voxels[b]


@part
def _top(into, i):  # type: ignore[no-untyped-def]
    while into[i] != i:
        i = into[i]
    return i


@kernel
def _find(pairs, into, when, never, found):  # type: ignore[no-untyped-def]
    for i in range(len(pairs)):
        a, b, last = pairs[i, 0], pairs[i, 1], -1
        while a != b:
            if when[a] > when[b]:
                a, b = b, a
            last = when[a]
            if last == never:
                last = -1
                break
            a = into[a]
        found[i] = last


@kernel
def _walk(starts, around, edges, order, parent, depth, by):  # type: ignore[no-untyped-def]
    """Breadth first from the first node of every tree."""
    filled = 0
    for root in range(len(depth)):
        if depth[root] >= 0:
            continue
        depth[root], order[filled] = 0, root
        begin, filled = filled, filled + 1
        while begin < filled:
            node = order[begin]
            begin += 1
            for place in range(starts[node], starts[node + 1]):
                edge = around[place]
                other = edges[edge, 0] + edges[edge, 1] - node
                if depth[other] < 0:
                    depth[other], parent[other], by[other] = depth[node] + 1, node, edge
                    order[filled] = other
                    filled += 1


@kernel
def _cross(pairs, counts, sums, parent, depth, below):  # type: ignore[no-untyped-def]
    """Add each contact at both of its ends, and take it away twice where their paths meet."""
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        for end in (a, b):
            below[end, 1] += counts[i]
            below[end, 2] += sums[i]
        while a != b:
            if depth[a] < depth[b]:
                a, b = b, a
            if parent[a] < 0:
                break
            a = parent[a]
        below[a, 1] -= 2 * counts[i]
        below[a, 2] -= 2 * sums[i]


@kernel
def _add_up(order, parent, below, total):  # type: ignore[no-untyped-def]
    """Sums over subtrees, from the leaves up; then the voxels of the whole tree at every node."""
    for i in range(len(order) - 1, -1, -1):
        node = order[i]
        if parent[node] >= 0:
            below[parent[node]] += below[node]
    for i in range(len(order)):
        node = order[i]
        total[node] = below[node, 0] if parent[node] < 0 else total[parent[node]]
