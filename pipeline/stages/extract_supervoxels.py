"""Stage 2: supervoxels by steepest ascent, cut at the faces of the chunk, with a list of the cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.supervoxels import SupervoxelRules, extract_supervoxels
from pipeline.stages import opened
from pipeline.stages.affinities import AffinitySource
from pipeline.stages.base import Products, Stage
from pipeline.stages.layout import Layout

ALGORITHM = 1


@dataclass(frozen=True)
class ExtractSupervoxels(Stage):
    """Affinities -> fragments (uint64, 0 = background) and the joins across the low faces of each chunk."""

    layout: Layout
    affinities: AffinitySource
    mask_url: str | None
    mask_fingerprint: str
    rules: SupervoxelRules

    name = "extract_supervoxels"

    @property
    def fingerprint(self) -> str:
        """Affinities, mask and rules."""
        inputs = [self.layout.fingerprint, self.affinities.fingerprint, self.mask_fingerprint]
        return fingerprint(self.name, ALGORITHM, inputs, asdict(self.rules))

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid, read with the halo of the capped distance and the filter."""
        return [self.layout.grid(self.rules.halo())]

    def prepare(self) -> None:
        """Create the volume of fragments."""
        self.layout.create_volume("fragments", "uint64")

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None]:
        """Affinities and mask with their halo."""
        mask = None if self.mask_url is None else opened.source(self.mask_url).read(chunk.read_box) != 0
        return self.affinities.read(chunk.read_box), mask

    def compute(self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray | None]) -> tuple[Products, dict[str, float]]:
        """Height map, pointers, basins."""
        affinities, mask = inputs
        result = extract_supervoxels(
            affinities,
            mask,
            read_box=chunk.read_box,
            core=chunk.core,
            roi=self.layout.roi,
            bounds=self.layout.bounds,
            rules=self.rules,
        )
        return {"fragments": result.ids, "joins": result.joins}, {}

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the fragments and the joins."""
        self.layout.write("fragments", chunk.core, products["fragments"])
        self.layout.put_part(self.name, chunk, {"joins": products["joins"]})

    def load(self, chunk: Chunk) -> Products:
        """Read both back."""
        return {"fragments": self.layout.read("fragments", chunk.core), **self.layout.get_part(self.name, chunk)}
