"""Cut tree -> the final id of every fragment, from the root down to the chunks. No worker loads a global table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.merge_tree import Assignment, NodeCut, assign_node
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class AssignSegments(TreeStage):
    """Cut tree -> a table (fragment, supervoxel, segment) for each node; those of level 0 relabel the voxels."""

    layout: Layout
    upstream: str

    name = "assign_segments"
    reads = (CutMergeTree.name,)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with a merge tree, which reads its cut."""
        cut = before.get(CutMergeTree.name)
        return None if cut is None else cls(setup.layout, cut.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The cut."""
        return (self.upstream,)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, the root first."""
        return self.levels()[::-1]

    def read(self, chunk: Chunk) -> tuple[NodeCut, Assignment | None]:
        """The cut of the node, and the table of its parent."""
        parent = self.parent(chunk)
        cut = NodeCut.from_arrays(self.layout.get_part(CutMergeTree.name, chunk))
        return cut, None if parent is None else Assignment.from_arrays(self.load(parent))

    def compute(self, chunk: Chunk, inputs: tuple[NodeCut, Assignment | None]) -> tuple[Products, dict[str, float]]:
        """Assign final ids to the node's regions."""
        return assign_node(*inputs).to_arrays(), {}
