"""Labels of any program -> the result of a run, within the tissue: so they get all that neurons of petaseg get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.evaluation.contingency import labelled_voxels
from pipeline.grid import Chunk
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.tissue import count_masked, tissue


@dataclass(frozen=True)
class TakeLabels(ChainStage):
    """Given labels -> the same ids as uint64; 0 outside of the tissue and for marks that are no ids, such as -1."""

    layout: Layout
    url: str
    """Where the labels are; it has no effect on the products."""
    input_fingerprint: str
    mask_url: str | None
    mask_fingerprint: str

    name = "take_labels"
    volumes = (OutputVolume("segmentation", "uint64"),)
    has_part = False

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that begins with labels."""
        inputs = setup.inputs
        if setup.config.input.labels is None:
            return None
        return cls(setup.layout, inputs.url, inputs.fingerprint, inputs.mask_url, inputs.mask_fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The voxels and the grid, the labels and the mask."""
        return self.layout.fingerprint, self.input_fingerprint, self.mask_fingerprint

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels of the core, integers (z, y, x), and the tissue."""
        return opened.source(self.url).read(chunk.core), tissue(self.mask_url, self.layout, chunk.core)

    def compute(self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray | None]) -> tuple[Products, dict[str, float]]:
        """Take the ids."""
        labels, mask = inputs
        kept = labelled_voxels(labels) if mask is None else labelled_voxels(labels) & mask
        taken = np.where(kept, labels, 0).astype(np.uint64)
        return {self.volumes[0].name: taken}, count_masked(mask, chunk.core, chunk.core.start)
