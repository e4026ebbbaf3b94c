"""The chain of stages from an image, or from what a network predicted, to neurons and scores. Open this file first.

Each stage defines in its own file in ``pipeline/stages`` which stages it reads (``reads``) and how it is made for a run
(``of``). Order, fingerprints, Luigi's tasks, plan, status and cost follow from this list.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ConfigError
from pipeline.models.heads import EXTREMES, KNOWN
from pipeline.runs.branches import BRANCHES
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.apply_edits import ApplyEdits
from pipeline.stages.assign_objects import AssignObjects
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.build_basin_graph import BuildBasinGraph
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.filter_head import FilterHead
from pipeline.stages.predict_heads import PredictHeads
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.unite_basins import UniteBasins
from pipeline.stages.write_classes import WriteClasses
from pipeline.stages.write_objects import WriteMask, WriteObjects
from pipeline.stages.write_supervoxels import WriteSupervoxels

STAGES: list[type[ChainStage]] = [
    PredictHeads,  # image -> heads, by the network; a run that begins with affinities has no such stage
    ExtractSupervoxels,  # affinities -> fragments of supervoxels, cut at chunk faces
    BuildRegionGraph,  # fragments and affinities -> which regions touch, and how strongly
    Agglomerate,  # region graph -> merge tree, from the chunks up to the root
    CutMergeTree,  # merge tree -> the merges that hold at the chosen threshold
    ApplyEdits,  # merges that hold, and a person's corrections -> what these change; only in a run that has some
    AssignSegments,  # merges that hold -> the final id of every fragment, from the root down to the chunks
    WriteSupervoxels,  # fragments -> supervoxels, whole again across chunk faces
    Relabel,  # fragments -> neurons
    FilterHead,  # a head -> its median in a box, if the run file asks for it
    ExtractBasins,  # a head -> fragments of its basins, for a mask or objects
    BuildBasinGraph,  # basins -> which touch, and at what height
    UniteBasins,  # basin graph -> pieces and objects, by seeds, thresholds and sizes
    AssignObjects,  # pieces and objects -> the final id of every fragment
    WriteObjects,  # basins -> objects
    WriteMask,  # basins -> a mask
    TakeLabels,  # labels of any program -> the result
    WriteClasses,  # a head of class probabilities -> the most probable class of each voxel
    EvaluateSegmentation,  # the result and ground truth -> tables of scores; only with ground truth
    *(kind for branch in BRANCHES.values() for kind in branch.stages),  # what a finished run can have besides
]
"""All stages, each after those that it reads. A new stage is a file in ``pipeline/stages`` and a line here, or a row of
``BRANCHES`` if a table of the run file turns it on.
"""


def build_chain(setup: Setup) -> tuple[ChainStage, ...]:
    """The stages of a run, in the order in which they run; stages that the run does not need are left out."""
    check_order(STAGES)
    built: dict[str, ChainStage] = {}
    for kind in STAGES:
        stage = kind.of(setup, {name: built[name] for name in kind.reads if name in built})
        if stage is not None:
            built[kind.name] = stage
    return tuple(built.values())


def names_of_volumes() -> tuple[str, ...]:
    """Names of all volumes that stages of some run write: the known heads, their extremes, those of the stages."""
    extremes = (name + each for name in KNOWN for each in EXTREMES)
    return (*KNOWN, *extremes, *(volume.name for kind in STAGES for volume in kind.volumes))


def with_readers(name: str, *, without: str = "") -> tuple[str, ...]:
    """The stage of this name and all that read its products, directly or through others, in the order of the chain.

    without: a stage whose own products do not depend on those of ``name``, though it reads them.
    """
    found = [name]
    for kind in STAGES:
        if kind.name not in (*found, without) and set(kind.reads) & set(found):
            found.append(kind.name)
    return tuple(found)


def check_order(stages: Sequence[type[ChainStage]]) -> None:
    """Raise ``ConfigError`` unless every stage has its own name and comes after all stages that it reads."""
    seen: set[str] = set()
    for kind in stages:
        if kind.name in seen:
            raise ConfigError(f"two stages are called {kind.name}; give {kind.__name__} another name")
        if missing := [name for name in kind.reads if name not in seen]:
            raise ConfigError(
                f"stage {kind.name} reads {', '.join(missing)}, which STAGES does not list before it: "
                f"move {kind.__name__} behind them"
            )
        seen.add(kind.name)
