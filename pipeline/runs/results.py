"""The kinds of results that a run can end in, each with the stages on which other commands build.

A kind is a value of ``segmentation.kind``. A stage writes the voxels of the result. Neurons, masks and objects are cut
from stored tables by the rules of the run file (``Cut``), so that other rules need no network; a class map is not,
nor are labels that were given.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runs.branches import BRANCHES
from pipeline.runs.chain import with_readers
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.build_basin_graph import BuildBasinGraph
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.relabel import Relabel
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.unite_basins import UniteBasins
from pipeline.stages.write_classes import WriteClasses
from pipeline.stages.write_objects import WriteMask, WriteObjects
from pipeline.stages.write_supervoxels import WriteSupervoxels

LEFT_OUT = (
    *(WriteSupervoxels.name, EvaluateSegmentation.name),
    *(kind.name for branch in BRANCHES.values() for kind in branch.of_first),
)
"""Stages that a second segmentation does without: supervoxels are shared, and scores are those of the first."""


@dataclass(frozen=True)
class Cut:
    """How a result is cut from stored tables, at a threshold."""

    tables: type[ChainStage]
    """The stage that must be complete before."""
    stage: type[ChainStage]
    """The stage from which ``petaseg relabel`` computes again; its root holds the sizes of all segments."""


@dataclass(frozen=True)
class ResultKind:
    """What a run makes of the predictions."""

    name: str
    words: str
    """What the things in the result are called."""
    count: str
    """What they are called in a row of numbers."""
    first: type[ChainStage]
    """The stage that reads the mask, and counts its voxels."""
    result: type[ChainStage]
    """The stage that writes the voxels of the result."""
    cut: Cut | None
    """``None`` if the result has no tables and no threshold, so that there is nothing to relabel."""

    @property
    def can_be_cut(self) -> bool:
        """True if the result has a threshold, and another one can be applied to stored tables."""
        return self.cut is not None

    @property
    def own(self) -> tuple[str, ...]:
        """The stages that belong to a second segmentation alone, in the order of the chain; none without a cut."""
        return () if self.cut is None else tuple(n for n in with_readers(self.cut.stage.name) if n not in LEFT_OUT)

    @property
    def volume(self) -> str:
        """The name of the volume that holds the result."""
        return self.result.volumes[0].name


MERGES, BASINS = Cut(Agglomerate, CutMergeTree), Cut(BuildBasinGraph, UniteBasins)
KINDS = {
    kind.name: kind
    for kind in (
        ResultKind("neurons", "neurons", "segments", ExtractSupervoxels, Relabel, MERGES),
        ResultKind("mask", "pieces of the mask", "pieces found", ExtractBasins, WriteMask, BASINS),
        ResultKind("objects", "objects", "objects found", ExtractBasins, WriteObjects, BASINS),
        ResultKind("classes", "classes", "classes found", WriteClasses, WriteClasses, None),
        ResultKind("labels", "segments", "segments", TakeLabels, TakeLabels, None),
    )
}
"""Each value of ``segmentation.kind``."""
