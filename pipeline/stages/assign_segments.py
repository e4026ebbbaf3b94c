"""Cut tree -> the final id of every fragment, from the root down to the chunks. No worker loads a global table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.edits import Overrides
from pipeline.segmentation.merge_tree import Assignment, NodeCut, assign_node
from pipeline.stages.apply_edits import ApplyEdits
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class AssignSegments(TreeStage):
    """Cut tree -> a table (fragment, supervoxel, segment) for each node; those of level 0 relabel the voxels.

    Edits change the segments of level 0 only.
    """

    layout: Layout
    upstream: str
    edits: str = ""
    """Fingerprint of the stage that applies the edits of the run; empty if it has none."""

    name = "assign_segments"
    reads = (CutMergeTree.name, ApplyEdits.name)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with a merge tree, which reads its cut and what edits make of it."""
        cut, edits = before.get(CutMergeTree.name), before.get(ApplyEdits.name)
        return None if cut is None else cls(setup.layout, cut.fingerprint, "" if edits is None else edits.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The cut, and the edits if there are any."""
        return (self.upstream, self.edits) if self.edits else (self.upstream,)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, the root first."""
        return self.levels()[::-1]

    def read(self, chunk: Chunk) -> tuple[NodeCut, Assignment | None, Overrides | None]:
        """The cut of the node, the table of its parent, and for a chunk of level 0 what edits change."""
        parent = self.parent(chunk)
        cut = NodeCut.from_arrays(self.layout.get_part(CutMergeTree.name, chunk))
        return cut, None if parent is None else Assignment.from_arrays(self.load(parent)), self._overrides(chunk)

    def _overrides(self, chunk: Chunk) -> Overrides | None:
        if not self.edits or chunk.level:
            return None
        root = next(iter(self.levels()[-1]))
        return Overrides.from_arrays(self.layout.get_part(ApplyEdits.name, root))

    def compute(
        self, chunk: Chunk, inputs: tuple[NodeCut, Assignment | None, Overrides | None]
    ) -> tuple[Products, dict[str, float]]:
        """Assign final ids to the node's regions."""
        cut, parent, overrides = inputs
        table = assign_node(cut, parent)
        return (table if overrides is None else overrides.apply(table)).to_arrays(), {}
