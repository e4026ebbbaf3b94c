"""The tests agglomerate and cut supervoxels chunk by chunk here, as the stages do, and by a slow reading of the rules.

The slow reading has no chunks, no numbers for regions and no heap: it looks at all contacts for the best one, again
and again.
"""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from scipy import ndimage

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.agglomeration import Linkage, NodeResult, agglomerate_node
from pipeline.segmentation.far_contacts import NEAREST, reach_of
from pipeline.segmentation.merge_tree import (
    Assignment,
    CutRules,
    NodeCut,
    assign_node,
    canonical,
    cut_node,
    fragment_clusters,
)
from pipeline.segmentation.region_graph import RegionGraph, build_region_graph
from pipeline.segmentation.remap import apply_remap

AXES = range(3)


@dataclass
class Case:
    """A region of a dataset, all supervoxels and affinities of which are known."""

    bounds: BoundingBox
    roi: BoundingBox
    supervoxels: np.ndarray
    affinities: np.ndarray
    offsets: tuple[Vec, ...] = NEAREST


@dataclass
class Outcome:
    """What a run leaves behind."""

    tree: np.ndarray
    supervoxels: np.ndarray
    segments: np.ndarray
    graphs: dict
    nodes: dict


def random_case(rng: np.random.Generator, shape, *, block, kinds, values, empty, offsets=NEAREST) -> Case:
    """Blocky supervoxels with gaps, and affinities of a few values, so that many scores are equal."""
    coarse = rng.integers(1, kinds + 1, [-(-n // block) for n in shape])
    coarse[rng.random(coarse.shape) < empty] = 0
    kind = np.kron(coarse, np.ones((block,) * 3, np.int64))[tuple(slice(0, n) for n in shape)]
    palette = np.unique(rng.integers(0, 256, values))
    start = tuple(int(v) for v in rng.integers(-3, 10, 3))
    roi = BoundingBox.from_shape(shape, start)
    bounds = roi.grow(*(tuple(int(v) for v in rng.integers(0, 4, 3)) for _ in range(2)))
    affinities = rng.choice(palette, (len(offsets), *shape)).astype(np.uint8)
    return Case(bounds, roi, named_components(kind, roi, bounds), affinities, offsets)


def named_components(kind: np.ndarray, box: BoundingBox, bounds: BoundingBox) -> np.ndarray:
    """6-connected components of equal values, named by their first voxel; 0 stays 0."""
    parts = np.zeros(kind.shape, np.int64)
    for value in np.unique(kind[kind > 0]):
        own, _ = ndimage.label(kind == value)
        parts[own > 0] = own[own > 0] + parts.max()
    return named(parts, box, bounds)


def named(parts: np.ndarray, box: BoundingBox, bounds: BoundingBox) -> np.ndarray:
    """Every part named by 1 + the linear index of its first voxel: uint64; 0 stays 0."""
    places = np.indices(parts.shape).reshape(3, -1) + (np.array(box.start) - bounds.start)[:, None]
    linear = np.ravel_multi_index(tuple(places), bounds.shape)
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    ids = (linear[first] + 1).astype(np.uint64)[inverse].reshape(parts.shape)
    return np.where(parts == 0, np.uint64(0), ids)


def cut_at_faces(case: Case, grid: ChunkGrid, *, connected: bool):
    """Fragments of the region, and the joins of each chunk; fragments are connected within their chunk if asked."""
    fragments = np.zeros(case.roi.shape, np.uint64)
    for chunk in grid:
        part = chunk.core.slices(case.roi.start)
        cut = named_components if connected else named
        fragments[part] = cut(case.supervoxels[part], chunk.core, case.bounds)
    return fragments, {chunk.index: joins_of(case, chunk) for chunk in grid}


def joins_of(case: Case, chunk: Chunk) -> np.ndarray:
    found = []
    for axis in AXES:
        if chunk.core.start[axis] == case.roi.start[axis]:
            continue
        step = tuple(int(a == axis) for a in AXES)
        face = BoundingBox(
            chunk.core.start,
            tuple(s + 1 if a == axis else t for a, s, t in zip(AXES, chunk.core.start, chunk.core.stop)),
        )
        own = case.supervoxels[face.slices(case.roi.start)]
        before = case.supervoxels[face.translate(tuple(-s for s in step)).slices(case.roi.start)]
        voxels = np.argwhere((own == before) & (own > 0)) + face.start - np.array(case.bounds.start)
        found += [(np.ravel_multi_index(tuple(v), case.bounds.shape), axis) for v in voxels]
    return np.array(found, np.int64).reshape(-1, 2)


def stored(kind, value):
    """The value out of copies of its plain arrays, as a file would give them back, but fifty times as fast."""
    arrays = value.to_arrays()
    assert not any(array.dtype.hasobject for array in arrays.values())
    return kind.from_arrays({name: array.copy() for name, array in arrays.items()})


def stored_in_file(kind, value):
    """The value, written to a file without pickle and read back."""
    file = io.BytesIO()
    np.savez(file, **value.to_arrays())
    file.seek(0)
    return kind.from_arrays(dict(np.load(file, allow_pickle=False)))


def run(case: Case, chunk_shape, linkage: Linkage, stop_score: float, rules: CutRules, *, connected=True) -> Outcome:
    """Compute segments from fragments; every product is stored and read back as plain arrays."""
    grid = ChunkGrid(case.bounds, case.roi, chunk_shape)
    fragments, joins = cut_at_faces(case, grid, connected=connected)
    return run_fragments(case, grid, fragments, joins, linkage, stop_score, rules)


def chunk_graph(case, chunk, fragments, joins, *, histograms) -> RegionGraph:
    """The region graph of one chunk, from its fragments and those of its lower neighbours that offsets reach."""
    read = chunk.core.grow(reach_of(case.offsets), (0, 0, 0)).intersect(case.roi)
    return build_region_graph(
        fragments[read.slices(case.roi.start)],
        case.affinities[:, *chunk.core.slices(case.roi.start)],
        joins[chunk.index],
        core=chunk.core,
        roi=case.roi,
        bounds=case.bounds,
        histograms=histograms,
        offsets=case.offsets,
    )


def run_fragments(case, grid, fragments, joins, linkage, stop_score, rules) -> Outcome:
    levels = grid.levels()
    graphs = {}
    for chunk in grid:
        graph = chunk_graph(case, chunk, fragments, joins, histograms=linkage.needs_histograms)
        graphs[chunk.index] = stored(RegionGraph, graph)
    nodes = agglomerate_levels(levels, graphs, case.roi, linkage, stop_score)
    remaps = cut_levels(levels, graphs, nodes, rules)
    supervoxels, segments = np.zeros_like(fragments), np.zeros_like(fragments)
    for chunk in grid:
        part, remap = chunk.core.slices(case.roi.start), remaps[chunk.index]
        supervoxels[part] = apply_remap(fragments[part], remap.fragment, remap.supervoxel)
        segments[part] = apply_remap(fragments[part], remap.fragment, remap.segment)
    tree = canonical(np.concatenate([node.merges for node in nodes.values()]))
    return Outcome(tree, supervoxels, segments, graphs, nodes)


def agglomerate_levels(levels, graphs, roi, linkage, stop_score):
    nodes = {}
    for level, grid in enumerate(levels):
        for chunk in grid:
            if level == 0:
                children = [graphs[chunk.index]]
            else:
                children = [nodes[level - 1, c.index].rest for c in levels[level - 1].children(chunk)]
            result = agglomerate_node(children[::-1], roi=roi, linkage=linkage, stop_score=stop_score)
            nodes[level, chunk.index] = stored(NodeResult, result)
    return nodes


def cut_levels(levels, graphs, nodes, rules):
    """Remaps of all chunks: up with ``cut_node``, down with ``assign_node``."""
    cuts, assigned = {}, {}
    for level, grid in enumerate(levels):
        for chunk in grid:
            if level == 0:
                children = [fragment_clusters(graphs[chunk.index])]
            else:
                children = [cuts[level - 1, c.index].up for c in levels[level - 1].children(chunk)]
            cuts[level, chunk.index] = stored(NodeCut, cut_node(nodes[level, chunk.index], children, rules))
    for level in reversed(range(len(levels))):
        for chunk in levels[level]:
            parent = assigned.get((level + 1, tuple(i // 2 for i in chunk.index)))
            assigned[level, chunk.index] = stored(Assignment, assign_node(cuts[level, chunk.index], parent))
    return {index: table for (level, index), table in assigned.items() if level == 0}


# ---------------------------------------------------------------- the slow reading


def slow_contacts(ids: np.ndarray, affinities: np.ndarray, offsets=NEAREST) -> dict[tuple[int, int], list[int]]:
    """All affinities between each pair (smaller id, larger id)."""
    contacts = defaultdict(list)
    for channel, offset in enumerate(offsets):
        for voxel in np.ndindex(ids.shape):
            before = tuple(v + o for v, o in zip(voxel, offset, strict=True))
            if min(before) < 0:
                continue
            a, b = int(ids[voxel]), int(ids[before])
            if a and b and a != b:
                contacts[min(a, b), max(a, b)].append(int(affinities[(channel, *voxel)]))
    return dict(contacts)


def slow_score(values: list[int], linkage: Linkage) -> float:
    if linkage.kind == "mean":
        return sum(values) / (255 * len(values))
    rank = max(1, ceil(Fraction(round(linkage.quantile * 10**6), 10**6) * len(values)))
    return sorted(values)[rank - 1] / 255


def slow_tree(contacts, linkage: Linkage, stop_score: float) -> list[tuple[int, int, float]]:
    """Merge the best contact of all, add parallel ones, repeat."""
    contacts = {pair: list(values) for pair, values in contacts.items()}
    merges = []
    while contacts:
        score, b, a = max((slow_score(values, linkage), pair[1], pair[0]) for pair, values in contacts.items())
        if score < stop_score:
            break
        merges.append((a, b, score))
        merged = defaultdict(list)
        for pair, values in contacts.items():
            first, second = sorted(a if i == b else i for i in pair)
            if first != second:
                merged[first, second] += values
        contacts = dict(merged)
    return merges


def slow_segments(merges, sizes: dict[int, int], rules: CutRules) -> dict[int, int]:
    """Supervoxel -> segment, by the rules of the merge tree."""
    members = {i: {i} for i in sizes}  # cluster -> its supervoxels; a cluster is named by the smallest
    represents = {i: i for i in sizes}  # region -> cluster
    size = dict(sizes)
    for a, b, score in merges:
        first, second = represents[a], represents[b]
        small = min(size[first], size[second]) < rules.min_size
        if score >= rules.threshold or (small and score >= rules.min_size_threshold):
            name, other = sorted((first, second))
            members[name] |= members.pop(other)
            size[name] += size.pop(other)
            represents[a] = name
        else:
            represents[a] = min((first, second), key=lambda c: (-size[c], c))
    return {i: name for name, inside in members.items() for i in inside}
