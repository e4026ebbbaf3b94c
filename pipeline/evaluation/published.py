"""Scores as published codes and papers compute them, for comparison; ``scores.py`` has the scores of the pipeline.

f1_to_iou             "IoU" of the C-RBP paper: F / (2 - F) of the F1 of pixels
mask_scores           IoU of the foreground, mean IoU, precision, recall (PyTorch Connectomics)
distance_scores       ADGT, ADF and their mean, CREMI's score for synaptic clefts
snemi_rand            adapted Rand error as in the SNEMI3D script: squares of counts, not pairs of distinct voxels
matched_objects       objects found at one IoU: precision, recall, "average precision" tp / (tp + fp + fn)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency


def f1_to_iou(f1: float) -> float:
    """TP / (TP + FP + FN) = F / (2 - F), for F = 2 TP / (2 TP + FP + FN)."""
    return f1 / (2 - f1)


@dataclass(frozen=True)
class MaskScores:
    """How well a mask agrees with the true one; 1 is best."""

    foreground_iou: float
    """TP / (TP + FP + FN)"""
    iou: float
    """The mean of the IoU of the foreground and of the background"""
    precision: float
    recall: float


def mask_scores(prediction: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> MaskScores:
    """Scores of a foreground of voxels above a threshold.

    Args:
        prediction: numbers, any shape.
        truth: what is not 0 is foreground; the same shape.

    Raises:
        VolumeError: the shapes differ, or no voxel is true, or none is predicted, so a ratio is not defined.
    """
    _same_shape(prediction, truth)
    found, true = prediction > threshold, truth != 0
    tp, fp, fn = (int(np.count_nonzero(part)) for part in (found & true, found & ~true, ~found & true))
    if not tp + fp or not tp + fn:
        raise VolumeError(f"{tp + fp} voxels predicted, {tp + fn} true: scores of a mask need at least one of both")
    tn = true.size - tp - fp - fn
    foreground, background = tp / (tp + fp + fn), tn / (tn + fp + fn) if tn + fp + fn else 1.0
    return MaskScores(foreground, (foreground + background) / 2, tp / (tp + fp), tp / (tp + fn))


@dataclass(frozen=True)
class DistanceScores:
    """Mean distances between two masks, in the unit of the resolution; 0 is best."""

    to_truth: float
    """ADGT: the mean distance of predicted voxels to the nearest true one"""
    to_prediction: float
    """ADF: the mean distance of true voxels to the nearest predicted one"""

    @property
    def cremi(self) -> float:
        """CREMI's score: the mean of both."""
        return (self.to_truth + self.to_prediction) / 2


def distance_scores(
    prediction: np.ndarray, truth: np.ndarray, resolution: Sequence[float] = (40.0, 4.0, 4.0)
) -> DistanceScores:
    """Distances between the voxels of two masks or label volumes, (z, y, x); every voxel that is not 0 is in the mask.

    Raises ``VolumeError`` if the shapes differ or a mask is empty, since distances are then not defined.
    """
    _same_shape(prediction, truth)
    found, true = prediction != 0, truth != 0
    if not found.any() or not true.any():
        raise VolumeError("a mask without any voxel: a distance needs at least one voxel in both")
    to_truth = ndimage.distance_transform_edt(~true, resolution)[found].mean()
    to_prediction = ndimage.distance_transform_edt(~found, resolution)[true].mean()
    return DistanceScores(float(to_truth), float(to_prediction))


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


@dataclass(frozen=True)
class Matches:
    """Objects of truth and prediction that match at one IoU."""

    found: int
    """True objects with a partner (tp)"""
    invented: int
    """Predicted objects without a partner (fp)"""
    missed: int
    """True objects without a partner (fn)"""
    quality: float
    """Sum of the IoU of partners"""

    @property
    def average_precision(self) -> float:
        """tp / (tp + fp + fn): AP at one IoU, where no object has a score of its own; 1 without any object."""
        objects = self.found + self.invented + self.missed
        return self.found / objects if objects else 1.0

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn); 1 without any object."""
        objects = 2 * self.found + self.invented + self.missed
        return 2 * self.found / objects if objects else 1.0

    @property
    def panoptic_quality(self) -> float:
        """Sum of IoU / (tp + fp / 2 + fn / 2); 1 without any object."""
        objects = 2 * self.found + self.invented + self.missed
        return 2 * self.quality / objects if objects else 1.0


def matched_objects(prediction: np.ndarray, truth: np.ndarray, least_iou: float = 0.5) -> Matches:
    """Match objects one to one so that as many pairs as possible reach an IoU of ``least_iou``, and then so that the
    sum of IoU is largest; 0 is no object.

    Memory grows with the number of true objects times the number of predicted objects.
    """
    _same_shape(prediction, truth)
    true, predicted = (np.unique(part[part != 0]) for part in (truth, prediction))
    if not len(true) or not len(predicted):
        return Matches(0, len(predicted), len(true), 0.0)
    iou = _iou(Contingency.from_labels(truth, prediction), truth, prediction, true, predicted)
    fits = iou >= least_iou
    rows, columns = linear_sum_assignment(-fits.astype(float) - iou / (2 * min(iou.shape)))
    matched = fits[rows, columns]
    found = int(matched.sum())
    quality = float(iou[rows, columns][matched].sum())
    return Matches(found, len(predicted) - found, len(true) - found, quality)


def _iou(
    table: Contingency, truth: np.ndarray, prediction: np.ndarray, true: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
    """IoU of each true with each predicted object, (true, predicted)."""
    shared = np.zeros((len(true), len(predicted)))
    both = table.predicted != 0
    rows, columns = np.searchsorted(true, table.truth[both]), np.searchsorted(predicted, table.predicted[both])
    shared[rows, columns] = table.voxels[both]
    sizes = [np.unique(part[part != 0], return_counts=True)[1] for part in (truth, prediction)]
    return np.asarray(shared / (sizes[0][:, None] + sizes[1] - shared))


def _sums(ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum of the counts of each id."""
    return np.bincount(np.unique(ids, return_inverse=True)[1], counts)


def _same_shape(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise VolumeError(
            f"prediction has shape {prediction.shape}, truth {truth.shape}: both must cover the same voxels"
        )
