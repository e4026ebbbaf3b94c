"""Merge tree -> the merges that hold at the chosen threshold, from the chunks up to the root. No voxel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from pipeline.config.run_file import DEFAULT_THRESHOLD, check_thresholds
from pipeline.errors import ConfigError
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.agglomeration import NodeResult
from pipeline.segmentation.merge_tree import Clusters, CutRules, NodeCut, cut_and_measure, fragment_clusters
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.segmentation.sizes import Sizes
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.base import Products
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class CutMergeTree(TreeStage):
    """Merge tree -> the clusters of each node, those that its parent needs, and the sizes of those that are finished.

    The part of the root holds the sizes of all segments of the run.
    """

    layout: Layout
    upstream: str
    rules: CutRules

    name = "cut_merge_tree"
    reads = (BuildRegionGraph.name, Agglomerate.name)
    algorithm = 2

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self:
        """The stage with the threshold of the run file or of the model's card."""
        return cls(setup.layout, before[Agglomerate.name].fingerprint, cut_rules(setup))

    def depends_on(self) -> Sequence[Any]:
        """The tree and the rules of the cut."""
        return self.upstream, asdict(self.rules)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, chunks first."""
        return self.levels()

    def read(self, chunk: Chunk) -> tuple[NodeResult, list[Clusters], list[Sizes]]:
        """The merges of the node, the clusters of its children, and the sizes of what is finished in these."""
        result = NodeResult.from_arrays(self.layout.get_part(Agglomerate.name, chunk))
        if chunk.level == 0:
            graph = RegionGraph.from_arrays(self.layout.get_part(BuildRegionGraph.name, chunk))
            return result, [fragment_clusters(graph)], []
        parts = [self.load(child) for child in self.children(chunk)]
        return result, [NodeCut.from_arrays(part).up for part in parts], [Sizes.from_arrays(part) for part in parts]

    def compute(
        self, chunk: Chunk, inputs: tuple[NodeResult, list[Clusters], list[Sizes]]
    ) -> tuple[Products, dict[str, float]]:
        """Cut the merges of the node."""
        result, clusters, below = inputs
        cut, ids, voxels = cut_and_measure(result, clusters, self.rules)
        return {**cut.to_arrays(), **Sizes.sum([Sizes.of(ids, voxels), *below]).to_arrays()}, {}

    def sizes(self) -> Sizes:
        """The sizes of all segments of a run that has finished this stage."""
        return Sizes.from_arrays(self.load(next(iter(self.grids()[-1]))))


def cut_rules(setup: Setup) -> CutRules:
    """Where the merge tree is cut: at the threshold of the run file, else of the model's card, else at the default.

    Raises ``ConfigError`` if the threshold is below the score at which the tree ends.
    """
    cut, stop_score = setup.config.segmentation, setup.config.agglomeration.stop_score
    given = (value for value in (cut.threshold, setup.card_threshold) if value is not None)
    threshold = next(given, DEFAULT_THRESHOLD)
    try:
        check_thresholds(threshold, cut.min_size_threshold, stop_score)
    except ValueError as error:
        raise ConfigError(f"{error} (the threshold is the model card's or the default)") from None
    return CutRules(threshold, cut.min_size, stop_score if cut.min_size_threshold is None else cut.min_size_threshold)
