"""One pass over a chunk: number its basins, and find the best pass between any two that touch.

A pass is a pair of touching voxels of two basins; it is as high as the lower of the two. Passes have a strict order
which does not depend on chunks: the higher first, of equal ones that with the smaller place, 3 * (linear index of its
later voxel) + axis. Both are packed into one ``rank``, uint64, larger = better.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.contacts import RECENT, differing, larger
from pipeline.segmentation.hashing import grown, new_table, pair_key, place_of, slot_of

HEIGHT_SHIFT = np.uint64(56)
LAST_PLACE = 2**56 - 1


class Passes(NamedTuple):
    """The best pass between any two basins of a chunk that touch, in any order."""

    edges: np.ndarray
    """int64 (m, 2): numbers of two basins"""
    ranks: np.ndarray
    """uint64 (m,): of the best pass"""
    seeds: np.ndarray
    """uint8 (m,): the height of the highest pass whose two voxels lie where seeds may; 0 if there is none"""


class _Edges(NamedTuple):
    pairs: np.ndarray
    ranks: np.ndarray
    seeds: np.ndarray


def heights_of(ranks: np.ndarray) -> np.ndarray:
    """How high passes of these ranks are: uint8 (n,)."""
    return (ranks >> HEIGHT_SHIFT).astype(np.uint8)


def find_passes(
    numbers: np.ndarray,
    landscape: np.ndarray,
    seeds: np.ndarray,
    *,
    low: Vec,
    core: BoundingBox,
    bounds: BoundingBox,
    across_sections: bool,
) -> Passes:
    """The best passes between the numbered basins of a core, which begins at ``low`` in three arrays of (z, y, x).

    ``landscape`` and ``seeds`` are uint8; ``seeds`` is the landscape where seeds may lie, and 0 elsewhere.
    ``ConfigError`` if the dataset has too many voxels for ranks.
    """
    if 3 * bounds.voxels > LAST_PLACE:
        raise ConfigError(f"the dataset {bounds} has more than {LAST_PLACE // 3} voxels; take a smaller region as one")
    edges = _Edges(np.zeros(2048, np.uint64), np.zeros(2048, np.uint64), np.zeros(2048, np.uint8))
    origin = core.start - bounds.start - low
    scratch = np.empty(numbers.shape[2], np.int32)
    edges, used = _meet_all(
        numbers,
        landscape,
        seeds,
        low,
        origin,
        bounds.shape,
        across_sections,
        new_table(4096),
        new_table(RECENT),
        edges,
        scratch,
    )
    pairs = edges.pairs[:used]
    ends = np.stack([pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)], axis=1).astype(np.int64)
    return Passes(ends, edges.ranks[:used].copy(), edges.seeds[:used].copy())


@kernel
def _meet_all(numbers, landscape, seeds, low, origin, shape, across_sections, table, recent, edges, scratch):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    used, lx = np.zeros(1, np.int64), low[2]
    for z in range(low[0], nz):
        for y in range(low[1], ny):
            m = used[0] + 3 * nx
            table = grown(table, m)
            if m > edges.pairs.size:
                edges = _Edges(larger(edges.pairs, m), larger(edges.ranks, m), larger(edges.seeds, m))
            place = 3 * (((z + origin[0]) * shape[1] + y + origin[1]) * shape[2] + origin[2])
            into = (recent, table, edges, used, scratch)
            own, height, seed = numbers[z, y], landscape[z, y], seeds[z, y]
            _meet((own[1:], height[1:], seed[1:]), (own[: nx - 1], height[: nx - 1], seed[: nx - 1]), place + 5, into)
            row = (own[lx:], height[lx:], seed[lx:])
            if y:
                behind = (numbers[z, y - 1, lx:], landscape[z, y - 1, lx:], seeds[z, y - 1, lx:])
                _meet(row, behind, place + 3 * lx + 1, into)
            if z and across_sections:
                below = (numbers[z - 1, y, lx:], landscape[z - 1, y, lx:], seeds[z - 1, y, lx:])
                _meet(row, below, place + 3 * lx, into)
    return edges, used[0]


@part
def _meet(row, before, place, into):  # type: ignore[no-untyped-def]
    """Note the passes between two rows, each of numbers, heights and heights of seeds; the first place is given."""
    (own, height, seed), (other, other_height, other_seed) = row, before
    recent, table, edges, used, places = into
    for i in range(differing(own, other, places)):
        x = places[i]
        a, b = own[x], other[x]
        if (a | b) < 0:
            continue
        key = pair_key(a, b)
        slot = slot_of(recent, key)
        if recent.keys[slot] != key:
            recent.keys[slot], recent.numbers[slot] = key, _edge(key, table, edges, used)
        edge = recent.numbers[slot]
        rank = np.uint64(min(height[x], other_height[x])) << HEIGHT_SHIFT
        rank |= np.uint64(LAST_PLACE - place - 3 * np.int64(x))
        edges.ranks[edge] = max(edges.ranks[edge], rank)
        edges.seeds[edge] = max(edges.seeds[edge], min(seed[x], other_seed[x]))


@part
def _edge(key, table, edges, used):  # type: ignore[no-untyped-def]
    """The number of the edge between two basins, a new one where there is none."""
    place = place_of(table, key)
    if table.keys[place] == np.uint64(0):
        table.keys[place], table.numbers[place] = key, used[0]
        edges.pairs[used[0]] = key
        used[0] += 1
    return table.numbers[place]
