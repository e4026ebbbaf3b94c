"""The merge tree: its canonical form, and cutting it into segments, node by node, without a global table.

The tree of a run is the union of the merges of all nodes. It is cut twice through the tree of boxes:

    up     ``cut_node``     finds which regions of a node's children are one cluster at the chosen threshold, and what
                            the parent must know of the regions that go up (``Clusters``)
    down   ``assign_node``  gives final ids to the regions of a node's children, from those of the regions that went up;
                            at level 0 the children's regions are the fragments of a chunk

**Rules.** Every region of the tree has a representative cluster, at first its supervoxel. A merge that scores at least
``threshold`` unites the clusters of the two. One that scores less, but at least ``min_size_threshold``, unites them if
one has fewer than ``min_size`` voxels. If they are not united, the larger one (of equal ones that with the smaller id)
represents the new region; the other is finished. A cluster is named by its smallest supervoxel, so a segment is, too.
The cluster of a region depends on the merges below it in the tree alone, so any order of the nodes gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.errors import ConfigError, CorruptError
from pipeline.segmentation.agglomeration import MERGE, NodeResult
from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.region_graph import RegionGraph, pick


@dataclass(frozen=True)
class CutRules:
    """How the merge tree becomes segments."""

    threshold: float
    """Merges of at least this score are made."""
    min_size: int
    """A cluster of fewer voxels follows its next merge ..."""
    min_size_threshold: float
    """... if that scores at least this."""

    def __post_init__(self) -> None:
        if np.isnan(self.threshold) or np.isnan(self.min_size_threshold):
            raise ConfigError(
                f"threshold {self.threshold} and min_size_threshold {self.min_size_threshold} must be numbers"
            )


@dataclass(frozen=True, eq=False)
class Clusters:
    """Regions with the cluster that represents each."""

    regions: np.ndarray
    """uint64 (n,), ascending"""
    clusters: np.ndarray
    """uint64 (n,): name of the cluster, no two alike"""
    sizes: np.ndarray
    """int64 (n,): its voxels"""


@dataclass(frozen=True, eq=False)
class NodeCut:
    """The cut of one node: the regions of its children, and those that go up to its parent."""

    regions: np.ndarray
    """uint64 (n,), ascending: regions of the children; at level 0 the fragments"""
    supervoxels: np.ndarray
    """uint64 (n,): the region that each region is a part of after cuts between the children are joined"""
    clusters: np.ndarray
    """uint64 (n,): the cluster in which the representative of each is, after the node"""
    up_regions: np.ndarray
    """uint64 (u,), ascending: the regions that wait for the parent"""
    up_clusters: np.ndarray
    """uint64 (u,): their representatives"""
    up_sizes: np.ndarray
    """int64 (u,): voxels of these"""

    @property
    def up(self) -> Clusters:
        """The clusters of the regions that go up, which the parent needs."""
        return Clusters(self.up_regions, self.up_clusters, self.up_sizes)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> NodeCut:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        return cls(**pick(arrays, [field.name for field in fields(cls)]))


@dataclass(frozen=True, eq=False)
class Assignment:
    """Final ids of fragments; above level 0, of regions, which are named by their smallest fragment."""

    fragment: np.ndarray
    """uint64 (n,), ascending"""
    supervoxel: np.ndarray
    """uint64 (n,): its supervoxel (of a region with several: any of them)"""
    segment: np.ndarray
    """uint64 (n,): the segment of its representative"""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Assignment:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        return cls(**pick(arrays, [field.name for field in fields(cls)]))


def canonical(merges: np.ndarray) -> np.recarray:
    """The merges of all nodes (``MERGE``, any order) in the order of one global run, best first.

    By score, then the larger id, then the smaller id, all descending: the same bytes whatever the chunking. The columns
    are attributes, too: ``tree.a``, ``tree.b``, ``tree.score``.
    """
    order = np.lexsort((merges["a"], merges["b"], merges["score"]))[::-1]
    return np.ascontiguousarray(merges[order], MERGE).view(np.recarray)


def fragment_clusters(graph: RegionGraph) -> Clusters:
    """The clusters of a chunk's fragments before any merge: each is its own."""
    return Clusters(graph.regions, graph.regions, graph.sizes)


def cut_node(result: NodeResult, children: Sequence[Clusters], rules: CutRules) -> NodeCut:
    """Up: cut the merges of one node; see ``cut_and_measure``."""
    return cut_and_measure(result, children, rules)[0]


def cut_and_measure(
    result: NodeResult, children: Sequence[Clusters], rules: CutRules
) -> tuple[NodeCut, np.ndarray, np.ndarray]:
    """Up: cut the merges of one node. Returns the segments that are finished there as well: their ids and voxels.

    ``children`` are, at level 0, ``fragment_clusters`` of the chunk's region graph; above, ``up`` of the children's
    cuts.
    ``CorruptError`` if the node names regions that its children do not have.
    """
    regions, clusters, sizes = _united(children)
    root = np.arange(len(regions))
    root[_places(regions, result.joined[:, 0])] = _places(regions, result.joined[:, 1])
    pairs = np.stack([_places(regions, result.merges[name]) for name in ("a", "b")], axis=1)
    into, represents = _clusters(root, pairs, result.merges["score"], clusters, sizes, rules)
    up = into[represents[_places(regions, result.rest.regions)]]
    cut = NodeCut(
        regions=regions,
        supervoxels=regions[root],
        clusters=clusters[into],
        up_regions=result.rest.regions,
        up_clusters=clusters[up],
        up_sizes=sizes[up],
    )
    finished = into == np.arange(len(into))
    finished[up] = False
    return cut, clusters[finished], sizes[finished]


def assign_node(cut: NodeCut, parent: Assignment | None = None) -> Assignment:
    """Down: final ids for the regions of a node's children; at level 0 the remap of a chunk's fragments.

    ``parent`` is the assignment of the node above, None at the root. The table also holds the neighbours' fragments
    that touch the chunk. ``CorruptError`` if the parent does not know a region that went up.
    """
    supervoxel, segment = cut.supervoxels.copy(), cut.clusters.copy()
    if len(cut.up_regions):
        if parent is None:
            raise CorruptError(
                f"{len(cut.up_regions)} regions go up from a node without a parent; assign the parent first"
            )
        place = _places(parent.fragment, cut.up_regions)
        _replace(supervoxel, cut.up_regions, parent.supervoxel[place])
        order = np.argsort(cut.up_clusters)
        _replace(segment, cut.up_clusters[order], parent.segment[place[order]])
    return Assignment(cut.regions, supervoxel, segment)


def cut_global(tree: np.ndarray, ids: np.ndarray, sizes: np.ndarray, rules: CutRules) -> np.ndarray:
    """Cut a whole canonical tree at once: the segment of every supervoxel, uint64 (n,).

    ``ids`` uint64 (n,) ascending and ``sizes`` int64 (n,) are all supervoxels. ``CorruptError`` if the tree names
    others.
    """
    pairs = np.stack([_places(ids, tree[name]) for name in ("a", "b")], axis=1)
    into, _ = _clusters(np.arange(len(ids)), pairs, tree["score"], ids, sizes.copy(), rules)
    return ids[into]


def _clusters(
    root: np.ndarray, pairs: np.ndarray, scores: np.ndarray, names: np.ndarray, sizes: np.ndarray, rules: CutRules
) -> tuple[np.ndarray, np.ndarray]:
    """Cut merges in order and update ``sizes``: the cluster of every region, and the representative of merged ones."""
    into, represents = np.arange(len(root)), np.arange(len(root))
    limits = float(rules.threshold), int(rules.min_size), float(rules.min_size_threshold)
    _cut(root, pairs, np.ascontiguousarray(scores), np.ascontiguousarray(names), sizes, *limits, into, represents)
    return into, represents


def _united(children: Sequence[Clusters]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regions of all children, ascending, with their clusters and sizes; sizes of a region that two children know are
    added.
    """
    names = np.concatenate([child.regions for child in children])
    regions, first, place = np.unique(names, return_index=True, return_inverse=True)
    sizes = np.zeros(len(regions), np.int64)
    np.add.at(sizes, place, np.concatenate([child.sizes for child in children]))
    return regions, np.concatenate([child.clusters for child in children])[first], sizes


def _places(sorted_ids: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each id is; ``CorruptError`` if one is not there."""
    place = np.searchsorted(sorted_ids, ids)
    known = place < len(sorted_ids)
    known[known] = sorted_ids[place[known]] == ids[known]
    if not known.all():
        raise CorruptError(
            f"region {ids[~known][0]} is not among the {len(sorted_ids)} that are known here; nodes and children must "
            "come from one run: run the stage again"
        )
    return place


def _replace(values: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
    """Replace old[i] by new[i] in place; ``old`` is ascending, and other values stay."""
    place = np.minimum(np.searchsorted(old, values), len(old) - 1)
    found = old[place] == values
    values[found] = new[place[found]]


@kernel
def _cut(root, pairs, scores, names, sizes, threshold, min_size, min_size_threshold, into, represents):  # type: ignore[no-untyped-def]
    n = root.size
    for i in range(n):
        if root[i] != i:
            into[i] = root[i]
            sizes[root[i]] += sizes[i]
    for i in range(len(pairs)):
        a, b = _end(into, represents[pairs[i, 0]]), _end(into, represents[pairs[i, 1]])
        small = min(sizes[a], sizes[b]) < min_size
        if scores[i] >= threshold or (small and scores[i] >= min_size_threshold):
            first, second = (a, b) if names[a] < names[b] else (b, a)
            into[second] = first
            sizes[first] += sizes[second]
        else:
            first = a if sizes[a] > sizes[b] or (sizes[a] == sizes[b] and names[a] < names[b]) else b
        represents[pairs[i, 0]] = first
    for i in range(n):
        into[i] = _end(into, i)


@part
def _end(into, i):  # type: ignore[no-untyped-def]
    while into[i] != i:
        into[i] = into[into[i]]
        i = into[i]
    return i
