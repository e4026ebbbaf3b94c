"""Stage 8: ground truth against supervoxels and neurons, as tables that add up over chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config import fingerprint
from pipeline.evaluation.contingency import Contingency
from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages import resources
from pipeline.stages.base import Products, Stage
from pipeline.stages.layout import Layout

ALGORITHM = 1


@dataclass(frozen=True)
class EvaluateSegmentation(Stage):
    """Truth, supervoxels and labels -> two contingency tables a chunk: (truth, supervoxel) and (truth, neuron)."""

    layout: Layout
    upstream: tuple[str, str]
    """Fingerprints of the supervoxels and of the labels."""
    truth_url: str
    truth_fingerprint: str
    box: BoundingBox
    """The part that is scored."""

    name = "evaluate_segmentation"

    @property
    def fingerprint(self) -> str:
        """Both segmentations, the truth and the box."""
        box = [self.box.start, self.box.stop]
        return fingerprint(self.name, ALGORITHM, self.upstream, self.truth_fingerprint, box)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid, without halo."""
        return [self.layout.grid()]

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The scored voxels of the core, three times."""
        box = chunk.core.intersect(self.box)
        truth = resources.source(self.truth_url).read(box)
        return truth, self.layout.read("supervoxels", box), self.layout.read("labels", box)

    def compute(
        self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[Products, dict[str, float]]:
        """Count every pair of ids."""
        truth, supervoxels, labels = inputs
        tables = {"supervoxels": supervoxels, "labels": labels}
        return {
            f"{name}_{key}": array
            for name, volume in tables.items()
            for key, array in Contingency.from_labels(truth, volume).to_arrays().items()
        }, {}

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store both tables."""
        self.layout.put_part(self.name, chunk, products)

    def load(self, chunk: Chunk) -> Products:
        """Read both back."""
        return self.layout.get_part(self.name, chunk)

    def table(self, which: str) -> Contingency:
        """The table of the whole run: ``which`` is ``supervoxels`` or ``labels``."""
        total = Contingency.empty()
        for chunk in self.grids()[0]:
            part = self.load(chunk)
            prefix = f"{which}_"
            total = total + Contingency.from_arrays(
                {key.removeprefix(prefix): array for key, array in part.items() if key.startswith(prefix)}
            )
        return total
