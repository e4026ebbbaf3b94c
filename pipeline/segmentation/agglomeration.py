"""Hierarchical agglomeration, distributed over a tree of boxes and still equal to one global run.

1. ``assembly.assemble``  children's graphs -> one graph: cut supervoxels joined, parallel contacts added
2. ``greedy.agglomerate`` merge every mutually best pair of closed regions; regions that wait for the outside stay
3. ``_result``            the merges, best first, and the graph that remains for the parent

**Order.** Contacts are ordered by score, and among equal scores by the larger id of the two regions, then by the
smaller one, larger first; a region's id is the smallest of its fragments'. After A and B merge, the contact of A+B
with C comes, in this order, no earlier than the first of (A, C) and (B, C). For the score this is *reducibility*:

- mean: the sum of two fractions' numerators over the sum of their denominators lies between them, and rounding the
  quotient to float64 keeps the order of exact values;
- quantile q: the smallest value v such that at least r(n) = max(1, ceil(q n)) of n affinities are at most v. Of two
  contacts let v be the larger quantile. At least r(n1) + r(n2) >= r(n1 + n2) affinities are at most v, so the quantile
  of the union is at most v. q is a whole number of millionths, so that ceil(q n) is exact.

And where the score stays the same, the id of A+B is at most that of either, so the contact moves back, or keeps its
place. (With smaller ids first it could move forward, and the tree would depend on the chunks.)

**Why local merges are global ones.** If A and B are each other's best, nothing that happens elsewhere can give either a
better partner, so the global greedy order merges this pair sooner or later, with this score. Best partners are known
for closed regions only: all contacts and parts of theirs lie in the box. Contacts are visited from the best down. Where
both regions are free they merge. Where one waits (it is open, or its own best partner waits) the other has just met
its best partner, which will not merge here, so it waits as well.

**What goes up.** Regions that wait, and the contacts among them, whatever their score (a low one can still be added to
a high one). A free region at the end has no contact of at least ``stop_score``; by reducibility nothing outside, merged
or not, will ever offer it one, so it and its contacts are final and leave. At the root nothing is open, nothing stays.

The idea of merging mutually best pairs in a hierarchy of boxes: Lu, Zlateski and Seung 2021 (arXiv:2106.10795).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.assembly import Assembly, assemble
from pipeline.segmentation.greedy import Remains, added_sizes, agglomerate
from pipeline.segmentation.region_graph import RegionGraph, pick

MERGE = np.dtype([("a", np.uint64), ("b", np.uint64), ("score", np.float64)])
"""One merge: ids of the two regions, a < b, and their score, 0..1. The new region is called a."""

MILLION = 1_000_000


@dataclass(frozen=True)
class Linkage:
    """How the affinities on a contact become its score."""

    kind: str
    """``mean`` or ``quantile``."""
    quantile: float
    """Which quantile, with ``kind`` quantile; rounded to a millionth."""

    def __post_init__(self) -> None:
        if self.kind not in ("mean", "quantile"):
            raise ConfigError(f"linkage is {self.kind!r}; it must be 'mean' or 'quantile': choose one")
        if not 0 <= self.quantile <= 1:
            raise ConfigError(f"quantile is {self.quantile}; it must lie in 0..1: 0.5 is the median")

    @property
    def needs_histograms(self) -> bool:
        """True if region graphs must keep the values on each contact."""
        return self.kind == "quantile"

    @property
    def millionths(self) -> int:
        """The quantile as the kernels take it; -1 for the mean."""
        return round(self.quantile * MILLION) if self.kind == "quantile" else -1


@dataclass(frozen=True, eq=False)
class NodeResult:
    """The result of one node of the tree of boxes."""

    merges: np.ndarray
    """``MERGE`` (n,), best first."""
    joined: np.ndarray
    """uint64 (j, 2), ascending: a child's region and the region it became part of, for regions that change their name.
    """
    rest: RegionGraph
    """The regions that wait for the outside of the box, and their contacts; empty at the root."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, those of the rest with ``rest_`` before it."""
        rest = {f"rest_{name}": array for name, array in self.rest.to_arrays().items()}
        return {"merges": self.merges, "joined": self.joined, **rest}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> NodeResult:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        rest = {name.removeprefix("rest_"): array for name, array in arrays.items() if name.startswith("rest_")}
        return cls(**pick(arrays, ["merges", "joined"]), rest=RegionGraph.from_arrays(rest))


def agglomerate_node(
    children: Sequence[RegionGraph], *, roi: BoundingBox, linkage: Linkage, stop_score: float
) -> NodeResult:
    """Merge what can be merged within the box that the children tile.

    A node of level 0 has one child, the region graph of its chunk; above, the children are the ``rest`` of the nodes
    one level down, in any order.

    Raises:
        ConfigError: the children do not tile a box of ``roi``, or quantiles are asked of graphs without histograms.
    """
    _check(children, roi, linkage)
    graph = assemble(children, histograms=linkage.needs_histograms)
    pairs, scores, remains = agglomerate(
        edges=graph.edges,
        counts=graph.counts,
        sums=graph.sums,
        histogram=(graph.offsets, graph.values, graph.value_counts),
        waits=graph.is_open,
        millionths=linkage.millionths,
        stop_score=stop_score,
    )
    merges = np.empty(len(scores), MERGE)
    merges["a"], merges["b"], merges["score"] = graph.regions[pairs[:, 0]], graph.regions[pairs[:, 1]], scores
    changed = np.flatnonzero(graph.root != np.arange(len(graph.root)))
    joined = np.stack([graph.regions[changed], graph.regions[graph.root[changed]]], axis=1)
    return NodeResult(merges, joined, _rest(graph, pairs, remains))


def _check(children: Sequence[RegionGraph], roi: BoundingBox, linkage: Linkage) -> None:
    check_tiles([BoundingBox(child.start, child.stop) for child in children], roi)
    if linkage.needs_histograms and not all(child.has_histograms for child in children):
        raise ConfigError("quantile linkage needs the values on each contact; build the region graph with histograms")


def check_tiles(boxes: Sequence[BoundingBox], roi: BoundingBox) -> None:
    """``ConfigError`` unless the boxes of a node's children tile a box of the region."""
    if not boxes:
        raise ConfigError("a node without children; give at least one region graph")
    hull = BoundingBox(reduce(Vec.minimum, (b.start for b in boxes)), reduce(Vec.maximum, (b.stop for b in boxes)))
    if sum(b.voxels for b in boxes) != hull.voxels or not roi.contains(hull):
        listed = ", ".join(map(str, boxes))
        raise ConfigError(f"children {listed} must tile a box within {roi}; give all chunks of one node, each once")


def _rest(graph: Assembly, pairs: np.ndarray, remains: Remains) -> RegionGraph:
    """The graph of the regions that wait."""
    sizes = added_sizes(graph.sizes, pairs)
    alive = np.flatnonzero(remains.waits)
    place = np.full(len(sizes), -1, np.int32)
    place[alive] = np.arange(len(alive), dtype=np.int32)
    offsets, values, value_counts = remains.histogram
    return RegionGraph(
        box=graph.box,
        regions=graph.regions[alive],
        sizes=sizes[alive],
        edges=place[remains.edges],
        counts=remains.counts,
        sums=remains.sums,
        offsets=offsets,
        values=values,
        value_counts=value_counts,
        ports=graph.ports,
        port_regions=place[graph.port_regions],
        port_faces=graph.port_faces,
        joins=np.empty((0, 2), np.int32),
    )
