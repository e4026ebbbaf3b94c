"""Region graphs -> merge tree, from the chunks up to the root of the tree of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.agglomeration import Linkage, NodeResult, agglomerate_node
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.stages.base import Products
from pipeline.stages.build_region_graph import BuildRegionGraph, linkage_of
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class Agglomerate(TreeStage):
    """Merges each node's regions as far as all of their contacts are known; the remaining ones go to the parent."""

    layout: Layout
    upstream: str
    linkage: Linkage
    stop_score: float

    name = "agglomerate"
    reads = (BuildRegionGraph.name,)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with supervoxels, with the linkage and the stop score of the run file."""
        if BuildRegionGraph.name not in before:
            return None
        table = setup.config.agglomeration
        return cls(setup.layout, before[BuildRegionGraph.name].fingerprint, linkage_of(table), table.stop_score)

    def depends_on(self) -> Sequence[Any]:
        """Region graph, linkage and the score at which the tree ends."""
        linkage = [self.linkage.kind, self.linkage.quantile if self.linkage.needs_histograms else None]
        return self.upstream, linkage, self.stop_score

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, chunks first."""
        return self.levels()

    def read(self, chunk: Chunk) -> list[RegionGraph]:
        """The region graph of a chunk, or the remaining graphs of a node's children."""
        if chunk.level == 0:
            return [RegionGraph.from_arrays(self.layout.get_part(BuildRegionGraph.name, chunk))]
        return [self.node(child).rest for child in self.children(chunk)]

    def compute(self, chunk: Chunk, inputs: list[RegionGraph]) -> tuple[Products, dict[str, float]]:
        """Make the merges that are certain within the node."""
        result = agglomerate_node(inputs, roi=self.layout.roi, linkage=self.linkage, stop_score=self.stop_score)
        return result.to_arrays(), {"merges": len(result.merges)}

    def node(self, chunk: Chunk) -> NodeResult:
        """The stored result of a node."""
        return NodeResult.from_arrays(self.load(chunk))

    def merges(self, chunk: Chunk) -> np.ndarray:
        """The merges of a node: (a, b, score)."""
        return self.load(chunk)["merges"]
