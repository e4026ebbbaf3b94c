"""Scores of labels against ground truth."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from petaseg.checks import Array
from pipeline.volumes import Volume, open_volume

if TYPE_CHECKING:
    from pipeline.evaluation.scores import Scores

Labels: TypeAlias = "Array | str | PathLike[str]"


def evaluate(labels: Labels, truth: Labels) -> Scores:
    """Variation of information (split, merge), adapted Rand error, neurons found.

    Args:
        labels: the segmentation: integers (z, y, x), 0 = none; an array, an open volume or the path of one.
        truth: the ground truth, likewise; 0, -1 and the largest uint32 or uint64 are not scored.

    Two volumes are compared block by block, in memory that does not grow with them, over the voxels that both have; an
    array must cover the same voxels as the other argument.
    Raises ``VolumeError`` for labels that are no integers, of another shape, or without a voxel to score.
    """
    from pipeline.evaluation.compare import compare_volumes
    from pipeline.evaluation.contingency import Contingency
    from pipeline.evaluation.scores import score

    predicted, true = _opened(labels), _opened(truth)
    if isinstance(predicted, Volume) and isinstance(true, Volume):
        return compare_volumes(true.url, predicted.url).scores
    return score(Contingency.from_labels(np.asarray(true), np.asarray(predicted)))


def _opened(labels: Labels) -> Array:
    return open_volume(fspath(labels)) if isinstance(labels, str | PathLike) else labels
