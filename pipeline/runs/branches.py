"""What a finished run can have besides, one row each: a table of the run file turns it on; ``petaseg add`` adds one.

A branch is a table of ``pipeline/config/branches.py``, ``None`` in ``RunConfig`` if it is left out, and stages whose
``of`` returns ``None`` then. No stage of the chain itself reads a branch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.count_inside import CountInside
from pipeline.stages.downsample import DownsampleHeads, DownsampleImage, DownsampleResult, DownsampleSupervoxels
from pipeline.stages.extract_meshes import ExtractMeshes
from pipeline.stages.extract_skeletons import ExtractSkeletons
from pipeline.stages.measure import Measure
from pipeline.stages.write_meshes import WriteMeshes
from pipeline.stages.write_skeletons import WriteSkeletons


@dataclass(frozen=True)
class Branch:
    """A table of the run file, and the stages that it turns on."""

    name: str
    """The name of the table, and what ``petaseg add`` takes."""
    words: str
    """What it makes, for help and messages."""
    stages: tuple[type[ChainStage], ...]
    """In the order in which they run, behind all stages that lead to the result."""
    of_first: tuple[type[ChainStage], ...] = ()
    """Those of them that a second segmentation beside the first does without, since it shares what they make."""


BRANCHES = {
    branch.name: branch
    for branch in (
        Branch(
            "downsample",
            "coarser levels of the volumes, for viewers",
            (DownsampleResult, DownsampleSupervoxels, DownsampleHeads, DownsampleImage),
            of_first=(DownsampleSupervoxels, DownsampleHeads, DownsampleImage),
        ),
        Branch("meshes", "meshes of neurons or objects, for viewers", (ExtractMeshes, WriteMeshes)),
        Branch("skeletons", "middle lines of neurons or objects, with lengths", (ExtractSkeletons, WriteSkeletons)),
        Branch("measures", "tables of sizes, places, surfaces and contacts", (Measure,)),
        Branch("organelles", "a table of which nuclei, mitochondria and the like lie in which neuron", (CountInside,)),
    )
}
"""Each branch by its name."""
