"""Compile every kernel before it is needed: a tiny volume goes through all of them.

    python -m pipeline.segmentation.warm_up

numba keeps the machine code beside the source or, where that is read-only, in the user's cache; the environment
variable NUMBA_CACHE_DIR names another place. So an installation compiles once, and a container image when it is built.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.agglomeration import Linkage, agglomerate_node
from pipeline.segmentation.faces import count_faces
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.segmentation.merge_tree import CutRules, assign_node, cut_node, fragment_clusters
from pipeline.segmentation.objects import union as objects
from pipeline.segmentation.objects.basin_graph import build_basin_graph
from pipeline.segmentation.objects.landscape import extract_basins
from pipeline.segmentation.objects.object_graph import chunk_objects
from pipeline.segmentation.objects.rules import LandscapeRules, ObjectRules
from pipeline.segmentation.objects.union import unite, write_objects
from pipeline.segmentation.pyramid import majority, mean
from pipeline.segmentation.region_graph import build_region_graph
from pipeline.segmentation.remap import apply_remap
from pipeline.segmentation.skeletons.block_paths import block_paths
from pipeline.segmentation.skeletons.distances import squared_distances
from pipeline.segmentation.skeletons.rules import SkeletonRules
from pipeline.segmentation.skeletons.trees import trees
from pipeline.segmentation.spanning import cut_sides, joining_merges
from pipeline.segmentation.supervoxels import default_rules, extract_supervoxels

SIDE = 12
"""Voxels along each side of the tiny volume."""
LINKAGES = (Linkage("mean", 0.5), Linkage("quantile", 0.5))


def warm_up() -> None:
    """Run, and so compile, every kernel with arrays of the types that stages give it."""
    box = BoundingBox.from_shape((SIDE, SIDE, SIDE))
    affinities = np.random.default_rng(0).integers(0, 256, (3, *box.shape)).astype(np.uint8)
    for linkage in LINKAGES:
        _segment(affinities, box, linkage)
    far = np.concatenate([affinities, affinities[:1]])
    ids, joins = np.full(box.shape, 1, np.uint64), np.empty((0, 2), np.int64)
    build_region_graph(ids, far, joins, core=box, roi=box, bounds=box, offsets=(*NEAREST, Vec(-2, 0, 0)))
    _find_objects(affinities[0], affinities[1] > 0, box)
    for labels in (ids, affinities[0]):
        majority(labels, Vec(2, 2, 2), box.start)
    mean(affinities, Vec(2, 2, 2), box.start)
    count_faces(ids, box.shape, np.ones(3, bool))
    voxels, pair = np.ones(2, np.int64), np.array([[0, 1]])
    joining_merges(voxels, pair, pair)
    cut_sides(voxels, pair, pair, voxels[:1], voxels[:1])
    _skeletonize(ids.astype(np.int32))


def _segment(affinities: np.ndarray, box: BoundingBox, linkage: Linkage) -> np.ndarray:
    """The segments of a box: uint64 (z, y, x)."""
    boxes = {"core": box, "roi": box, "bounds": box}
    cut = extract_supervoxels(affinities, None, read_box=box, rules=default_rules(Vec(8, 8, 8)), **boxes)
    graph = build_region_graph(
        cut.ids, affinities, cut.joins, core=box, roi=box, bounds=box, histograms=linkage.needs_histograms
    )
    node = agglomerate_node([graph], roi=box, linkage=linkage, stop_score=0.1)
    rules = CutRules(threshold=0.5, min_size=0, min_size_threshold=0.0)
    table = assign_node(cut_node(node, [fragment_clusters(graph)], rules))
    return apply_remap(cut.ids, table.fragment, table.segment)


def _skeletonize(numbers: np.ndarray) -> None:
    """The tree of a block that has one label."""
    sides, rules = (8.0, 8.0, 8.0), SkeletonRules(1.5, 8.0)
    squares = np.minimum(squared_distances(numbers, sides), np.float32(SIDE**2))
    places, parents = block_paths(numbers, squares, sides, rules)
    children = np.flatnonzero(parents >= 0)
    edges = np.stack([parents[children], children], axis=1).astype(np.int64)
    trees(places.astype(np.int64), np.ones(len(places)), edges, sides, rules)


def _find_objects(landscape: np.ndarray, seeds_within: np.ndarray, box: BoundingBox) -> np.ndarray:
    """The objects of a box: uint64 (z, y, x)."""
    boxes = {"core": box, "roi": box, "bounds": box}
    cut = extract_basins(landscape, None, seeds_within, read_box=box, rules=LandscapeRules(), **boxes)
    graph = build_basin_graph(cut.ids, landscape, seeds_within, cut.joins, rules=LandscapeRules(), **boxes)
    rules = ObjectRules(mask=100, seed=200)
    table = objects.assign_node(unite([chunk_objects(graph, rules)], roi=box, rules=rules))
    return write_objects(cut.ids, landscape, table.fragment, table.segment, rules.mask)


if __name__ == "__main__":
    warm_up()
