"""Fragments -> neurons: each voxel's id is replaced through the small table of its chunk.

A chunk needs only the ids that it holds, so no worker ever loads a global table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.grid import Chunk
from pipeline.segmentation.remap import apply_remap
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


class TableStage(ChainStage):
    """Replaces the id of each voxel of the fragments by a column of the table that ``AssignSegments`` wrote."""

    reads: ClassVar[tuple[str, ...]] = (ExtractSupervoxels.name, AssignSegments.name)
    has_part = False
    column: ClassVar[str]

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fragments of the core and their table."""
        table = self.layout.get_part(AssignSegments.name, chunk)
        return self.layout.read("fragments", chunk.core), table["fragment"], table[self.column]

    def compute(
        self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[Products, dict[str, float]]:
        """Replace every id."""
        return {self.volumes[0].name: apply_remap(*inputs)}, {}


@dataclass(frozen=True)
class Relabel(TableStage):
    """Fragments -> labels (uint64): the final segmentation at the chosen threshold."""

    layout: Layout
    upstream: str

    name = "relabel"
    column = "segment"
    volumes = (OutputVolume("labels", "uint64"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self:
        """The stage that applies the table of the cut."""
        return cls(setup.layout, before[AssignSegments.name].fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The table that is applied."""
        return (self.upstream,)
