"""Ground truth against the result of a run, as tables that add up over chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.evaluation.basin_counts import BasinCounts
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.run_length import NodeSegments, RunLength, expected_run_length, merge_nodes, node_segments
from pipeline.grid import Chunk
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup, Truth
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.valued_head import ValuedHead
from pipeline.stages.write_classes import WriteClasses
from pipeline.stages.write_objects import WriteMask, WriteObjects
from pipeline.stages.write_supervoxels import WriteSupervoxels

SUPERVOXELS = WriteSupervoxels.volumes[0].name
TAKEN = TakeLabels.volumes[0].name
BASINS = ExtractBasins.volumes[0].name


@dataclass(frozen=True)
class EvaluateSegmentation(ChainStage):
    """Truth and the result -> contingency tables of a chunk, and the segment of every skeleton node in it.

    Neurons and given labels are scored where the truth has labels, and supervoxels as well; masks, objects and classes
    everywhere, since the background counts, and so are basins, level by level, for other thresholds.
    """

    layout: Layout
    upstream: tuple[str, ...]
    """Fingerprints of the stages that wrote the volumes."""
    truth: Truth
    scored: tuple[str, ...]
    """The volumes that are scored."""
    flooded: ValuedHead | None
    """The head whose basins a mask and objects are made of; ``None`` for neurons and classes."""

    name = "evaluate_segmentation"
    reads = (
        *(WriteSupervoxels.name, Relabel.name, ExtractBasins.name, WriteObjects.name, WriteMask.name),
        *(WriteClasses.name, TakeLabels.name),
    )
    algorithm = 3

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has ground truth."""
        truth, stages = setup.inputs.truth, [before[name] for name in cls.reads if name in before]
        if truth is None:
            return None
        names = (stage.volumes[0].name for stage in stages)
        scored, basins = tuple(name for name in names if name != BASINS), before.get(ExtractBasins.name)
        flooded = basins.landscape.head if isinstance(basins, ExtractBasins) else None
        return cls(setup.layout, tuple(stage.fingerprint for stage in stages), truth, scored, flooded)

    @property
    def counts_background(self) -> bool:
        """True if voxels of truth 0 are scored: not those of neurons and given labels, where 0 means not labelled."""
        return not {SUPERVOXELS, TAKEN} & set(self.scored)

    def depends_on(self) -> Sequence[Any]:
        """What is scored, the truth and the box."""
        return self.upstream, self.truth.fingerprint, [self.truth.box.start, self.truth.box.stop]

    def beside_inputs(self) -> tuple[str, ...]:
        """Voxels and grid, the truth, the box and the head."""
        box = self.truth.box
        head = () if self.flooded is None else (str(self.flooded.identity),)
        return self.layout.fingerprint, self.truth.fingerprint, f"{box.start} {box.stop}", *head

    def read(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """The scored voxels of the core: what is scored, and the true labels if there are any, with basins and head."""
        box = chunk.core.intersect(self.truth.box)
        volumes = {name: self.layout.read(name, box) for name in self.scored}
        if self.truth.labels is not None:
            volumes["truth"] = opened.source(self.truth.labels).read(box)
            if self.flooded is not None:
                volumes |= {BASINS: self.layout.read(BASINS, box), "heights": self.flooded.read(box)}
        return volumes

    def compute(self, chunk: Chunk, inputs: dict[str, np.ndarray]) -> tuple[Products, dict[str, float]]:
        """Count every pair of ids, and look up the nodes."""
        products: dict[str, np.ndarray] = {}
        if self.truth.labels is not None:
            for name in self.scored:
                table = Contingency.from_labels(inputs["truth"], inputs[name], background=self.counts_background)
                products |= {f"{name}_{key}": array for key, array in table.to_arrays().items()}
            if self.flooded is not None:
                counts = BasinCounts.of(inputs["truth"], inputs[BASINS], inputs["heights"])
                products |= {f"{BASINS}_{key}": array for key, array in counts.to_arrays().items()}
        if self.truth.skeletons is not None:
            start = chunk.core.intersect(self.truth.box).start
            skeletons = opened.skeletons(self.truth.skeletons)
            nodes = node_segments(skeletons, inputs[self.scored[-1]], start, self.layout.resolution_nm)
            products |= {"node": nodes.node, "node_segment": nodes.segment}
        return products, {}

    def table(self, which: str) -> Contingency:
        """The table of the whole run: ``which`` is one of the scored volumes; the run has true labels."""
        parts = (self.load(chunk) for chunk in self.grids()[0])
        return Contingency.sum(Contingency.from_arrays(_with_prefix(part, f"{which}_")) for part in parts)

    def basin_counts(self, chunk: Chunk) -> BasinCounts:
        """The voxels of a chunk by basin and height; the run has true labels, and makes a mask or objects."""
        return BasinCounts.from_arrays(_with_prefix(self.load(chunk), f"{BASINS}_"))

    def labelled(self, chunk: Chunk) -> int:
        """Voxels of a chunk that have a true label; the run has true labels."""
        table = Contingency.from_arrays(_with_prefix(self.load(chunk), f"{self.scored[-1]}_"))
        return int(table.voxels[table.truth > 0].sum())

    def run_length(self) -> RunLength:
        """The expected run length of the whole run, which has skeletons."""
        skeletons = opened.skeletons(self.truth.skeletons or "")
        parts = (self.load(chunk) for chunk in self.grids()[0])
        nodes = (NodeSegments(part["node"], part["node_segment"]) for part in parts)
        return expected_run_length(skeletons, merge_nodes(nodes, len(skeletons.nodes_nm)))


def _with_prefix(arrays: Products, prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
