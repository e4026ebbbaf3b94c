"""Ground truth against supervoxels and neurons, as tables that add up over chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.run_length import NodeSegments, RunLength, expected_run_length, merge_nodes, node_segments
from pipeline.grid import Chunk
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup, Truth
from pipeline.stages.write_supervoxels import WriteSupervoxels


@dataclass(frozen=True)
class EvaluateSegmentation(ChainStage):
    """Truth, supervoxels and labels -> contingency tables of a chunk, and the segment of every skeleton node in it."""

    layout: Layout
    upstream: tuple[str, ...]
    """Fingerprints of the supervoxels and of the labels."""
    truth: Truth

    name = "evaluate_segmentation"
    reads = (WriteSupervoxels.name, Relabel.name)
    algorithm = 3

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has ground truth."""
        truth, upstream = setup.inputs.truth, tuple(before[name].fingerprint for name in cls.reads)
        return None if truth is None else cls(setup.layout, upstream, truth)

    def depends_on(self) -> Sequence[Any]:
        """Both segmentations, the truth and the box."""
        return self.upstream, self.truth.fingerprint, [self.truth.box.start, self.truth.box.stop]

    def beside_inputs(self) -> tuple[str, ...]:
        """Voxels and grid, the truth and the box."""
        box = self.truth.box
        return self.layout.fingerprint, self.truth.fingerprint, f"{box.start} {box.stop}"

    def read(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """The scored voxels of the core: both segmentations, and the true labels if there are any."""
        box = chunk.core.intersect(self.truth.box)
        volumes = {name: self.layout.read(name, box) for name in ("supervoxels", "labels")}
        if self.truth.labels is not None:
            volumes["truth"] = opened.source(self.truth.labels).read(box)
        return volumes

    def compute(self, chunk: Chunk, inputs: dict[str, np.ndarray]) -> tuple[Products, dict[str, float]]:
        """Count every pair of ids, and look up the nodes."""
        products: dict[str, np.ndarray] = {}
        if self.truth.labels is not None:
            for name in ("supervoxels", "labels"):
                table = Contingency.from_labels(inputs["truth"], inputs[name])
                products |= {f"{name}_{key}": array for key, array in table.to_arrays().items()}
        if self.truth.skeletons is not None:
            start = chunk.core.intersect(self.truth.box).start
            skeletons = opened.skeletons(self.truth.skeletons)
            nodes = node_segments(skeletons, inputs["labels"], start, self.layout.resolution_nm)
            products |= {"node": nodes.node, "node_segment": nodes.segment}
        return products, {}

    def table(self, which: str) -> Contingency:
        """The table of the whole run: ``which`` is ``supervoxels`` or ``labels``; the run has true labels."""
        parts = (self.load(chunk) for chunk in self.grids()[0])
        return Contingency.sum(Contingency.from_arrays(_with_prefix(part, f"{which}_")) for part in parts)

    def labelled(self, chunk: Chunk) -> int:
        """Voxels of a chunk that have a true label; the run has true labels."""
        table = Contingency.from_arrays(_with_prefix(self.load(chunk), "labels_"))
        return int(table.voxels[table.truth > 0].sum())

    def run_length(self) -> RunLength:
        """The expected run length of the whole run, which has skeletons."""
        skeletons = opened.skeletons(self.truth.skeletons or "")
        parts = (self.load(chunk) for chunk in self.grids()[0])
        nodes = (NodeSegments(part["node"], part["node_segment"]) for part in parts)
        return expected_run_length(skeletons, merge_nodes(nodes, len(skeletons.nodes_nm)))


def _with_prefix(arrays: Products, prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
