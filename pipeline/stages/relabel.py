"""Stage 7: from fragments to supervoxels, and to neurons: each voxel's id is replaced through a small table.

A chunk needs only the ids that it holds, so no worker ever loads a global table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.remap import apply_remap
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.base import Products, Stage
from pipeline.stages.layout import Layout

ALGORITHM = 1


@dataclass(frozen=True)
class Relabel(Stage):
    """Fragments -> labels (uint64): the final segmentation at the chosen threshold."""

    layout: Layout
    upstream: str

    name = "relabel"
    column = "segment"
    volume = "labels"

    @property
    def fingerprint(self) -> str:
        """The table that is applied."""
        return fingerprint(self.name, ALGORITHM, self.upstream)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid, without halo."""
        return [self.layout.grid()]

    def prepare(self) -> None:
        """Create the output volume."""
        self.layout.create_volume(self.volume, "uint64")

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fragments of the core and their table."""
        table = self.layout.get_part(AssignSegments.name, chunk)
        return self.layout.read("fragments", chunk.core), table["fragment"], table[self.column]

    def compute(
        self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[Products, dict[str, float]]:
        """Replace every id."""
        return {self.volume: apply_remap(*inputs)}, {}

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the core."""
        self.layout.write(self.volume, chunk.core, products[self.volume])

    def load(self, chunk: Chunk) -> Products:
        """Read the core back."""
        return {self.volume: self.layout.read(self.volume, chunk.core)}
