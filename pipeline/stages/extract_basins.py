"""A head -> its basins by steepest ascent, cut at the faces of the chunk, with a list of the cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.objects.landscape import extract_basins
from pipeline.segmentation.objects.rules import LandscapeRules
from pipeline.stages.base import Products
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.filter_head import FilterHead
from pipeline.stages.landscape import Landscape, landscape_of
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.tissue import count_masked, tissue


@dataclass(frozen=True)
class ExtractBasins(ChainStage):
    """A head and conditions -> fragments of basins (uint64, 0 = nothing) and the joins across the low faces.

    The lowest threshold, the mask and conditions on other heads decide where basins are; seeds and the threshold in
    use are applied later, to tables.
    """

    layout: Layout
    landscape: Landscape
    mask_url: str | None
    mask_fingerprint: str
    rules: LandscapeRules

    name = "extract_basins"
    reads = (BlendHeads.name, FilterHead.name)
    volumes = (OutputVolume("basins", "uint64"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that makes a mask of one head, or objects."""
        landscape, inputs = landscape_of(setup, before), setup.inputs
        if landscape is None:
            return None
        rules = landscape.rules(setup.config.segmentation)
        return cls(setup.layout, landscape, inputs.mask_url, inputs.mask_fingerprint, rules)

    def depends_on(self) -> Sequence[Any]:
        """Heads and conditions, mask and rules."""
        return self.layout.fingerprint, self.landscape.identity, self.mask_fingerprint, self.rules.of_basins

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid, read with the few voxels around the core that decide where its voxels ascend to."""
        return [self.layout.grid(self.rules.halo())]

    def read(self, chunk: Chunk) -> tuple[np.ndarray | None, ...]:
        """Landscape, where objects may be, where seeds may be, and mask, with their halo."""
        box = chunk.read_box
        within, seeds = self.landscape.within(box), self.landscape.seeds(box)
        return self.landscape.head.read(box), within, seeds, tissue(self.mask_url, self.layout, box)

    def compute(self, chunk: Chunk, inputs: tuple[np.ndarray | None, ...]) -> tuple[Products, dict[str, float]]:
        """Compute pointers and basins."""
        heights, within, seeds, mask = inputs
        assert heights is not None
        both = within if mask is None else mask if within is None else mask & within
        boxes = {"read_box": chunk.read_box, "core": chunk.core, "roi": self.layout.roi, "bounds": self.layout.bounds}
        found = extract_basins(heights, both, seeds, rules=self.rules, **boxes)
        return {"basins": found.ids, "joins": found.joins}, count_masked(mask, chunk.core, chunk.read_box.start)
