"""Scores as published codes and papers compute them, for comparison; ``scores.py``, ``masks.py``, ``distances.py`` and
``objects.py`` have the scores of the pipeline.

f1_to_iou             "IoU" of the C-RBP paper: F / (2 - F) of the F1 of pixels
snemi_rand            adapted Rand error as in the SNEMI3D script: squares of counts, not pairs of distinct voxels
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency


def f1_to_iou(f1: float) -> float:
    """TP / (TP + FP + FN) = F / (2 - F), for F = 2 TP / (2 TP + FP + FN)."""
    return f1 / (2 - f1)


def snemi_rand(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Adapted Rand error, precision, recall, with the sums of the SNEMI3D script.

    Voxels of truth 0 are ignored; each voxel of prediction 0 is a segment of its own, of weight 1 / all voxels.
    """
    table = Contingency.from_labels(truth, prediction)
    if not table.total:
        raise VolumeError("0 voxels with a true label: a score needs at least one; check the labels")
    counts, assigned = table.voxels.astype(np.float64), table.predicted != 0
    alone = counts[~assigned].sum() / truth.size
    both = np.square(counts[assigned]).sum() + alone
    in_objects = np.square(_sums(table.truth, counts)).sum()
    in_segments = np.square(_sums(table.predicted[assigned], counts[assigned])).sum() + alone
    precision, recall = both / in_segments, both / in_objects
    return float(1 - 2 * precision * recall / (precision + recall)), float(precision), float(recall)


def _sums(ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum of the counts of each id."""
    return np.bincount(np.unique(ids, return_inverse=True)[1], counts)
