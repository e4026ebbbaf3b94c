"""Basin graphs -> the objects of each node, from the chunks up to the root, by seeds, thresholds and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.objects.basin_graph import BasinGraph
from pipeline.segmentation.objects.object_graph import ObjectGraph, chunk_objects
from pipeline.segmentation.objects.rules import ObjectRules
from pipeline.segmentation.objects.union import NodeUnion, unite
from pipeline.segmentation.sizes import Sizes
from pipeline.stages.base import Products
from pipeline.stages.build_basin_graph import BuildBasinGraph
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.landscape import object_rules
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class UniteBasins(TreeStage):
    """Basin graphs -> the objects that are finished in a node, what its parent needs, and the sizes so far.

    The part of the root holds the sizes of all objects of the run. No voxel is read.
    """

    layout: Layout
    upstream: str
    rules: ObjectRules

    name = "unite_basins"
    reads = (BuildBasinGraph.name,)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage with the seeds, the threshold and the sizes of the run file."""
        graph = before.get(BuildBasinGraph.name)
        if graph is None:
            return None
        assert isinstance(graph, BuildBasinGraph)
        rules = object_rules(graph.landscape.head, setup.config.segmentation)
        return cls(setup.layout, graph.fingerprint, rules)

    def depends_on(self) -> Sequence[Any]:
        """The basin graph and the rules."""
        return self.upstream, asdict(self.rules)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, chunks first."""
        return self.levels()

    def read(self, chunk: Chunk) -> tuple[list[BasinGraph], list[ObjectGraph], list[Sizes]]:
        """The graph of a chunk; or what the children of a node left to it, and the sizes of what they finished."""
        if chunk.level == 0:
            return [BasinGraph.from_arrays(self.layout.get_part(BuildBasinGraph.name, chunk))], [], []
        parts = [self.load(child) for child in self.children(chunk)]
        return [], [NodeUnion.from_arrays(part).up for part in parts], [Sizes.from_arrays(part) for part in parts]

    def compute(
        self, chunk: Chunk, inputs: tuple[list[BasinGraph], list[ObjectGraph], list[Sizes]]
    ) -> tuple[Products, dict[str, float]]:
        """Unite what is certain within the node."""
        graphs, children, below = inputs
        union = unite(
            [*(chunk_objects(graph, self.rules) for graph in graphs), *children],
            roi=self.layout.roi,
            rules=self.rules,
        )
        sizes = Sizes.sum([Sizes.of(union.objects, union.voxels), *below])
        return {**union.to_arrays(), **sizes.to_arrays()}, {"objects": len(union.objects)}
