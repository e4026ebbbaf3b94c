"""Stage 5: which merges hold at the chosen threshold, from the chunks up to the whole. No voxel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pipeline.config.fingerprint import fingerprint
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.agglomeration import NodeResult
from pipeline.segmentation.merge_tree import Clusters, CutRules, NodeCut, cut_node, fragment_clusters
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.base import Products
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.layout import Layout
from pipeline.stages.parts import TreeStage

ALGORITHM = 1


@dataclass(frozen=True)
class CutMergeTree(TreeStage):
    """Merge tree -> clusters of each node, and what its parent must know of them."""

    layout: Layout
    upstream: str
    rules: CutRules

    name = "cut_merge_tree"

    @property
    def fingerprint(self) -> str:
        """The tree and the rules of the cut."""
        return fingerprint(self.name, ALGORITHM, self.upstream, asdict(self.rules))

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid a level, chunks first."""
        return self.levels()

    def read(self, chunk: Chunk) -> tuple[NodeResult, list[Clusters]]:
        """The merges of the node, and the clusters that it begins with."""
        result = NodeResult.from_arrays(self.layout.get_part(Agglomerate.name, chunk))
        if chunk.level == 0:
            graph = RegionGraph.from_arrays(self.layout.get_part(BuildRegionGraph.name, chunk))
            return result, [fragment_clusters(graph)]
        return result, [NodeCut.from_arrays(self.load(child)).up for child in self.children(chunk)]

    def compute(self, chunk: Chunk, inputs: tuple[NodeResult, list[Clusters]]) -> tuple[Products, dict[str, float]]:
        """Cut the merges of the node."""
        result, clusters = inputs
        return cut_node(result, clusters, self.rules).to_arrays(), {}
