"""United basins -> the final id of every fragment, from the root down to the chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.merge_tree import Assignment
from pipeline.segmentation.objects.union import NodeUnion, assign_node
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.unite_basins import UniteBasins


@dataclass(frozen=True)
class AssignObjects(TreeStage):
    """United basins -> a table (fragment, object) for each node; those of level 0 give voxels their ids."""

    layout: Layout
    upstream: str

    name = "assign_objects"
    reads = (UniteBasins.name,)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has basins."""
        united = before.get(UniteBasins.name)
        return None if united is None else cls(setup.layout, united.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The united basins."""
        return (self.upstream,)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, the root first."""
        return self.levels()[::-1]

    def read(self, chunk: Chunk) -> tuple[NodeUnion, Assignment | None]:
        """The united basins of the node, and the table of its parent."""
        parent = self.parent(chunk)
        union = NodeUnion.from_arrays(self.layout.get_part(UniteBasins.name, chunk))
        return union, None if parent is None else Assignment.from_arrays(self.load(parent))

    def compute(self, chunk: Chunk, inputs: tuple[NodeUnion, Assignment | None]) -> tuple[Products, dict[str, float]]:
        """Assign final ids to what the node knows."""
        return assign_node(*inputs).to_arrays(), {}
