"""Look up segments of a cut merge tree: which chunks hold one, and its supervoxels and contacts there.

A segment that goes on outside of a node is in the table of the parent as well. So the chunks of a segment are found
from any one of them: up to the last node that knows it, and down again. Chunks elsewhere are not looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from pipeline.geometry import Vec, product
from pipeline.grid import Chunk
from pipeline.segmentation.edits import Members, summed_edges
from pipeline.segmentation.merge_tree import Assignment, NodeCut, assign_node
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import TreeStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.layout import Layout


@dataclass(frozen=True)
class CutTables:
    """The tables of a cut before edits; those above the chunks are kept once they are read."""

    stage: TreeStage
    """Any stage of the run over the tree of chunks."""
    cut_of: Callable[[Chunk], NodeCut]
    """The cut of a node."""
    kept: dict[str, Assignment] = field(default_factory=dict)

    @classmethod
    def stored(cls, stage: TreeStage) -> CutTables:
        """Those of the cut that a run has stored."""
        return cls(stage, lambda chunk: NodeCut.from_arrays(stage.layout.get_part(CutMergeTree.name, chunk)))

    def table(self, chunk: Chunk) -> Assignment:
        """The segments of a node's regions."""
        if chunk.name in self.kept:
            return self.kept[chunk.name]
        parent = self.stage.parent(chunk)
        table = assign_node(self.cut_of(chunk), None if parent is None else self.table(parent))
        if chunk.level:
            self.kept[chunk.name] = table
        return table

    def segment_of(self, supervoxel: int) -> int | None:
        """The segment of a supervoxel; ``None`` if there is no such supervoxel."""
        chunk = chunk_of(self.stage.layout, supervoxel)
        found = None if chunk is None else row_of(self.table(chunk), supervoxel)
        return None if found is None or found[0] != supervoxel else found[1]

    def chunks_of(self, supervoxel: int, segment: int) -> list[Chunk]:
        """The chunks that hold a segment, and some that only touch it; supervoxel: one of its supervoxels."""
        top = chunk_of(self.stage.layout, supervoxel)
        assert top is not None, "the supervoxel was looked up"
        while (parent := self.stage.parent(top)) is not None and segment in self.table(parent).segment:
            top = parent
        nodes = [top]
        for _ in range(top.level):
            below = [child for node in nodes for child in self.stage.children(node)]
            nodes = [child for child in below if segment in self.table(child).segment]
        return nodes

    def members(self, supervoxels: Collection[int]) -> Members:
        """All supervoxels of the segments that hold the given ones, with the contacts among them.

        Given ones that do not exist are left out. It needs memory for these segments alone.
        """
        chunks: dict[str, Chunk] = {}
        segments: set[int] = set()
        for supervoxel in supervoxels:
            segment = self.segment_of(supervoxel)
            if segment is not None and segment not in segments:
                segments.add(segment)
                chunks |= {chunk.name: chunk for chunk in self.chunks_of(supervoxel, segment)}
        wanted = np.array(sorted(segments), np.uint64)
        return Members.sum([self._part(chunk, wanted) for chunk in chunks.values()])

    def _part(self, chunk: Chunk, wanted: np.ndarray) -> Members:
        """What one chunk knows of some segments."""
        table = self.table(chunk)
        graph = RegionGraph.from_arrays(self.stage.layout.get_part(BuildRegionGraph.name, chunk))
        held = np.isin(table.segment, wanted)
        supervoxels, first = np.unique(table.supervoxel[held], return_index=True)
        place = np.searchsorted(supervoxels, table.supervoxel)
        sizes = np.zeros(len(supervoxels), np.int64)
        np.add.at(sizes, place[held], graph.sizes[held])
        inner = held[graph.edges].all(axis=1)
        pairs = place[graph.edges[inner]]
        apart = pairs[:, 0] != pairs[:, 1]
        edges, sums = summed_edges([pairs[apart]], [graph.sums[inner][apart]])
        return Members(supervoxels, table.segment[held][first], sizes, edges, sums)


def chunk_of(layout: Layout, supervoxel: int) -> Chunk | None:
    """The chunk that holds the first voxel of a supervoxel; ``None`` if the region of interest has no such voxel."""
    bounds, grid = layout.bounds, layout.grid()
    if not 0 < supervoxel <= product(bounds.shape):
        return None
    z, y, x = np.unravel_index(supervoxel - 1, bounds.shape)
    voxel = bounds.start + Vec(int(z), int(y), int(x))
    return grid.chunk(grid.index_of(voxel)) if holds(layout, voxel) else None


def holds(layout: Layout, voxel: Vec) -> bool:
    """True if a voxel is in the region of interest."""
    return all(start <= at < stop for start, at, stop in zip(layout.roi.start, voxel, layout.roi.stop, strict=True))


def row_of(table: Assignment, fragment: int) -> tuple[int, int] | None:
    """Supervoxel and segment of a fragment; ``None`` if the table does not have it."""
    place = int(np.searchsorted(table.fragment, np.uint64(fragment)))
    if place == len(table.fragment) or table.fragment[place] != fragment:
        return None
    return int(table.supervoxel[place]), int(table.segment[place])
