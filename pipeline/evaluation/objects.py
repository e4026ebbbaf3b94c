"""Scores of objects (mitochondria, nuclei, cells): found, missed and invented ones, and average precision.

All of it follows from one contingency table that counts the background (``Contingency.from_labels(background=True)``):
its sums are the sizes of objects, its entries their overlaps. Tables of chunks add up, so nothing depends on chunks.

- IoU of a true and a predicted object: shared voxels / voxels of either.
- A predicted object **finds** a true one at a level t if their IoU is at least t, one to one. Levels are 0.5 and above:
  above 0.5 no object has two partners. At exactly 0.5 an object may be halved by two others; then that of the higher
  confidence is its partner, of equal ones that of the smaller id.
- **Average precision** needs an order of the predicted objects. Labels have no confidence of their own: a table may
  give one, else it is the size in voxels, largest first, as in the evaluation of MitoEM. Equal ones go by the smaller
  id. AP is COCO's: the mean, over the 101 recalls 0, 0.01 .. 1, of the best precision at that recall or a higher one.
- **Accuracy** needs no order: found / (found + missed + invented), by which the MitoEM challenge ranks at IoU 0.75.

A size class holds the true objects of some sizes. Of the predicted ones it counts those that found one of them, and
those that found none and have such a size themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.evaluation.contingency import Contingency

IOUS = tuple(percent / 100 for percent in range(50, 100, 5))
"""The levels of the mean average precision."""
SIZE_LIMITS = (5000, 15000)
"""Voxels of the largest small and of the largest medium object, as in the evaluation of MitoEM (30 x 8 x 8 nm)."""
CLASSES = ("small", "medium", "large")
RECALLS = np.arange(101) / 100

Confidence = Callable[[np.ndarray], np.ndarray]
"""Ids of predicted objects, uint64 (n,) -> how sure each is, float64 (n,)."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Objects and the pairs of them that share a voxel; predicted ones in order of confidence, the surest first."""

    true_ids: np.ndarray
    """uint64 (n,), rising"""
    true_voxels: np.ndarray
    """int64 (n,)"""
    predicted_ids: np.ndarray
    """uint64 (m,), the surest first"""
    predicted_voxels: np.ndarray
    """int64 (m,)"""
    true: np.ndarray
    """(k,) index of the true object of each pair"""
    predicted: np.ndarray
    """(k,) index of the predicted object of each pair"""
    iou: np.ndarray
    """float64 (k,)"""

    @classmethod
    def of(cls, table: Contingency, confidence: Confidence | None = None) -> Overlaps:
        """Sizes and IoU from a table that counts the background."""
        true_ids, true_voxels = _sums(table.truth, table.voxels)
        ids, voxels = _sums(table.predicted, table.voxels)
        order = np.lexsort((ids, -(voxels if confidence is None else confidence(ids))))
        rank = np.empty(len(ids), np.intp)
        rank[order] = np.arange(len(ids))
        both = (table.truth != 0) & (table.predicted != 0)
        true, predicted = np.searchsorted(true_ids, table.truth[both]), np.searchsorted(ids, table.predicted[both])
        shared = table.voxels[both]
        iou = shared / (true_voxels[true] + voxels[predicted] - shared)
        return cls(true_ids, true_voxels, ids[order], voxels[order], true, rank[predicted], iou)

    def partners(self, least_iou: float) -> tuple[np.ndarray, np.ndarray]:
        """The true object that each predicted one finds, -1 for none, and their IoU, 0 for none: (m,) both.

        Pairs of IoU 0.5 and more form stars: an object that shares exactly half of a union with one partner has at most
        one more, and those two have no other. So the first pair of each object, in order, is a matching, the largest.
        """
        if not 0.5 <= least_iou <= 1:
            raise ConfigError(f"IoU {least_iou}: partners are unique only from 0.5 to 1; choose a level there")
        pairs = np.flatnonzero(self.iou >= least_iou)
        pairs = pairs[np.lexsort((self.true[pairs], self.predicted[pairs]))]
        for side in (self.predicted, self.true):
            pairs = pairs[np.sort(np.unique(side[pairs], return_index=True)[1])]
        partner, iou = np.full(len(self.predicted_voxels), -1), np.zeros(len(self.predicted_voxels))
        partner[self.predicted[pairs]], iou[self.predicted[pairs]] = self.true[pairs], self.iou[pairs]
        return partner, iou


@dataclass(frozen=True)
class Level:
    """Objects found at one IoU. Ratios are ``None`` where they are not defined: without an object to divide by."""

    iou: float
    """The least IoU of partners"""
    objects: int
    """True objects"""
    predicted: int
    found: int
    """Predicted objects that found a true one"""
    quality: float
    """The sum of the IoU of partners"""
    ap: float | None
    """Average precision; ``None`` without a true object"""

    @property
    def precision(self) -> float | None:
        """Found / predicted."""
        return _ratio(self.found, self.predicted)

    @property
    def recall(self) -> float | None:
        """Found / true."""
        return _ratio(self.found, self.objects)

    @property
    def f1(self) -> float | None:
        """2 found / (true + predicted)."""
        return _ratio(2 * self.found, self.objects + self.predicted)

    @property
    def accuracy(self) -> float | None:
        """Found / (found + missed + invented)."""
        return _ratio(self.found, self.objects + self.predicted - self.found)

    @property
    def panoptic_quality(self) -> float | None:
        """Sum of IoU / (found + half of the missed + half of the invented)."""
        return _ratio(2 * self.quality, self.objects + self.predicted)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("iou", "objects", "predicted", "found", "ap", "accuracy", "precision", "recall", "f1")
        return {name: getattr(self, name) for name in (*names, "panoptic_quality")}


@dataclass(frozen=True)
class Levels:
    """The scores of one group of objects at all levels of ``IOUS``."""

    levels: tuple[Level, ...]

    def at(self, iou: float) -> Level:
        """The scores at one level of ``IOUS``."""
        return self.levels[IOUS.index(iou)]

    @property
    def ap(self) -> float | None:
        """The mean of the average precision at IoU 0.5, 0.55 .. 0.95."""
        each = [level.ap for level in self.levels if level.ap is not None]
        return sum(each) / len(each) if each else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; precision, recall, F1 and panoptic quality at IoU 0.5."""
        half, strict = self.at(0.5), self.at(0.75)
        return {
            **{"ap": self.ap, "ap_50": half.ap, "ap_75": strict.ap},
            **{"accuracy_50": half.accuracy, "accuracy_75": strict.accuracy},
            **{"precision": half.precision, "recall": half.recall, "f1": half.f1},
            **{"panoptic_quality": half.panoptic_quality, "objects": half.objects},
            **{"predicted": half.predicted, "found": half.found},
        }


def score_objects(table: Contingency, confidence: Confidence | None = None) -> Levels:
    """The scores of all objects of a table that counts the background.

    confidence: of the ids of predicted objects; their sizes if left out.
    """
    return score_overlaps(Overlaps.of(table, confidence))


def score_overlaps(overlaps: Overlaps, smallest: int = 1, largest: float = np.inf) -> Levels:
    """The scores of the objects of ``smallest`` to ``largest`` voxels."""
    return Levels(tuple(_level(overlaps, iou, smallest, largest) for iou in IOUS))


def score_classes(overlaps: Overlaps, limits: tuple[int, int] = SIZE_LIMITS) -> dict[str, Levels]:
    """The scores of small, medium and large objects; ``limits``: voxels of the largest small and medium one."""
    ends = ((1, limits[0]), (limits[0] + 1, limits[1]), (limits[1] + 1, np.inf))
    return {name: score_overlaps(overlaps, *each) for name, each in zip(CLASSES, ends, strict=True)}


def _level(overlaps: Overlaps, least_iou: float, smallest: int, largest: float) -> Level:
    partner, iou = overlaps.partners(least_iou)
    found = partner >= 0
    true_in = _between(overlaps.true_voxels, smallest, largest)
    predicted_in = _between(overlaps.predicted_voxels, smallest, largest)
    counted = np.where(found, np.append(true_in, False)[partner], predicted_in)
    hits = found[counted]
    objects, quality = int(true_in.sum()), float(iou[counted].sum())
    return Level(least_iou, objects, len(hits), int(hits.sum()), quality, average_precision(hits, objects))


def average_precision(hits: np.ndarray, objects: int) -> float | None:
    """COCO's average precision.

    Args:
        hits: bool (n,), True for a predicted object that found a true one; the surest first.
        objects: true objects; the score is ``None`` without one.
    """
    if not objects:
        return None
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    place = np.searchsorted(found / objects, RECALLS)
    return float(np.append(precision, 0.0)[place].sum() / len(RECALLS))


def _between(voxels: np.ndarray, smallest: int, largest: float) -> np.ndarray:
    return (voxels >= smallest) & (voxels <= largest)


def _sums(ids: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids other than 0, rising, and the voxels of each."""
    found, place = np.unique(ids, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, place, voxels)
    return found[found != 0], sums[found != 0]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
