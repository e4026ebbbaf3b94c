"""Stage 6: the final id of every fragment, from the whole down to the chunks. No worker loads a global table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.fingerprint import fingerprint
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.merge_tree import Assignment, NodeCut, assign_node
from pipeline.stages.base import Products
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.layout import Layout
from pipeline.stages.parts import TreeStage

ALGORITHM = 1


@dataclass(frozen=True)
class AssignSegments(TreeStage):
    """Cut tree -> a table (fragment, supervoxel, segment) for each node; those of level 0 relabel the voxels."""

    layout: Layout
    upstream: str

    name = "assign_segments"

    @property
    def fingerprint(self) -> str:
        """The cut."""
        return fingerprint(self.name, ALGORITHM, self.upstream)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid a level, the whole first."""
        return self.levels()[::-1]

    def read(self, chunk: Chunk) -> tuple[NodeCut, Assignment | None]:
        """The cut of the node, and the table of its parent."""
        parent = self.parent(chunk)
        cut = NodeCut.from_arrays(self.layout.get_part(CutMergeTree.name, chunk))
        return cut, None if parent is None else Assignment.from_arrays(self.load(parent))

    def compute(self, chunk: Chunk, inputs: tuple[NodeCut, Assignment | None]) -> tuple[Products, dict[str, float]]:
        """Hand the final ids down."""
        return assign_node(*inputs).to_arrays(), {}
