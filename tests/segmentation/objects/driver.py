"""The tests compute objects chunk by chunk here, as the stages do, and by a slow reading of the rules.

The slow reading has no chunks and no basins: it goes through all pairs of neighbouring voxels, the best first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.segmentation.merge_tree import Assignment
from pipeline.segmentation.objects.basin_graph import BasinGraph, build_basin_graph
from pipeline.segmentation.objects.landscape import extract_basins
from pipeline.segmentation.objects.object_graph import chunk_objects
from pipeline.segmentation.objects.passes import neighbours
from pipeline.segmentation.objects.rules import KEEP, LandscapeRules, ObjectRules
from pipeline.segmentation.objects.union import NodeUnion, assign_node, unite, write_objects
from tests.segmentation.distributed import stored


@dataclass
class Case:
    """A landscape in the region of interest of a dataset."""

    bounds: BoundingBox
    roi: BoundingBox
    landscape: np.ndarray
    within: np.ndarray | None
    seeds_within: np.ndarray | None
    rules: LandscapeRules


@dataclass
class Outcome:
    """What a run leaves behind; the table is (label, voxels), in order of labels."""

    labels: np.ndarray
    objects: np.ndarray
    graphs: dict
    unions: dict


def random_case(rng: np.random.Generator, shape, *, kind, within, seeds_within, rules=None) -> Case:
    """A landscape of few levels, a smooth one, or one of distinct heights, at a random place of a dataset."""
    roi = BoundingBox.from_shape(shape, tuple(rng.integers(-3, 10, 3).tolist()))
    bounds = roi.grow(*(tuple(rng.integers(0, 4, 3).tolist()) for _ in range(2)))
    wheres = [None if share is None else rng.random(shape) < share for share in (within, seeds_within)]
    return Case(bounds, roi, random_landscape(rng, shape, kind), *wheres, rules or LandscapeRules())


def random_landscape(rng: np.random.Generator, shape, kind: str) -> np.ndarray:
    """uint8; ``distinct`` needs at most 255 voxels."""
    if kind == "distinct":
        return (rng.permutation(255)[: np.prod(shape)] + 1).astype(np.uint8).reshape(shape)
    if kind == "few":
        return rng.choice([0, 40, 80, 120, 255], shape).astype(np.uint8)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    return np.clip(128 + 90 * field / max(field.std(), 1e-9), 0, 255).astype(np.uint8)


def run(case: Case, chunk_shape, rules: ObjectRules) -> Outcome:
    """Compute labels chunk by chunk; every product is stored and read back as plain arrays."""
    levels = ChunkGrid(case.bounds, case.roi, chunk_shape, case.rules.halo()).levels()
    fragments, joins = cut(case, levels[0])
    graphs = {chunk.index: graph_of(case, chunk, fragments, joins[chunk.index]) for chunk in levels[0]}
    unions = unite_levels(case, levels, graphs, rules)
    labels = np.zeros_like(fragments)
    for chunk, table in assign_levels(levels, unions).items():
        part = chunk.core.slices(case.roi.start)
        labels[part] = write_objects(fragments[part], case.landscape[part], table.fragment, table.segment, rules.mask)
    table = np.concatenate([np.stack([u.objects, u.voxels.astype(np.uint64)], axis=1) for u in unions.values()])
    return Outcome(labels, table[np.argsort(table[:, 0])], graphs, unions)


def part_of(case: Case, box: BoundingBox) -> list:
    """Landscape, mask and places of seeds in a box."""
    slices = box.slices(case.roi.start)
    return [None if a is None else a[slices] for a in (case.landscape, case.within, case.seeds_within)]


def cut(case: Case, grid: ChunkGrid):
    """The fragments of the region, and the joins of each chunk."""
    fragments, joins = np.zeros(case.roi.shape, np.uint64), {}
    for chunk in grid:
        boxes = {"core": chunk.core, "roi": case.roi, "bounds": case.bounds}
        found = extract_basins(*part_of(case, chunk.read_box), read_box=chunk.read_box, rules=case.rules, **boxes)
        fragments[chunk.core.slices(case.roi.start)], joins[chunk.index] = found.ids, found.joins
    return fragments, joins


def graph_of(case: Case, chunk, fragments, joins) -> BasinGraph:
    box = chunk.core.grow(*case.rules.context()).intersect(case.roi)
    landscape, _, seeds_within = part_of(case, box)
    boxes = {"core": chunk.core, "roi": case.roi, "bounds": case.bounds}
    ids = fragments[box.slices(case.roi.start)]
    return stored(BasinGraph, build_basin_graph(ids, landscape, seeds_within, joins, rules=case.rules, **boxes))


def unite_levels(case: Case, levels, graphs, rules) -> dict:
    unions = {}
    for level, grid in enumerate(levels):
        for chunk in grid:
            if level == 0:
                children = [chunk_objects(graphs[chunk.index], rules)]
            else:
                children = [unions[level - 1, c.index].up for c in levels[level - 1].children(chunk)]
            unions[level, chunk.index] = stored(NodeUnion, unite(children[::-1], roi=case.roi, rules=rules))
    return unions


def assign_levels(levels, unions) -> dict:
    """The tables of all chunks."""
    assigned = {}
    for level in reversed(range(len(levels))):
        for chunk in levels[level]:
            parent = assigned.get((level + 1, tuple(i // 2 for i in chunk.index)))
            assigned[level, chunk.index] = stored(Assignment, assign_node(unions[level, chunk.index], parent))
    return {chunk: assigned[0, chunk.index] for chunk in levels[0]}


# ---------------------------------------------------------------- the slow reading


def steps_of(case: Case) -> list[tuple[int, int, int]]:
    return [tuple(int(a == axis) for a in range(3)) for axis in case.rules.axes]


def slow_pointers(case: Case, inside: np.ndarray) -> dict:
    """Voxel -> the highest of itself and its neighbours, of equal ones the first; by the definition."""
    found = {}
    for voxel in map(tuple, np.argwhere(inside)):
        around = [voxel, *(tuple(np.add(voxel, np.multiply(s, d))) for s in steps_of(case) for d in (-1, 1))]
        own = case.seeds_within is not None and case.seeds_within[voxel]
        around = [
            v
            for v in around
            if all(0 <= i < n for i, n in zip(v, inside.shape)) and inside[v] and (not own or case.seeds_within[v])
        ]
        found[voxel] = min(around, key=lambda v: (-int(case.landscape[v]), v))
    return found


def slow_seeds(case: Case, inside: np.ndarray, rules: ObjectRules) -> np.ndarray:
    """Connected seeds, numbered from 1, small ones too: int (z, y, x)."""
    seeds = inside & (case.landscape > rules.seed)
    if case.seeds_within is not None:
        seeds = seeds & case.seeds_within
    return components(case, seeds)


def components(case: Case, where: np.ndarray) -> np.ndarray:
    """Connected components of neighbours: int (z, y, x)."""
    structure = ndimage.generate_binary_structure(3, {6: 1, 26: 3}[case.rules.connectivity])
    if case.rules.per_section:
        structure[[0, 2]] = False
    return ndimage.label(where, structure)[0]


def inside_of(case: Case, threshold: int) -> np.ndarray:
    inside = case.landscape > threshold
    return inside if case.within is None else inside & case.within


class Pieces:
    """Sets of voxels, some of which hold a seed."""

    def __init__(self, inside: np.ndarray) -> None:
        self.parent = {tuple(v): tuple(v) for v in np.argwhere(inside).tolist()}
        self.seeded: dict = {}

    def root(self, voxel):
        while self.parent[voxel] != voxel:
            voxel = self.parent[voxel]
        return voxel

    def unite(self, one, other) -> None:
        a, b = sorted((self.root(one), self.root(other)))
        if a != b and not (self.seeded.get(a) and self.seeded.get(b)):
            self.parent[b] = a
            self.seeded[a] = self.seeded.get(a) or self.seeded.get(b)


def slow_objects(case: Case, rules: ObjectRules) -> np.ndarray:
    """Labels by the definition: seeds, then all pairs of neighbours, the best first, pointers before other pairs."""
    inside = inside_of(case, case.rules.floor)
    pieces, seeds = Pieces(inside), slow_seeds(case, inside, rules)
    for number in range(1, seeds.max() + 1):
        voxels = list(map(tuple, np.argwhere(seeds == number).tolist()))
        for voxel in voxels[1:]:
            pieces.unite(voxels[0], voxel)
        pieces.seeded[pieces.root(voxels[0])] = len(voxels) >= rules.least_seed
    pointers = slow_pointers(case, inside)
    for _, _, one, other in slow_order(case, inside, pointers, rules):
        pieces.unite(one, other)
    roots = {voxel: pieces.root(voxel) for voxel in pieces.parent}
    return slow_labels(case, roots, pieces.seeded, rules)


def pairs_of(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """How far the voxels of each pair of neighbours lie before the last corner of their cube, in the order of ties."""
    axes = [(np.zeros(3, int), np.eye(3, dtype=int)[axis]) for axis in range(3)]
    pairs = axes if case.rules.connectivity == 6 else [tuple(pair) for pair in neighbours(26)]
    return [(one, other) for one, other in pairs]


def slow_order(case: Case, inside, pointers, rules) -> list:
    """Pairs of neighbours above the mask, the best first; then the pointers below it, which only name objects."""
    order = []
    for number, (one_step, other_step) in enumerate(pairs_of(case)):
        if case.rules.per_section and (one_step[0] or other_step[0]):
            continue
        for corner in np.ndindex(*inside.shape):
            one, other = (tuple((np.array(corner) - step).tolist()) for step in (one_step, other_step))
            if min(*one, *other) < 0 or not (inside[one] and inside[other]):
                continue
            height = int(min(case.landscape[one], case.landscape[other]))
            points = pointers[one] == other or pointers[other] == one
            if height > rules.mask or points:
                order.append(((-height, not points), (corner, number), one, other))
    return sorted(order)


def slow_labels(case: Case, roots: dict, seeded: dict, rules: ObjectRules) -> np.ndarray:
    labels, sizes = np.zeros(case.landscape.shape, np.uint64), {}
    for voxel, root in roots.items():
        sizes[root] = sizes.get(root, 0) + int(case.landscape[voxel] > rules.mask)
    shift = np.subtract(case.roi.start, case.bounds.start)
    for voxel, root in roots.items():
        kept = sizes[root] >= max(1, rules.min_size) and (seeded.get(root) or rules.seedless == KEEP)
        if kept and case.landscape[voxel] > rules.mask:
            labels[voxel] = np.ravel_multi_index(np.add(root, shift), case.bounds.shape) + 1
    return labels
