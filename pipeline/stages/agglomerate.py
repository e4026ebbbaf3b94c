"""Stage 4: region graphs -> merge tree, from the chunks up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.agglomeration import Linkage, NodeResult, agglomerate_node
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.stages.base import Products
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.layout import Layout
from pipeline.stages.parts import TreeStage

ALGORITHM = 1


@dataclass(frozen=True)
class Agglomerate(TreeStage):
    """Merges each node's regions as far as all of their contacts are known; what is left goes up."""

    layout: Layout
    upstream: str
    linkage: Linkage
    stop_score: float

    name = "agglomerate"

    @property
    def fingerprint(self) -> str:
        """Region graph, linkage and where the tree ends."""
        linkage = [self.linkage.kind, self.linkage.quantile if self.linkage.needs_histograms else None]
        return fingerprint(self.name, ALGORITHM, self.upstream, linkage, self.stop_score)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid a level, chunks first."""
        return self.levels()

    def read(self, chunk: Chunk) -> list[RegionGraph]:
        """The region graph of a chunk, or what the children of a node left."""
        if chunk.level == 0:
            return [RegionGraph.from_arrays(self.layout.get_part(BuildRegionGraph.name, chunk))]
        return [self.node(child).rest for child in self.children(chunk)]

    def compute(self, chunk: Chunk, inputs: list[RegionGraph]) -> tuple[Products, dict[str, float]]:
        """Merge what is certain within the node."""
        result = agglomerate_node(inputs, roi=self.layout.roi, linkage=self.linkage, stop_score=self.stop_score)
        return result.to_arrays(), {"merges": len(result.merges)}

    def node(self, chunk: Chunk) -> NodeResult:
        """The stored result of a node."""
        return NodeResult.from_arrays(self.load(chunk))

    def merges(self, chunk: Chunk) -> np.ndarray:
        """The merges of a node: (a, b, score)."""
        return self.load(chunk)["merges"]
