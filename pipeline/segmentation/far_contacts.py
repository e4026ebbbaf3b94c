"""Contacts of a chunk over affinities of any reach: also between fragments that do not touch.

A network may predict affinities of distant voxels, such as v and v - 8 e_x. Each is one more vote on whether the two
fragments at its ends are one neuron. A chunk reads its low neighbours' fragments as deep as the longest offset reaches,
and a fragment so near a high face has contacts that the chunk does not know: it is a port, as if it touched the face.
Offsets lie along one axis each, so that the neighbour across one face knows the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import ZERO, Vec
from pipeline.segmentation.compiled import kernel
from pipeline.segmentation.contacts import Contacts, Edges, Stream, larger, meet, new_tables
from pipeline.segmentation.hashing import grown
from pipeline.segmentation.numbering import number

NEAREST = (Vec(-1, 0, 0), Vec(0, -1, 0), Vec(0, 0, -1))
"""Offsets of affinities of touching voxels."""


def reach_of(offsets: Sequence[Vec]) -> Vec:
    """How far offsets lead along each axis, in voxels."""
    reach = ZERO
    for offset in offsets:
        reach = reach.maximum(abs(offset))
    return reach


def check_offsets(offsets: Sequence[Vec]) -> None:
    """``ConfigError`` unless the offsets begin with the nearest neighbours, and each leads back along one axis."""
    odd = [list(offset) for offset in offsets if sum(map(bool, offset)) != 1 or max(offset) > 0]
    if odd or tuple(offsets[:3]) != NEAREST or len(set(offsets)) < len(offsets):
        raise ConfigError(
            f"offsets are {[list(offset) for offset in offsets]}; they must begin with the nearest neighbours "
            f"{[list(offset) for offset in NEAREST]}, and each must lead back along one axis, once: leave out others"
        )


def scan_offsets(
    ids: np.ndarray, affinities: np.ndarray, offsets: Sequence[Vec], low: Vec, goes_on: np.ndarray, stream: bool
) -> Contacts:
    """Fragments of a core that begins at ``low`` in ``ids``, and their contacts over all offsets; as ``scan``.

    ``ids`` is uint64 (z, y, x); ``affinities`` uint8 (offsets, z, y, x) of the core; channel k at voxel v is the
    affinity between v and v + offsets[k]. ``goes_on`` is bool (3,): whether the dataset has voxels after the core.
    """
    numbers, fragments = number(np.ascontiguousarray(ids), low, goes_on)
    _mark_reached(numbers, reach_of(offsets), low, goes_on, fragments.faces)
    room = Edges(np.zeros(2048, np.uint64), np.zeros(2048, np.int64), np.zeros(2048, np.int64))
    listed = Stream(np.empty(0, np.int32), np.empty(0, np.uint8))
    steps = np.array([abs(offset) for offset in offsets], np.int64)
    scratch = np.empty(ids.shape[2], np.int32)
    _, edge_table, recent = new_tables()
    edges, listed, used = _meet_offsets(
        numbers, np.ascontiguousarray(affinities), steps, low, stream, edge_table, recent, room, listed, scratch
    )
    pairs = edges.pairs[: used[1]]
    ends = np.stack([pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)], axis=1).astype(np.int64)
    columns = [array[: used[1]].copy() for array in (edges.counts, edges.sums)]
    return Contacts(*fragments, ends, *columns, *(array[: used[2]].copy() for array in listed))


def _mark_reached(numbers: np.ndarray, reach: Vec, low: Vec, goes_on: np.ndarray, faces: np.ndarray) -> None:
    """Note the fragments of the core from which an offset of the next chunk may lead into this one."""
    core = numbers[low.z :, low.y :, low.x :]
    for axis in range(3):
        if goes_on[axis]:
            near = np.unique(np.moveaxis(core, axis, 0)[-reach[axis] :])
            faces[near[near >= 0]] |= np.uint8(1 << axis)


@kernel
def _meet_offsets(numbers, affinities, steps, low, stream, table, recent, edges, listed, places):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    used = np.zeros(3, np.int64)  # the first is not used here
    for z in range(low[0], nz):
        for y in range(low[1], ny):
            m, c = used[1] + len(steps) * nx, used[2] + len(steps) * nx
            table = grown(table, m)
            if m > edges.pairs.size:
                edges = Edges(larger(edges.pairs, m), larger(edges.counts, m), larger(edges.sums, m))
            if stream and c > listed.edges.size:
                listed = Stream(larger(listed.edges, c), larger(listed.values, c))
            into = (recent, table, edges, used, listed)
            for k in range(len(steps)):
                zz, yy, first = z - steps[k, 0], y - steps[k, 1], max(low[2], steps[k, 2])
                if zz < 0 or yy < 0:
                    continue
                other = numbers[zz, yy, first - steps[k, 2] : nx - steps[k, 2]]
                row = affinities[k, z - low[0], y - low[1], first - low[2] :]
                meet(numbers[z, y, first:], other, row, places, *into)
    return edges, listed, used
