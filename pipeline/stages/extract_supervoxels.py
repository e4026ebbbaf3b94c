"""Affinities -> supervoxels by steepest ascent, cut at the faces of the chunk, with a list of the cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.supervoxels import SupervoxelRules, extract_supervoxels
from pipeline.stages.affinities import AnyAffinities, affinity_source
from pipeline.stages.base import Products
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.tissue import count_masked, tissue


@dataclass(frozen=True)
class ExtractSupervoxels(ChainStage):
    """Affinities -> fragments (uint64, 0 = background) and the joins across the low faces of each chunk."""

    layout: Layout
    affinities: AnyAffinities
    mask_url: str | None
    mask_fingerprint: str
    rules: SupervoxelRules

    name = "extract_supervoxels"
    reads = (BlendHeads.name,)
    volumes = (OutputVolume("fragments", "uint64"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that makes neurons, with the affinities that were predicted or given."""
        if setup.config.segmentation.kind != "neurons":
            return None
        affinities, inputs = affinity_source(setup, before.get(BlendHeads.name)), setup.inputs
        return cls(setup.layout, affinities, inputs.mask_url, inputs.mask_fingerprint, inputs.rules)

    def depends_on(self) -> Sequence[Any]:
        """Affinities and how they are read, mask and rules."""
        return self.layout.fingerprint, list(self.affinities.identity), self.mask_fingerprint, self.rules.identity

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid, read with the halo of the capped distance and the filter."""
        return [self.layout.grid(self.rules.halo())]

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None]:
        """Affinities and mask with their halo."""
        return self.affinities.read(chunk.read_box), tissue(self.mask_url, self.layout, chunk.read_box)

    def compute(self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray | None]) -> tuple[Products, dict[str, float]]:
        """Compute height map, pointers and basins."""
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
        counters = count_masked(mask, chunk.core, chunk.read_box.start)
        return {"fragments": result.ids, "joins": result.joins}, counters
