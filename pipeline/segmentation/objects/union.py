"""Which basins are one object: a seeded spanning forest, distributed over a tree of boxes and equal to a global one.

1. ``unite``          up: decide what is certain within a box; what may depend on the rest of the dataset goes up
2. ``assign_node``    down: final labels for the basins of a node's children
3. ``write_objects``  basins of a chunk -> labels of its voxels

**What is computed.** Basins whose seeds are connected are one *atom*. Go through the passes above ``mask`` in their
strict order, the best first, and unite the two clusters of atoms that a pass connects, unless both hold a seed. That is
Kruskal's algorithm: if all seeds are thought of as one vertex, it finds the maximum spanning forest of the atoms.

**What is certain within a box.** Two facts about spanning forests hold whatever atoms and passes lie outside, and
whichever atoms of the box are parts of one:

- A pass that is the lowest of a cycle is not in the forest. This holds for a pass between two clusters with a seed each
  (the cycle runs through the vertex of all seeds), and for one within a *group*: clusters that better passes tie. These
  passes are dropped for ever.
- The best pass out of a set of atoms is in the forest, if no atom of the set is a part of one outside and all passes
  out of the set are known. This holds for a *closed* cluster, no part of which touches the rest of the dataset, that
  has no seed: passes come best first, so it unites along the first that leads out of it.

Every other pass has at one end a group that is open and is not known to hold a seed, and at the other one that is open
or holds a seed. It waits for the parent, and ties the two groups. If either holds a seed, so does the tied group: a
later pass from it to a seed is the lowest of a cycle through the tie. A group with an open cluster stays open.

Passes that wait make no cycle, so there are fewer of them than open clusters: what goes up grows with the surface of a
box, not with its volume. At the root nothing is open, so nothing waits.

**Seed voxels.** A cluster has at most one atom that is open or holds a seed; only the seed voxels of that one count. A
closed atom with fewer than ``min_seed`` of them holds no seed, and adds nothing to that of another atom. An open atom
with at least so many holds a seed, whatever else turns out to be a part of it.

Boruvka and Kruskal on parts of a graph, with the cycle rule as filter: Karger, Klein and Tarjan 1995. Watersheds as
spanning forests: Cousty et al. 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.segmentation import merge_tree
from pipeline.segmentation.agglomeration import check_tiles
from pipeline.segmentation.assembly import Whole, added, root_of, unite_regions
from pipeline.segmentation.compiled import kernel
from pipeline.segmentation.merge_tree import Assignment, NodeCut
from pipeline.segmentation.objects.object_graph import ObjectGraph
from pipeline.segmentation.objects.rules import KEEP, ObjectRules
from pipeline.segmentation.region_graph import pick
from pipeline.segmentation.remap import apply_remap


@dataclass(frozen=True, eq=False)
class NodeUnion:
    """The result of one node of the tree of boxes."""

    regions: np.ndarray
    """uint64 (n,), ascending: regions of the children; at level 0 the fragments."""
    clusters: np.ndarray
    """uint64 (n,): the cluster of each in the node."""
    labels: np.ndarray
    """uint64 (n,): the label of its cluster if that is finished, else the name of the cluster."""
    objects: np.ndarray
    """uint64 (k,), ascending: labels of the objects that are finished here and kept."""
    voxels: np.ndarray
    """int64 (k,): their voxels."""
    up: ObjectGraph
    """The clusters that wait for the outside of the box, or that such ones may join; empty at the root."""

    @property
    def cut(self) -> NodeCut:
        """The same as the cut of a merge tree."""
        up = self.up.regions
        return NodeCut(self.regions, self.clusters, self.labels, up, up, self.up.voxels)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, those of ``up`` with ``up_`` before it."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "up"}
        return {**own, **{f"up_{name}": array for name, array in self.up.to_arrays().items()}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> NodeUnion:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        up = {name.removeprefix("up_"): array for name, array in arrays.items() if name.startswith("up_")}
        own = pick(arrays, [field.name for field in fields(cls) if field.name != "up"])
        return cls(**own, up=ObjectGraph.from_arrays(up))


def unite(children: Sequence[ObjectGraph], *, roi: BoundingBox, rules: ObjectRules) -> NodeUnion:
    """Decide what is certain within the box that the children tile.

    A node of level 0 has one child, ``chunk_objects`` of its chunk; above, the children are the ``up`` of the nodes one
    level down, in any order. ``ConfigError`` if they do not tile a box of ``roi``.
    """
    check_tiles([BoundingBox(*child.box.tolist()) for child in children], roi)
    whole = unite_regions(children)
    voxels, seeds = (
        added(whole.root, whole.places, [getattr(child, name) for child in children]) for name in ("voxels", "seeds")
    )
    ranks = np.concatenate([child.ranks for child in children])
    edges = np.concatenate([place[child.edges] for child, place in zip(children, whole.places, strict=True)])
    best = np.argsort(ranks)[::-1]
    cluster = whole.root.copy()
    waits = _flood(np.ascontiguousarray(edges[best]), whole.is_open, rules.least_seed, voxels, seeds, cluster)
    pending = best[waits]
    return _result(whole, cluster, voxels, seeds, cluster[edges[pending]], ranks[pending], rules)


@kernel
def _flood(edges, is_open, least_seed, voxels, seeds, cluster):  # type: ignore[no-untyped-def]
    """Unite clusters along passes, the best first, and add up their voxels; which passes wait: bool (m,).

    ``cluster`` is int32 (n,), the smallest member of each one's atom, and becomes that of each one's cluster.
    """
    group, waits = cluster.copy(), np.zeros(len(edges), np.bool_)
    open_group, seeded = is_open.copy(), seeds >= least_seed
    for e in range(len(edges)):
        a, b = root_of(cluster, edges[e, 0]), root_of(cluster, edges[e, 1])
        one, other = root_of(group, a), root_of(group, b)
        if one == other or (seeded[one] and seeded[other]):
            continue
        first, second = min(one, other), max(one, other)
        free_a, free_b = not (open_group[one] or seeded[one]), not (open_group[other] or seeded[other])
        if free_a or free_b:
            found = (0 if free_a else seeds[a]) + (0 if free_b else seeds[b])
            a, b = min(a, b), max(a, b)
            cluster[b] = a
            voxels[a] += voxels[b]
            seeds[a] = found
        else:
            waits[e] = True
        group[second] = first
        seeded[first] |= seeded[second]
        open_group[first] |= open_group[second]
    for i in range(cluster.size):
        cluster[i] = root_of(cluster, i)
    return waits


def _result(
    whole: Whole,
    cluster: np.ndarray,
    voxels: np.ndarray,
    seeds: np.ndarray,
    edges: np.ndarray,
    ranks: np.ndarray,
    rules: ObjectRules,
) -> NodeUnion:
    """Labels for the clusters that are finished; the others go up. ``edges`` (m, 2) of clusters wait."""
    rises = np.zeros(len(cluster), np.bool_)
    port_regions = cluster[whole.ports.regions]
    rises[port_regions] = rises[edges.ravel()] = True
    kept = (voxels >= max(1, rules.min_size)) & ((seeds >= rules.least_seed) | (rules.seedless == KEEP))
    finished = np.flatnonzero(kept & ~rises & (cluster == np.arange(len(cluster))))
    labels = np.where(kept | rises, whole.regions, 0)[cluster]
    alive = np.flatnonzero(rises)
    place = np.full(len(cluster), -1, np.int32)
    place[alive] = np.arange(len(alive), dtype=np.int32)
    up = ObjectGraph(
        box=whole.box,
        regions=whole.regions[alive],
        voxels=voxels[alive],
        seeds=seeds[alive],
        edges=place[edges],
        ranks=ranks,
        ports=whole.ports.fragments,
        port_regions=place[port_regions],
        port_faces=whole.ports.faces,
        joins=np.empty((0, 2), np.int32),
    )
    return NodeUnion(whole.regions, whole.regions[cluster], labels, whole.regions[finished], voxels[finished], up)


def assign_node(union: NodeUnion, parent: Assignment | None = None) -> Assignment:
    """Down: final labels for the regions of a node's children; at level 0 those of the chunk's fragments.

    ``parent`` is the assignment of the node above, None at the root. ``segment`` is the label, 0 for what is dropped;
    ``supervoxel`` names the object in any case. ``CorruptError`` if the parent does not know a cluster that went up.
    """
    return merge_tree.assign_node(union.cut, parent)


def write_objects(
    ids: np.ndarray, landscape: np.ndarray, fragments: np.ndarray, labels: np.ndarray, mask: int
) -> np.ndarray:
    """The labels of a chunk's voxels, uint64 (z, y, x); 0 where the landscape is not above ``mask``.

    ``ids``, uint64, and ``landscape``, uint8, are those of the core. ``labels[i]`` is that of fragment
    ``fragments[i]``.
    """
    found = apply_remap(ids, fragments, labels)
    found[landscape <= mask] = 0
    return found
