"""A head -> its median in a box around each voxel: specks vanish and gaps close before it is thresholded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.geometry import Vec, as_vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages.base import Products
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.valued_head import ValuedHead, chosen_head


@dataclass(frozen=True)
class FilterHead(ChainStage):
    """A head -> the median of its stored numbers in a box (uint8); at the edge, of those voxels that there are."""

    layout: Layout
    head: ValuedHead
    widths: Vec
    """Odd widths of the box, z, y, x."""

    name = "filter_head"
    reads = (BlendHeads.name,)
    volumes = (OutputVolume("filtered", "uint8"),)
    has_part = False

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run whose file asks for a median."""
        table = setup.config.segmentation
        if table.median is None:
            return None
        head = chosen_head(setup, before.get(BlendHeads.name))
        return cls(setup.layout, head, as_vec(table.median))

    def depends_on(self) -> Sequence[Any]:
        """The head and the box."""
        return self.layout.fingerprint, self.head.identity, self.widths

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid, read with half of the box."""
        return [self.layout.grid((self.widths // 2, self.widths // 2))]

    def read(self, chunk: Chunk) -> np.ndarray:
        """The head with its halo."""
        return self.head.read(chunk.read_box)

    def compute(self, chunk: Chunk, inputs: np.ndarray) -> tuple[Products, dict[str, float]]:
        """Take the median around every voxel."""
        from skimage.filters import rank  # only this stage needs it

        found = rank.median(inputs, np.ones(self.widths, np.uint8))
        return {"filtered": np.ascontiguousarray(found[chunk.core.slices(chunk.read_box.start)])}, {}
