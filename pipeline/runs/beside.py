"""A second segmentation in a run directory, beside the first: the same merge tree, cut elsewhere.

    petaseg relabel runs/first --threshold 0.3 --output labels_03.zarr

    <run>/labels_03.zarr            its labels
    <run>/beside/labels_03/         a folder that status, verify and run take like a run directory; relabel makes it

It shares all stages up to the merge tree with the run, and never computes one of them.
"""

from __future__ import annotations

import os
import re

from pipeline.errors import ConfigError
from pipeline.runs.chain import STAGES, names_of_volumes, with_readers
from pipeline.runs.outline import KEY as OUTLINE_KEY
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.stages.layout import BESIDE, Layout, LayoutBeside
from pipeline.stages.write_supervoxels import WriteSupervoxels
from pipeline.storage import ObjectStore
from pipeline.volumes.places import real
from pipeline.volumes.removal import object_names

NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,99})(\.zarr)?")
LEFT_OUT = (WriteSupervoxels.name, EvaluateSegmentation.name)
"""Stages that a second segmentation does without: supervoxels are shared, and scores are those of the first."""
OWN = tuple(name for name in with_readers(CutMergeTree.name) if name not in LEFT_OUT)
"""Stages that belong to a second segmentation alone."""
VOLUMES = tuple(volume.name for kind in STAGES if kind.name in OWN for volume in kind.volumes)
NEEDED = Agglomerate.name
"""The stage that the run must have finished."""


def name_of(output: str) -> str:
    """The name of a second segmentation out of ``labels_03.zarr``; ``ConfigError`` unless it is a new plain name."""
    found = NAME.fullmatch(output)
    taken = set(names_of_volumes())
    if found is None or found[1] in taken:
        raise ConfigError(
            f"--output is {output[:120]!r}; it names a volume within the run directory by letters, digits, - and _, "
            f"and none of the run's own ({', '.join(sorted(taken))}): for example --output labels_03.zarr"
        )
    return found[1]


def name_in(folder: str, run_directory: str) -> str:
    """The name of the segmentation whose folder in the run directory this is; an empty text if it is no such folder.

    Both are compared as the folders that they lead to, so a relative path and one through a link are understood.
    """
    start, _, name = real(folder).rpartition("/")
    return name if start == f"{real(run_directory)}/{BESIDE}" and NAME.fullmatch(name) else ""


def layout_beside(layout: Layout, name: str) -> LayoutBeside:
    """The layout of a second segmentation of a run."""
    return LayoutBeside(**vars(layout), name=name, own=OWN, volumes=VOLUMES)


def refuse_foreign(layout: LayoutBeside) -> None:
    """``ConfigError`` if something is there by the name of the segmentation that was not made by petaseg for this."""
    if ObjectStore(layout.home(CutMergeTree.name)).exists(OUTLINE_KEY):
        return
    place = ObjectStore(f"{layout.run_url}/{layout.name}.zarr")
    path = place.local_path
    if next(iter(object_names(place)), None) is not None or (path is not None and os.path.lexists(path)):
        raise ConfigError(
            f"{place.url} is there already, and `petaseg relabel --output` has not made it; nothing in it is replaced: "
            "choose another name"
        )
