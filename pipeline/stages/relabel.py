"""Fragments -> neurons, at the chosen threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.setup import Setup
from pipeline.stages.table_stage import TableStage


class Relabel(TableStage):
    """Fragments -> labels (uint64): the final segmentation at the chosen threshold."""

    name = "relabel"
    column = "segment"
    volumes = (OutputVolume("labels", "uint64"),)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with a merge tree, which applies the table of the cut."""
        table = before.get(AssignSegments.name)
        return None if table is None else cls(setup.layout, table.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The table that is applied."""
        return (self.upstream,)
