"""The minimum cut between two sets of supervoxels: of all ways to part them, the one through the weakest contacts.

The weight of a contact is the sum of its affinities, an integer that adds up over chunks, so the cut is exact and does
not depend on the chunking. Of several cuts of the same weight, the one nearest to the sources is taken: its side is
what the sources still reach once a flow has filled the cut, and that is the same for every largest flow.
"""

from __future__ import annotations

import numpy as np

LARGEST = 1 << 30
"""The sum of all weights, as the solver takes them: it counts in int32, and a contact is two arcs."""


def source_side(
    count: int, edges: np.ndarray, weights: np.ndarray, ties: np.ndarray, sources: np.ndarray, sinks: np.ndarray
) -> np.ndarray:
    """True for the supervoxels on the side of the sources, bool (count,).

    Args:
        count: supervoxels; all others name them by 0 .. count - 1.
        edges: int (m, 2): contacts, each pair at most once.
        weights: int64 (m,), 0 or more. Above a sum of ``LARGEST`` their last bits are dropped.
        ties: int (k, 2): pairs that stay together, unless nothing but ties joins sources and sinks; then each weighs
            as much as all contacts.
        sources: int (s,), one or more; on one side.
        sinks: int (t,), one or more, none of them a source; on the other side.
    """
    block = _blocks(count, ties)
    if np.intersect1d(block[sources], block[sinks]).size:
        total = int(weights.sum()) + 1
        edges = np.concatenate([edges, ties])
        weights = np.concatenate([weights, np.full(len(ties), total, np.int64)])
        block = np.arange(count)
    node = _nodes(block, sources, sinks)
    return _reached(node[edges], weights, int(node.max()) + 1)[node]


def _blocks(count: int, ties: np.ndarray) -> np.ndarray:
    """The number of the block of tied supervoxels that each belongs to, int (count,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(ties), np.int8)
    graph = coo_array((ones, (ties[:, 0], ties[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _nodes(block: np.ndarray, sources: np.ndarray, sinks: np.ndarray) -> np.ndarray:
    """The node of each supervoxel: 0 for the blocks with a source, 1 for those with a sink, and one for each other."""
    number = np.full(int(block.max()) + 1, -1, np.int64)
    number[block[sources]], number[block[sinks]] = 0, 1
    others = np.flatnonzero(number < 0)
    number[others] = np.arange(2, 2 + len(others))
    return number[block]


def _reached(pairs: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """True for the nodes that node 0 reaches once a largest flow to node 1 has filled the cut, bool (count,)."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    apart = pairs[:, 0] != pairs[:, 1]
    pairs, weights = pairs[apart], weights[apart]
    weights = weights >> max(0, int(weights.sum()).bit_length() - LARGEST.bit_length() + 1)
    arcs = np.concatenate([pairs, pairs[:, ::-1]])
    capacities = coo_array((np.tile(weights, 2).astype(np.int32), arcs.T), shape=(count, count)).tocsr()
    capacities = csr_array(capacities)
    left = csr_array(capacities - maximum_flow(capacities, 0, 1).flow)
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = np.zeros(count, bool)
    reached[breadth_first_order(left, 0, return_predecessors=False)] = True
    return reached
