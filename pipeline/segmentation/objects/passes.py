"""One pass over a chunk: number its basins, and find the best pass between any two that touch.

A pass is a pair of neighbouring voxels of two basins; it is as high as the lower of the two. Passes have a strict order
which does not depend on chunks: the higher first, of equal ones that with the smaller place. Both are packed into one
``rank``, uint64, larger = better.

Every pair of neighbours lies in a cube of 2 x 2 x 2 voxels, and belongs to the cube's last corner, hence to one chunk;
with 26 neighbours that may be a third voxel. Its place is n * (linear index of the corner) + (which of the n pairs of a
cube it is). A chunk reads one voxel before its core, which holds the cubes of all its voxels.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from operator import and_
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.contacts import RECENT, differing, larger
from pipeline.segmentation.hashing import grown, new_table, pair_key, place_of, slot_of
from pipeline.segmentation.objects.rules import LandscapeRules

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


@cache
def neighbours(connectivity: int) -> np.ndarray:
    """The pairs of neighbours of a cube of 2 x 2 x 2 that are not in a smaller one: int64 (3 or 13, 2, 3).

    Each of the two voxels is given by how far, z y x, it lies before the cube's last corner.
    """
    cube = list(product((0, 1), repeat=3))
    pairs = [(a, b) for a in cube for b in cube if a < b and not any(map(and_, a, b))]
    pairs.sort(key=lambda pair: (sum(map(sum, pair)), [-step for step in pair[1]]))  # first those of z, y and x
    return np.array(pairs[: connectivity // 2], np.int64)


def find_passes(
    numbers: np.ndarray,
    landscape: np.ndarray,
    seeds: np.ndarray,
    *,
    low: Vec,
    core: BoundingBox,
    bounds: BoundingBox,
    rules: LandscapeRules,
) -> Passes:
    """The best passes between the numbered basins of a core, which begins at ``low`` in three arrays of (z, y, x).

    ``landscape`` and ``seeds`` are uint8; ``seeds`` is the landscape where seeds may lie, and 0 elsewhere.
    ``ConfigError`` if the dataset has too many voxels for ranks.
    """
    steps = neighbours(rules.connectivity)
    if len(steps) * bounds.voxels > LAST_PLACE:
        raise ConfigError(
            f"the dataset {bounds} has more than {LAST_PLACE // len(steps)} voxels; take a smaller region as one"
        )
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
        steps,
        not rules.per_section,
        new_table(4096),
        new_table(RECENT),
        edges,
        scratch,
    )
    pairs = edges.pairs[:used]
    ends = np.stack([pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)], axis=1).astype(np.int64)
    return Passes(ends, edges.ranks[:used].copy(), edges.seeds[:used].copy())


@kernel
def _meet_all(numbers, landscape, seeds, low, origin, shape, steps, across_sections, table, recent, edges, scratch):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    used, n = np.zeros(1, np.int64), len(steps)
    for z in range(low[0], nz):
        for y in range(low[1], ny):
            m = used[0] + n * nx
            table = grown(table, m)
            if m > edges.pairs.size:
                edges = _Edges(larger(edges.pairs, m), larger(edges.ranks, m), larger(edges.seeds, m))
            place = n * (((z + origin[0]) * shape[1] + y + origin[1]) * shape[2] + origin[2])
            into = (recent, table, edges, used, scratch)
            for k in range(n):
                az, ay, ax = steps[k, 0, 0], steps[k, 0, 1], steps[k, 0, 2]
                bz, by, bx = steps[k, 1, 0], steps[k, 1, 1], steps[k, 1, 2]
                if max(az, bz) > z or max(ay, by) > y or (az + bz > 0 and not across_sections):
                    continue
                first = max(low[2], max(ax, bx))
                a = (z - az, y - ay, slice(first - ax, nx - ax))
                b = (z - bz, y - by, slice(first - bx, nx - bx))
                row, before = (numbers[a], landscape[a], seeds[a]), (numbers[b], landscape[b], seeds[b])
                _meet(row, before, place + n * first + k, n, into)
    return edges, used[0]


@part
def _meet(row, before, place, step, into):  # type: ignore[no-untyped-def]
    """Note the passes between two rows, each of numbers, heights and heights of seeds.

    ``place`` is that of the first pair, and the next ones follow by ``step``.
    """
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
        rank |= np.uint64(LAST_PLACE - place - step * np.int64(x))
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
