"""Fragments -> supervoxels: the parts of a basin that chunk faces had cut get one id again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import TableStage
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class WriteSupervoxels(TableStage):
    """Fragments -> supervoxels (uint64).

    The column depends on the joins alone, never on the threshold: so ``upstream`` is the fingerprint of the region
    graph, and another threshold does not write the supervoxels again.
    """

    layout: Layout
    upstream: str

    name = "write_supervoxels"
    reads = (*TableStage.reads, BuildRegionGraph.name)
    column = "supervoxel"
    volumes = (OutputVolume("supervoxels", "uint64"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self:
        """The stage that applies the joins."""
        return cls(setup.layout, before[BuildRegionGraph.name].fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The region graph, which holds the joins."""
        return (self.upstream,)
