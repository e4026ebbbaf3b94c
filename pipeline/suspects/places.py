"""Where to look: of every chosen contact the voxel face nearest to its centre.

Only chunks whose region graph has one of these contacts are read, and only fragments: no more than one chunk and the
faces of the chosen contacts are in memory.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.geometry import Vec
from pipeline.grid import Chunk
from pipeline.runs.run import Run
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.segmentation.remap import apply_remap
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.suspects.tables import Tables


def find_places(tables: Tables, pairs: np.ndarray) -> np.ndarray:
    """For pairs of touching supervoxels, uint64 (n, 2), the smaller id first, a voxel each: int64 (n, 3), z y x.

    A voxel stands for its faces with the low neighbours; of those of a contact, the one nearest to their mean is taken,
    and of equally near ones the first in C order.
    """
    if not len(pairs):
        return np.zeros((0, 3), np.int64)
    wanted, back = np.unique(pairs, axis=0, return_inverse=True)
    found = [_faces(tables, chunk, wanted) for chunk in tables.chunks()]
    number, voxels = (np.concatenate([part[column] for part in found]) for column in range(2))
    order = np.lexsort((*voxels.T[::-1], number))
    number, voxels = number[order], voxels[order]
    starts = np.searchsorted(number, np.arange(len(wanted) + 1))
    places = [_middle(voxels[a:b]) for a, b in pairwise(starts)]
    return np.array(places, np.int64).reshape(-1, 3)[back.ravel()]


def _middle(voxels: np.ndarray) -> np.ndarray:
    """Of voxels (n, 3) in C order the one nearest to their mean; all distances are those of whole numbers."""
    away = (voxels * len(voxels) - voxels.sum(axis=0)).astype(np.float64)
    return np.asarray(voxels[np.argmin((away**2).sum(axis=1))])


def _faces(tables: Tables, chunk: Chunk, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The faces of a chunk between wanted pairs: number of the pair, int64 (n,), and voxel, int64 (n, 3)."""
    nothing = np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
    stage, table = _graph_stage(tables.run), tables.assignment(chunk)
    graph = stage.graph(chunk)
    names = table.supervoxel[np.searchsorted(table.fragment, graph.regions)]
    if not (numbers_of(names[graph.edges], wanted) >= 0).any():
        return nothing
    (grown,) = stage.grids()
    box = grown.chunk(chunk.index).read_box
    fragments = tables.run.layout.read("fragments", box)
    known = np.isin(fragments, table.fragment)
    ids = apply_remap(np.where(known, fragments, np.uint64(0)), table.fragment, table.supervoxel)
    parts = [_along(ids, offset, chunk.core.start - box.start, wanted) for offset in (*NEAREST, *stage.affinities.far)]
    number, voxels = (np.concatenate([part[column] for part in parts]) for column in range(2))
    return number, voxels + np.array(box.start)


def _along(ids: np.ndarray, offset: Vec, low: Vec, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of the core whose neighbour at an offset is the other one of a wanted pair."""
    first = tuple(slice(max(-step, before), None) for step, before in zip(offset, low, strict=True))
    other = tuple(
        slice(part.start + step, size + step) for part, step, size in zip(first, offset, ids.shape, strict=True)
    )
    own, partner = ids[first], ids[other]
    apart = np.flatnonzero((own != partner) & (own > 0) & (partner > 0))
    number = numbers_of(np.stack([own.ravel()[apart], partner.ravel()[apart]], axis=1), wanted)
    voxels = np.stack(np.unravel_index(apart[number >= 0], own.shape), axis=1) + [part.start for part in first]
    return number[number >= 0], voxels.astype(np.int64)


def numbers_of(pairs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each pair among the wanted ones, which are in order; -1 for others."""
    ids = np.unique(wanted)
    rows = np.searchsorted(ids, wanted) @ np.array([len(ids), 1])
    places = np.searchsorted(ids, np.sort(pairs, axis=1))
    known = (ids[np.minimum(places, len(ids) - 1)] == np.sort(pairs, axis=1)).all(axis=1)
    keys = places @ np.array([len(ids), 1])
    found = np.minimum(np.searchsorted(rows, keys), len(rows) - 1)
    return np.where(known & (rows[found] == keys), found, -1)


def _graph_stage(run: Run) -> BuildRegionGraph:
    stage = run.stage(BuildRegionGraph.name)
    assert isinstance(stage, BuildRegionGraph)
    return stage
