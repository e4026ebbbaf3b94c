"""Scores of a mask, or of a volume of probabilities at every threshold, from counts of voxels that add up over chunks.

A predicted volume is read in one of three ways, all of which end in a value from 0 to 255 a voxel:

- labels (all integers but uint8): 255 where there is a label, 0 elsewhere; a **mask**;
- floating-point numbers: probabilities from 0 to 1, rounded to steps of 1/255, as a run stores them;
- uint8, and bool as 0 and 1: as it is. One that holds 0 and a single other value is a **mask**, any other is
  probability times 255.

``ValueCounts`` counts true and other voxels of each value; thresholds, precision and recall at each, and average
precision follow from it, exactly for uint8.

Average precision over thresholds is the sum of (recall - recall of the next higher threshold) * precision, without
interpolation, as scikit-learn computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.contingency import MARKS, checked_ids, scored_voxels
from pipeline.volumes.base import Volume

SURE = 255
"""The largest stored value: probability 1."""
HALF = 0.5
"""The threshold of probabilities for which none was given."""


@dataclass(frozen=True)
class MaskCounts:
    """Voxels of a mask against the true one. Ratios are ``None`` where there is no voxel to divide by."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN), which is F1."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def foreground_iou(self) -> float | None:
        """TP / (TP + FP + FN)."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_iou(self) -> float | None:
        """The mean of the IoU of foreground and background, of those that occur."""
        each = [self.foreground_iou, _ratio(self.tn, self.tn + self.fp + self.fn)]
        there = [iou for iou in each if iou is not None]
        return sum(there) / len(there) if there else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("foreground_iou", "mean_iou", "dice", "precision", "recall")
        return {**{name: getattr(self, name) for name in names}, **asdict(self)}


@dataclass(frozen=True, eq=False)
class ValueCounts:
    """How many voxels of each predicted value are true, and how many are not."""

    voxels: np.ndarray
    """int64 (2, 256): row 1 counts true voxels, row 0 the others"""

    @classmethod
    def empty(cls) -> ValueCounts:
        """No voxel, the neutral element of ``+``."""
        return cls(np.zeros((2, SURE + 1), np.int64))

    @classmethod
    def of(cls, truth: np.ndarray, predicted: np.ndarray) -> ValueCounts:
        """Count the voxels of two arrays of one shape.

        Args:
            truth: integers; what is not 0 is true; the marks of ``scored_voxels`` are not scored.
            predicted: see the head of the module.

        Raises ``VolumeError`` for probabilities outside 0 to 1, for negative labels, and for other negative truth.
        """
        checked_ids(truth, "truth", least=-MARKS)
        scored = scored_voxels(truth)
        pairs = (truth != 0)[scored].astype(np.intp) * (SURE + 1) + as_values(predicted)[scored]
        return cls(np.bincount(pairs, minlength=2 * (SURE + 1)).reshape(2, SURE + 1).astype(np.int64))

    def __add__(self, other: ValueCounts) -> ValueCounts:
        """The counts of both sets of voxels."""
        return ValueCounts(self.voxels + other.voxels)

    @property
    def total(self) -> int:
        """Voxels scored."""
        return int(self.voxels.sum())

    @property
    def true(self) -> int:
        """True voxels scored."""
        return int(self.voxels[1].sum())

    @property
    def is_mask(self) -> bool:
        """True if at most one value other than 0 occurs."""
        return int(np.count_nonzero(self.voxels[:, 1:].sum(0))) <= 1

    def at(self, value: int) -> MaskCounts:
        """The mask of the voxels of at least a value."""
        tp, fp = (int(self.voxels[row, value:].sum()) for row in (1, 0))
        return MaskCounts(tp, fp, self.true - tp, self.total - self.true - fp)

    def curve(self) -> Iterator[tuple[int, MaskCounts]]:
        """Every threshold, as a stored value from 255 to 1, and the mask there."""
        return ((value, self.at(value)) for value in range(SURE, 0, -1))

    def average_precision(self) -> float | None:
        """Precision averaged over the gain of recall, all thresholds from 255 to 0; ``None`` without a true voxel."""
        if not self.true:
            return None
        tp, all_ = (np.cumsum(counts[::-1]) for counts in (self.voxels[1], self.voxels.sum(0)))
        gain = np.diff(tp, prepend=0) / self.true
        return math.fsum(gain[all_ > 0] * (tp[all_ > 0] / all_[all_ > 0]))

    def best(self) -> int | None:
        """The value with the largest Dice, and so with the largest foreground IoU; of equal ones the highest."""
        dice = {value: counts.dice or 0.0 for value, counts in self.curve()}
        return max(dice, key=lambda value: (dice[value], value)) if self.true else None


def as_values(predicted: np.ndarray) -> np.ndarray:
    """A predicted volume as uint8: probability times 255, or 255 where there is a label."""
    if predicted.dtype == np.uint8:
        return predicted
    if predicted.dtype.kind == "f":
        return np.rint(_probabilities(predicted) * SURE).astype(np.uint8)
    checked_ids(predicted, "prediction")
    return (predicted != 0).astype(np.uint8) * np.uint8(SURE)


def value_of(threshold: float) -> int:
    """The smallest stored value whose probability reaches a threshold; ``ConfigError`` unless it lies in 0 to 1."""
    if not 0 < threshold <= 1:
        raise ConfigError(
            f"threshold {threshold:g}: the foreground are probabilities of at least a number above 0 and up to 1; "
            "give one like 0.5"
        )
    return int(np.searchsorted(np.arange(SURE + 1) / SURE, threshold))


def require_mask(volume: Volume) -> None:
    """Raise ``VolumeError`` unless a volume can be read as a predicted mask."""
    if volume.spec.dtype.kind not in "biuf":
        raise VolumeError(f"{volume.url} holds {volume.spec.dtype}; a mask, or probabilities, are numbers: convert it")
    if (volume.spec.channels or 1) != 1:
        raise VolumeError(
            f"{volume.url} has {volume.spec.channels} channels; a mask, or probabilities, have one: store the channel "
            "that is to be scored as a volume of its own"
        )


def require_true_mask(volume: Volume) -> None:
    """Raise ``VolumeError`` unless a volume can be read as a true mask."""
    if volume.spec.dtype.kind not in "uib" or volume.spec.channels is not None:
        raise VolumeError(
            f"{volume.url} holds {volume.spec.dtype} in {volume.spec.channels or 1} channels; the truth is a mask or "
            "labels, integers without channels: name the truth first"
        )


def _probabilities(values: np.ndarray) -> np.ndarray:
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        raise VolumeError(
            f"the prediction holds {values[outside][0]:g}; floating-point numbers are probabilities from 0 to 1: apply "
            "the network's sigmoid, or rescale"
        )
    return values


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
