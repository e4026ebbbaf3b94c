"""Merges that hold, and a person's corrections -> what these change: one small table for the whole run.

It reads the tables and region graphs of the chunks that hold an edited segment, and of no others; its memory grows with
the supervoxels and contacts of these segments, not with the volume. docs/editing.md says what edits mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.edits import Edit, Edited, Fit, Members, Overrides, apply_edits
from pipeline.segmentation.sizes import Sizes
from pipeline.stages.base import Products
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.cut_tables import CutTables
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class ApplyEdits(TreeStage):
    """Cut tree and edits -> renamed segments, moved supervoxels, how each edit fits, and the sizes of all segments.

    It has one chunk, the root of the tree.
    """

    layout: Layout
    upstream: str
    edits: tuple[Edit, ...]

    name = "apply_edits"
    reads = (BuildRegionGraph.name, CutMergeTree.name)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with a merge tree and edits."""
        cut = before.get(CutMergeTree.name)
        return None if cut is None or not setup.edits else cls(setup.layout, cut.fingerprint, setup.edits)

    def depends_on(self) -> Sequence[Any]:
        """The cut (and thereby the region graph), and the edits."""
        return self.upstream, [edit.plain() for edit in self.edits]

    def grids(self) -> Sequence[ChunkGrid]:
        """The grid of the root alone."""
        return self.levels()[-1:]

    @property
    def root(self) -> Chunk:
        """Its only chunk."""
        return next(iter(self.grids()[0]))

    def read(self, chunk: Chunk) -> tuple[Members, Sizes]:
        """The segments that edits name, and the sizes of all segments before them."""
        sizes = Sizes.from_arrays(self.layout.get_part(CutMergeTree.name, chunk))
        return self.members(CutTables.stored(self)), sizes

    def members(self, tables: CutTables) -> Members:
        """All supervoxels and contacts of the segments that edits name, at the cut of these tables."""
        return tables.members([each for edit in self.edits for each in edit.supervoxels])

    def compute(self, chunk: Chunk, inputs: tuple[Members, Sizes]) -> tuple[Products, dict[str, float]]:
        """Apply all edits in their order."""
        members, sizes = inputs
        edited = apply_edits(self.edits, members)
        fits = np.array(edited.fits, np.uint8)
        after = sizes_after(sizes, members, edited)
        return {**Overrides.of(members, edited.ids).to_arrays(), "fits": fits, **after.to_arrays()}, {}

    def fits(self) -> list[Fit]:
        """How each edit fits to the stored result."""
        return [Fit(int(each)) for each in self.load(self.root)["fits"]]


def sizes_after(sizes: Sizes, members: Members, edited: Edited) -> Sizes:
    """The sizes of all segments after edits, from those before."""
    return sizes.replaced(voxels_of(members.segments, members.sizes), voxels_of(edited.ids, members.sizes))


def voxels_of(ids: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each id once, ascending, and the sum of its sizes, int64."""
    names, place = np.unique(ids, return_inverse=True)
    total = np.zeros(len(names), np.int64)
    np.add.at(total, place, sizes)
    return names, total
