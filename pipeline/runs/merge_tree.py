"""The merge tree of a finished run, gathered from the nodes in which its merges were found."""

from __future__ import annotations

import numpy as np

from pipeline.runs.run import Run
from pipeline.segmentation.merge_tree import canonical
from pipeline.stages.agglomerate import Agglomerate


def read_merge_tree(run: Run) -> np.recarray:
    """All merges of a run in canonical order, best first: the same bytes whatever the chunking.

    It needs 24 bytes of memory a merge; the pipeline itself never builds it.
    """
    stage = run.stage(Agglomerate.name)
    assert isinstance(stage, Agglomerate)
    parts = [stage.merges(chunk) for grid in stage.grids() for chunk in grid]
    return canonical(np.concatenate(parts))
