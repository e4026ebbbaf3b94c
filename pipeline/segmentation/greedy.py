"""Greedy agglomeration of one graph in which some regions must wait: the kernel of ``agglomeration``.

1. ``_link``     put contacts into lists, one for each region; parallel ones are added
2. ``_rank``     score every contact; those of at least ``stop_score`` go into a heap, the best on top
3. ``_run``      take the best contact: merge its regions, or let the free one wait for the other
4. ``_absorb``   a merge: the region with fewer contacts hands them over, one by one
5. ``_remains``  collect the contacts between regions that wait

A merge can only move contacts back in the order (``agglomeration`` has the proof). So a contact keeps its old place
in the heap until it comes to the top; there it is scored again and, if it has moved, put back. Of two contacts that
become one, the earlier place is kept. Handing over the shorter list makes m log n steps at most for m contacts and n
regions.

Contact e joins the regions ``ends[2 e]`` and ``ends[2 e + 1]``, -1 when it is gone; half h is one of these two, and
the region at its other end is ``ends[h ^ 1]``. A region is a place in the arrays; ``name`` is the smallest that went
into it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.hashing import grown, new_table, pair_key, place_of
from pipeline.segmentation.histograms import Histograms, histograms_of, move, no_histograms, quantile, sorted_rows

NONE = np.int32(-1)


class Remains(NamedTuple):
    """The regions that wait for the outside after all merges, and their contacts."""

    waits: np.ndarray
    """bool (n,): regions, by name"""
    edges: np.ndarray
    """int32 (m, 2), ascending: contacts among them"""
    counts: np.ndarray
    sums: np.ndarray
    histogram: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Offsets, values and their counts; empty for the mean"""


class _Graph(NamedTuple):
    ends: np.ndarray
    following: np.ndarray
    """int32: the next half in the list of a region"""
    first: np.ndarray
    last: np.ndarray
    degree: np.ndarray
    name: np.ndarray
    waits: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    score: np.ndarray
    """float64: as it was when the contact was put into the heap, or found too low for it"""
    names: np.ndarray
    """uint64: the names of its regions at that time, the larger in the upper half"""
    histograms: Histograms


class _Heap(NamedTuple):
    contacts: np.ndarray
    size: np.ndarray
    """int64 (1,)"""


def agglomerate(
    *,
    edges: np.ndarray,
    counts: np.ndarray,
    sums: np.ndarray,
    histogram: tuple[np.ndarray, np.ndarray, np.ndarray],
    waits: np.ndarray,
    millionths: int,
    stop_score: float,
) -> tuple[np.ndarray, np.ndarray, Remains]:
    """Merge from the best contact down to ``stop_score``.

    Args:
        edges: int32 (m, 2), regions 0 .. n - 1; parallel contacts are added, loops ignored.
        counts: int64 (m,), affinities on each contact, at least 1.
        sums: int64 (m,), their sum, 0..255 each.
        histogram: offsets int64 (m + 1,), values uint8 and their counts int64; empty for the mean.
        waits: bool (n,), regions that must not merge.
        millionths: the quantile that is the score; -1 = the mean.
        stop_score: 0..1; no merge scores less.

    Returns:
        Merges as int32 (k, 2), the smaller name first, and their scores, float64 (k,), both best first; what waits.
    """
    graph, table = _new_graph(counts, sums, waits, histograms_of(len(edges), *histogram)), new_table(len(edges))
    heap = _Heap(np.empty(len(edges), np.int32), np.zeros(1, np.int64))
    pairs, scores = np.empty((len(waits), 2), np.int32), np.empty(len(waits), np.float64)
    entries = _link(np.ascontiguousarray(edges), graph, table)
    _rank(graph, heap, millionths, float(stop_score))
    merges = _run(graph, table, entries, heap, millionths, float(stop_score), pairs, scores)
    return pairs[:merges].copy(), scores[:merges].copy(), _what_waits(graph, with_histograms=len(histogram[0]) > 0)


def _new_graph(counts: np.ndarray, sums: np.ndarray, waits: np.ndarray, histograms: Histograms) -> _Graph:
    """A graph whose contacts are not linked yet."""
    n, m = len(waits), len(counts)
    return _Graph(
        ends=np.full(2 * m, NONE),
        following=np.full(2 * m, NONE),
        first=np.full(n, NONE),
        last=np.full(n, NONE),
        degree=np.zeros(n, np.int32),
        name=np.arange(n, dtype=np.int32),
        waits=waits.copy(),
        counts=counts.copy(),
        sums=sums.copy(),
        score=np.zeros(m, np.float64),
        names=np.zeros(m, np.uint64),
        histograms=histograms,
    )


def _what_waits(graph: _Graph, *, with_histograms: bool) -> Remains:
    """Regions that wait and the contacts among them, sorted."""
    waits, m = np.zeros(len(graph.name), np.bool_), len(graph.counts)
    keys, left = np.empty(m, np.int64), np.empty(m, np.int64)
    n = _remains(graph, waits, keys, left)
    order = np.argsort(keys[:n])
    keys, left = keys[:n][order], left[:n][order]
    edges = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1).astype(np.int32)
    histogram = sorted_rows(graph.histograms, left) if with_histograms else no_histograms()
    return Remains(waits, edges, graph.counts[left], graph.sums[left], histogram)


@kernel
def added_sizes(sizes, pairs):  # type: ignore[no-untyped-def]
    """Sizes by name after merges: int64 (n,)."""
    total = sizes.copy()
    for i in range(len(pairs)):
        total[pairs[i, 0]] += total[pairs[i, 1]]
    return total


@kernel
def _link(edges, graph, table):  # type: ignore[no-untyped-def]
    """Put the contacts into lists, and into a table that finds a contact by its two regions; how many there are."""
    entries = 0
    for e in range(len(edges)):
        a, b = edges[e, 0], edges[e, 1]
        if a == b:
            continue
        place = place_of(table, pair_key(a, b))
        if table.keys[place] != np.uint64(0):
            _add(graph, np.int64(table.numbers[place]), e)
            continue
        table.keys[place], table.numbers[place] = pair_key(a, b), e
        entries += 1
        _append(graph, a, 2 * e)
        _append(graph, b, 2 * e + 1)
    return entries


@part
def _append(graph, region, half):  # type: ignore[no-untyped-def]
    """Put a half at the end of a region's list."""
    graph.ends[half] = region
    graph.following[half] = NONE
    if graph.last[region] == NONE:
        graph.first[region] = half
    else:
        graph.following[graph.last[region]] = half
    graph.last[region] = half
    graph.degree[region] += 1


@part
def _add(graph, contact, other):  # type: ignore[no-untyped-def]
    """Add the count, the sum and the histogram of one contact to those of another."""
    graph.counts[contact] += graph.counts[other]
    graph.sums[contact] += graph.sums[other]
    if graph.histograms.first.size:
        move(graph.histograms, contact, other)


@part
def _score_again(graph, e, millionths):  # type: ignore[no-untyped-def]
    """Score a contact and say whether it has moved in the order."""
    a, b = graph.name[graph.ends[2 * e]], graph.name[graph.ends[2 * e + 1]]
    names = (np.uint64(max(a, b)) << np.uint64(32)) | np.uint64(min(a, b))
    if millionths < 0:
        score = np.float64(graph.sums[e]) / np.float64(255 * graph.counts[e])
    else:
        score = quantile(graph.histograms, e, graph.counts[e], millionths) / 255.0
    moved = score != graph.score[e] or names != graph.names[e]
    graph.score[e], graph.names[e] = score, names
    return moved


@part
def _before(graph, e, f):  # type: ignore[no-untyped-def]
    """True if contact e comes before f in the order of the heap."""
    if graph.score[e] != graph.score[f]:
        return graph.score[e] > graph.score[f]
    return graph.names[e] > graph.names[f]


@kernel
def _rank(graph, heap, millionths, stop_score):  # type: ignore[no-untyped-def]
    """Score all contacts, and make the heap of those that may matter."""
    for e in range(graph.counts.size):
        if graph.ends[2 * e] == NONE:
            continue
        _score_again(graph, e, millionths)
        if graph.score[e] >= stop_score and not (graph.waits[graph.ends[2 * e]] and graph.waits[graph.ends[2 * e + 1]]):
            heap.contacts[heap.size[0]] = e
            heap.size[0] += 1
    for i in range(heap.size[0] // 2 - 1, -1, -1):
        _sink(graph, heap, i)


@part
def _sink(graph, heap, i):  # type: ignore[no-untyped-def]
    """Move the contact at place i of the heap down to its right place."""
    contacts, size = heap.contacts, heap.size[0]
    e = np.int64(contacts[i])
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and _before(graph, np.int64(contacts[child + 1]), np.int64(contacts[child])):
            child += 1
        if not _before(graph, np.int64(contacts[child]), e):
            break
        contacts[i] = contacts[child]
        i = child
    contacts[i] = e


@part
def _drop_top(graph, heap):  # type: ignore[no-untyped-def]
    heap.size[0] -= 1
    heap.contacts[0] = heap.contacts[heap.size[0]]
    if heap.size[0]:
        _sink(graph, heap, np.int64(0))


@kernel
def _run(graph, table, entries, heap, millionths, stop_score, pairs, scores):  # type: ignore[no-untyped-def]
    """Visit contacts from the best down; write pairs of names that merged, and their scores, and return how many."""
    merges = 0
    while heap.size[0]:
        e = np.int64(heap.contacts[0])
        a, b = graph.ends[2 * e], graph.ends[2 * e + 1]
        if a == NONE or (graph.waits[a] and graph.waits[b]):
            _drop_top(graph, heap)
            continue
        if _score_again(graph, e, millionths):
            if graph.score[e] >= stop_score:
                _sink(graph, heap, np.int64(0))
            else:
                _drop_top(graph, heap)
            continue
        _drop_top(graph, heap)
        if graph.waits[a] or graph.waits[b]:
            graph.waits[a] = graph.waits[b] = True
            continue
        pairs[merges, 0], pairs[merges, 1] = min(graph.name[a], graph.name[b]), max(graph.name[a], graph.name[b])
        scores[merges] = graph.score[e]
        merges += 1
        kept, gone = (a, b) if graph.degree[a] >= graph.degree[b] else (b, a)
        entries += graph.degree[gone]
        table = grown(table, entries)
        _absorb(graph, table, kept, gone)
    return merges


@part
def _absorb(graph, table, kept, gone):  # type: ignore[no-untyped-def]
    """Hand all contacts of a region over to another one."""
    half = np.int64(graph.first[gone])
    while half != NONE:
        following = np.int64(graph.following[half])
        if graph.ends[half] != NONE:
            _hand_over(graph, table, half, kept)
        half = following
    graph.first[gone] = NONE
    graph.name[kept] = min(graph.name[kept], graph.name[gone])
    graph.name[gone] = NONE


@part
def _hand_over(graph, table, half, kept):  # type: ignore[no-untyped-def]
    """Give one contact to ``kept``: the contact is the merged one, a new one, or parallel to one of ``kept``."""
    e, far = half >> 1, graph.ends[half ^ 1]
    if far == kept:
        _remove(graph, e)
        return
    place = place_of(table, pair_key(kept, far))
    if table.keys[place] == np.uint64(0):
        table.keys[place], table.numbers[place] = pair_key(kept, far), e
        _append(graph, kept, half)
        return
    there = np.int64(table.numbers[place])
    if _before(graph, e, there):
        _add(graph, e, there)
        _remove(graph, there)
        table.numbers[place] = e
        _append(graph, kept, half)
    else:
        _add(graph, there, e)
        graph.ends[half] = NONE
        graph.degree[far] -= 1
        graph.ends[half ^ 1] = NONE


@part
def _remove(graph, e):  # type: ignore[no-untyped-def]
    """Take a contact out; the lists skip it."""
    for half in (2 * e, 2 * e + 1):
        graph.degree[graph.ends[half]] -= 1
        graph.ends[half] = NONE


@kernel
def _remains(graph, waits, keys, left):  # type: ignore[no-untyped-def]
    """Mark the regions that wait, list the contacts among them by their names, and return how many there are."""
    for i in range(graph.name.size):
        if graph.waits[i] and graph.name[i] != NONE:
            waits[graph.name[i]] = True
    n = 0
    for e in range(graph.counts.size):
        a, b = graph.ends[2 * e], graph.ends[2 * e + 1]
        if a != NONE and graph.waits[a] and graph.waits[b]:
            low, high = min(graph.name[a], graph.name[b]), max(graph.name[a], graph.name[b])
            keys[n], left[n] = (np.int64(low) << 32) | np.int64(high), e
            n += 1
    return n
