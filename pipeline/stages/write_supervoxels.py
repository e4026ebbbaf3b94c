"""Fragments -> supervoxels: the parts of a basin that chunk faces had cut get one id again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.setup import Setup
from pipeline.stages.table_stage import TableStage

WAY: tuple[type[ChainStage], ...] = (BuildRegionGraph, Agglomerate, CutMergeTree, AssignSegments)
"""The stages on the way from the joins to the table."""


class WriteSupervoxels(TableStage):
    """Fragments -> supervoxels (uint64).

    The column depends on fragments and joins alone, never on linkage or threshold: so ``upstream`` is the fingerprint
    of the stage that wrote both, and neither another linkage nor another threshold writes the supervoxels again. The
    joins get there through the arithmetic of all stages in ``WAY``.
    """

    name = "write_supervoxels"
    column = "supervoxel"
    volumes = (OutputVolume("supervoxels", "uint64"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with supervoxels, which applies the joins."""
        fragments = before.get(ExtractSupervoxels.name)
        return None if fragments is None else cls(setup.layout, fragments.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """Fragments and joins, and the arithmetic that brings the joins into the table."""
        return self.upstream, [stage.algorithm for stage in WAY]
