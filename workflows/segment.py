"""The chain of stages, readable top to bottom. Open this file first.

    luigi --module workflows.segment Segment --config run.yaml --local-scheduler

does the same as ``petaseg run run.yaml``. Luigi decides only the order: what a stage does is in ``pipeline.stages``,
what of it is done is in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator

import luigi

from workflows.tasks import RunTask, StageTask


class PredictAffinities(StageTask):
    """Image -> affinities, by the network."""

    stage_name = "predict_affinities"


class ExtractSupervoxels(StageTask):
    """Affinities -> fragments of supervoxels, cut at chunk faces."""

    stage_name = "extract_supervoxels"

    def requires(self) -> list[luigi.Task]:
        """The network's affinities, unless the run starts from given ones."""
        return [self.clone(PredictAffinities)] if self.has_stage(PredictAffinities.stage_name) else []


class BuildRegionGraph(StageTask):
    """Fragments and affinities -> who touches whom, and how strongly."""

    stage_name = "build_region_graph"

    def requires(self) -> list[luigi.Task]:
        """The fragments of a chunk and of its lower neighbours."""
        return [self.clone(ExtractSupervoxels)]


class Agglomerate(StageTask):
    """Region graph -> merge tree, from the chunks up to the whole."""

    stage_name = "agglomerate"

    def requires(self) -> list[luigi.Task]:
        """The region graph of every chunk."""
        return [self.clone(BuildRegionGraph)]


class CutMergeTree(StageTask):
    """Merge tree -> the merges that hold at the chosen threshold."""

    stage_name = "cut_merge_tree"

    def requires(self) -> list[luigi.Task]:
        """The whole merge tree."""
        return [self.clone(Agglomerate)]


class AssignSegments(StageTask):
    """Merges that hold -> the final id of every fragment, from the whole down to the chunks."""

    stage_name = "assign_segments"

    def requires(self) -> list[luigi.Task]:
        """The cut of every node of the tree."""
        return [self.clone(CutMergeTree)]


class WriteSupervoxels(StageTask):
    """Fragments -> supervoxels, whole again across chunk faces."""

    stage_name = "write_supervoxels"

    def requires(self) -> list[luigi.Task]:
        """The table of every chunk."""
        return [self.clone(AssignSegments)]


class Relabel(StageTask):
    """Fragments -> neurons."""

    stage_name = "relabel"

    def requires(self) -> list[luigi.Task]:
        """The table of every chunk."""
        return [self.clone(AssignSegments)]


class EvaluateSegmentation(StageTask):
    """Neurons and ground truth -> tables of scores."""

    stage_name = "evaluate_segmentation"

    def requires(self) -> list[luigi.Task]:
        """Both segmentations."""
        return [self.clone(WriteSupervoxels), self.clone(Relabel)]


class Segment(RunTask, luigi.WrapperTask):
    """A whole run: from the image to neurons, and to scores if there is ground truth."""

    task_namespace = ""  # so that the documented command needs no prefix

    def requires(self) -> Iterator[luigi.Task]:
        """The last stages of the chain."""
        yield self.clone(WriteSupervoxels)
        yield self.clone(Relabel)
        if self.has_stage(EvaluateSegmentation.stage_name):
            yield self.clone(EvaluateSegmentation)
