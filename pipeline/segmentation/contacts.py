"""One pass over a chunk: number its fragments, measure them, and collect the affinities on their contacts.

Plane by plane, fragments get small numbers in the order in which they are met (most voxels copy the number of a
neighbour with the same id, so the table of ids is rarely searched). Then rows of numbers are compared along the three
axes; where they differ, the affinity is added to the edge between the two, which is mostly among those met last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.geometry import Vec
from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.hashing import Table, grown, new_table, pair_key, place_of, slot_of

OUTSIDE = 8
"""The bit of ``faces`` that is set if the fragment was seen before the core."""

RECENT = 8192
"""How many of the edges met last are kept in a small table, which fits into fast memory; the large table does not."""


class Contacts(NamedTuple):
    """The result of a pass over a chunk. Fragments and edges are numbered in the order in which they are met."""

    ids: np.ndarray
    """uint64 (n,)"""
    sizes: np.ndarray
    """int64 (n,): voxels in the core"""
    faces: np.ndarray
    """uint8 (n,): bit k = on the last plane of axis k, if the dataset goes on there; ``OUTSIDE``"""
    edges: np.ndarray
    """int64 (m, 2): numbers of two fragments"""
    counts: np.ndarray
    """int64 (m,)"""
    sums: np.ndarray
    """int64 (m,)"""
    stream_edges: np.ndarray
    """int32 (c,): the edge of every affinity, or empty"""
    stream_values: np.ndarray
    """uint8 (c,): its value"""


class Fragments(NamedTuple):
    """What is known of fragments, by number."""

    ids: np.ndarray
    sizes: np.ndarray
    faces: np.ndarray


class Edges(NamedTuple):
    """Edges of a scan that goes on, as keys of pairs of numbers, with room for more."""

    pairs: np.ndarray
    counts: np.ndarray
    sums: np.ndarray


class Stream(NamedTuple):
    """Affinities that are listed one by one, with room for more."""

    edges: np.ndarray
    values: np.ndarray


class _Tables(NamedTuple):
    fragments: Table
    edges: Table
    recent: Table


class _Rows(NamedTuple):
    below: np.ndarray
    """int32 (y, x): numbers of the plane before"""
    own: np.ndarray
    no_ids: np.ndarray
    """uint64 (x,): zeros, in place of a row before the first"""
    no_numbers: np.ndarray
    places: np.ndarray
    """int32 (x,): scratch"""


def scan(ids: np.ndarray, affinities: np.ndarray, low: Vec, goes_on: np.ndarray, stream: bool) -> Contacts:
    """Fragments and contacts of a core that begins at ``low`` (0 or 1 per axis) in ``ids``.

    ``ids`` is uint64 (z, y, x), ``affinities`` uint8 (3, z, y, x) of the core, both C-contiguous; ``goes_on`` is bool
    (3,): whether the dataset has voxels after the core. With ``stream``, every affinity on a contact is listed.
    """
    fragments, edges, listed, used = _scan(
        ids, affinities, low, goes_on, stream, new_tables(), *_new_lists(), _rows(ids)
    )
    fragments, edges, listed = (
        column._make(array[:n].copy() for array in column)
        for column, n in zip((fragments, edges, listed), used, strict=True)
    )
    pairs = np.stack([edges.pairs >> np.uint64(32), edges.pairs & np.uint64(2**32 - 1)], axis=1).astype(np.int64)
    columns = (*fragments, pairs, edges.counts, edges.sums, *listed)
    return Contacts._make(columns)


def new_tables() -> _Tables:
    """Empty tables of fragments, edges and the edges met last."""
    return _Tables(new_table(1024), new_table(4096), new_table(RECENT))


def _new_lists() -> tuple[Fragments, Edges, Stream]:
    """Room for a few; ``_scan`` makes more."""
    fragments = Fragments(np.zeros(512, np.uint64), np.zeros(512, np.int64), np.zeros(512, np.uint8))
    edges = Edges(np.zeros(2048, np.uint64), np.zeros(2048, np.int64), np.zeros(2048, np.int64))
    return fragments, edges, Stream(np.empty(0, np.int32), np.empty(0, np.uint8))


def _rows(ids: np.ndarray) -> _Rows:
    ny, nx = ids.shape[1:]
    return _Rows(
        below=np.full((ny, nx), -1, np.int32),
        own=np.full((ny, nx), -1, np.int32),
        no_ids=np.zeros(nx, np.uint64),
        no_numbers=np.full(nx, -1, np.int32),
        places=np.empty(nx, np.int32),
    )


def histograms(contacts: Contacts, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, values and their counts for the edges in ``order`` (int64 (m,)), as ``RegionGraph`` keeps them."""
    return counted(contacts.stream_edges, contacts.stream_values, contacts.counts, order)


def counted(
    groups: np.ndarray, values: np.ndarray, lengths: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which values occur in each group, ascending, and how often: offsets int64 (m + 1,), values, counts int64.

    Item i has ``values[i]``, uint8, and is of group ``groups[i]``, int32, -1 = of none. Group g has ``lengths[g]``
    items. The m groups of ``order``, int64, are listed; no other has items.
    """
    place = np.empty(len(lengths), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    starts = np.zeros(len(order) + 1, np.int64)
    np.cumsum(lengths[order], out=starts[1:])
    grouped = np.empty(starts[-1], np.uint8)
    _group(groups, values, place, starts[:-1].copy(), grouped)
    offsets, histogram = np.zeros(len(starts), np.int64), np.zeros(256, np.int64)
    found, counts = np.empty(len(grouped), np.uint8), np.empty(len(grouped), np.int64)
    n = _count(grouped, starts, histogram, offsets, found, counts)
    return offsets, found[:n].copy(), counts[:n].copy()


@kernel
def _scan(ids, affinities, low, goes_on, stream, tables, fragments, edges, listed, rows):  # type: ignore[no-untyped-def]
    nz, ny, nx = ids.shape
    lz, ly, lx = low
    table, edge_table, recent = tables
    below, own, no_ids, no_numbers, places = rows
    used = np.zeros(3, np.int64)  # fragments, edges, streamed affinities
    for z in range(nz):
        below, own = own, below
        for y in range(ny):
            table, edge_table = grown(table, used[0] + nx), grown(edge_table, used[1] + 3 * nx)
            n, m, c = used[0] + nx, used[1] + 3 * nx, used[2] + 3 * nx
            if n > fragments.ids.size:
                fragments = Fragments(larger(fragments.ids, n), larger(fragments.sizes, n), larger(fragments.faces, n))
            if m > edges.pairs.size:
                edges = Edges(larger(edges.pairs, m), larger(edges.counts, m), larger(edges.sums, m))
            if stream and c > listed.edges.size:
                listed = Stream(larger(listed.edges, c), larger(listed.values, c))
            behind, behind_numbers = (ids[z, y - 1], own[y - 1]) if y else (no_ids, no_numbers)
            under = ids[z - 1, y] if z else no_ids
            number_row(ids[z, y], behind, behind_numbers, under, below[y], table, fragments, used, own[y])
            if z < lz or y < ly:
                mark(own[y], np.uint8(OUTSIDE), fragments.faces)
                if z < lz and y < ly:
                    continue
            else:
                measure(own[y], lx, z == nz - 1 and goes_on[0], y == ny - 1 and goes_on[1], goes_on[2], fragments)
                row, zz, yy = own[y, lx:], z - lz, y - ly
                into = (recent, edge_table, edges, used, listed)
                meet(own[y, 1:], own[y, : nx - 1], affinities[2, zz, yy, 1 - lx :], places, *into)
                if y:
                    meet(row, own[y - 1, lx:], affinities[1, zz, yy], places, *into)
                if z:
                    meet(row, below[y, lx:], affinities[0, zz, yy], places, *into)
    return fragments, edges, listed, used


@part
def number_row(row, behind, behind_numbers, under, under_numbers, table, fragments, used, numbers):  # type: ignore[no-untyped-def]
    """Small numbers of a row of ids, -1 for id 0; from a neighbour with the same id if there is one."""
    last, number = np.uint64(0), np.int32(-1)
    for x in range(row.size):
        if row[x] != last:
            last = row[x]
            if last == np.uint64(0):
                number = np.int32(-1)
            elif behind[x] == last:
                number = behind_numbers[x]
            elif under[x] == last:
                number = under_numbers[x]
            else:
                number = _number(last, table, fragments, used)
        numbers[x] = number


@part
def _number(name, table, fragments, used):  # type: ignore[no-untyped-def]
    place = place_of(table, name)
    if table.keys[place] == np.uint64(0):
        table.keys[place] = name
        table.numbers[place] = used[0]
        fragments.ids[used[0]] = name
        used[0] += 1
    return table.numbers[place]


@part
def mark(numbers, bit, faces):  # type: ignore[no-untyped-def]
    """Set a bit for every fragment of a row."""
    for x in range(numbers.size):
        if numbers[x] >= 0:
            faces[numbers[x]] |= bit


@part
def measure(numbers, low, last_z, last_y, goes_on_x, fragments):  # type: ignore[no-untyped-def]
    """Add a row to the sizes of its fragments, run by run, and note those on the faces."""
    nx = numbers.size
    if last_z:
        mark(numbers[low:], np.uint8(1), fragments.faces)
    if last_y:
        mark(numbers[low:], np.uint8(2), fragments.faces)
    if goes_on_x:
        mark(numbers[nx - 1 :], np.uint8(4), fragments.faces)
    mark(numbers[:low], np.uint8(OUTSIDE), fragments.faces)
    begin = low
    for x in range(low + 1, nx + 1):
        if x == nx or numbers[x] != numbers[begin]:
            if numbers[begin] >= 0:
                fragments.sizes[numbers[begin]] += x - begin
            begin = x


@part
def meet(own, other, values, places, recent, table, edges, used, listed):  # type: ignore[no-untyped-def]
    """Add the affinities between two rows to the edges of the fragments that differ."""
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
        edges.counts[edge] += 1
        edges.sums[edge] += values[x]
        if listed.edges.size:
            listed.edges[used[2]] = edge
            listed.values[used[2]] = values[x]
            used[2] += 1


@part
def differing(own, other, places):  # type: ignore[no-untyped-def]
    """How many places of two rows differ, and which. There is no branch, since the processor could not predict it."""
    n = 0
    for x in range(own.size):
        places[n] = x
        n += own[x] != other[x]
    return n


@part
def _edge(key, table, edges, used):  # type: ignore[no-untyped-def]
    place = place_of(table, key)
    if table.keys[place] == np.uint64(0):
        table.keys[place] = key
        table.numbers[place] = used[1]
        edges.pairs[used[1]] = key
        used[1] += 1
    return table.numbers[place]


@kernel
def _group(stream_edges, stream_values, place, starts, grouped):  # type: ignore[no-untyped-def]
    """Write the streamed values edge by edge; ``starts`` is used up."""
    for i in range(stream_edges.size):
        if stream_edges[i] < 0:
            continue
        edge = place[stream_edges[i]]
        grouped[starts[edge]] = stream_values[i]
        starts[edge] += 1


@kernel
def _count(grouped, starts, histogram, offsets, values, counts):  # type: ignore[no-untyped-def]
    """Write the values of each group that occur, ascending, and how often; return how many there are in all."""
    n = 0
    for edge in range(starts.size - 1):
        for i in range(starts[edge], starts[edge + 1]):
            histogram[grouped[i]] += 1
        for value in range(256):
            if histogram[value]:
                values[n], counts[n], histogram[value] = value, histogram[value], 0
                n += 1
        offsets[edge + 1] = n
    return n


@part
def larger(array, n):  # type: ignore[no-untyped-def]
    """A copy with room for twice ``n`` values; zeros follow those of the array."""
    larger = np.zeros(2 * n, array.dtype)
    for i in range(array.size):
        larger[i] = array[i]
    return larger
