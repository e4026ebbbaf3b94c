"""A stage that replaces each voxel's id of the fragments through the small table of its chunk.

A chunk needs only the ids that it holds, so no worker ever loads a global table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.grid import Chunk
from pipeline.segmentation.remap import apply_remap
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.layout import Layout


@dataclass(frozen=True)
class TableStage(ChainStage):
    """Replaces the id of each voxel of the fragments by a column of the table that ``AssignSegments`` wrote."""

    layout: Layout
    upstream: str
    """Fingerprint of the stage that decides about the column."""

    reads: ClassVar[tuple[str, ...]] = (ExtractSupervoxels.name, AssignSegments.name)
    has_part = False
    column: ClassVar[str]

    def beside_inputs(self) -> tuple[str, ...]:
        """The voxels and the grid: fragments and table of the same chunk are all that is read."""
        return (self.layout.fingerprint,)

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fragments of the core and their table."""
        table = self.layout.get_part(AssignSegments.name, chunk)
        return self.layout.read("fragments", chunk.core), table["fragment"], table[self.column]

    def compute(
        self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[Products, dict[str, float]]:
        """Replace every id."""
        return {self.volumes[0].name: apply_remap(*inputs)}, {}
