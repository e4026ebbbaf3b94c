"""Scores of a predicted mask, or of probabilities, against a true mask, block by block in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.evaluation.contingency import Contingency, scored_voxels
from pipeline.evaluation.distances import WHOLE_VOXELS, Distances, check_cap, measure
from pipeline.evaluation.masks import HALF, SURE, MaskCounts, ValueCounts, as_values, value_of
from pipeline.evaluation.pairs import BLOCK, Pair
from pipeline.geometry import Vec, product

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MaskSections:
    """Each section of a mask as a picture of its own."""

    sections: dict[int, ValueCounts]
    """z -> counts; sections without a scored voxel are left out"""
    value: int
    """The foreground are values of at least this one"""
    is_mask: bool

    def scores(self, counts: ValueCounts) -> dict[str, Any]:
        """The scores of one section."""
        ap = None if self.is_mask else counts.average_precision()
        return {**counts.at(self.value).to_dict(), "average_precision": ap}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the means over the sections that have a true voxel, and each section."""
        each = {z: self.scores(counts) for z, counts in self.sections.items()}
        found = [each[z] for z, counts in self.sections.items() if counts.true]
        names = ("foreground_iou", "dice", *(() if self.is_mask else ("average_precision",)))
        means = {name: sum(scores[name] for scores in found) / len(found) if found else None for name in names}
        return {**means, "sections": len(found), "each": [{"z": z, **scores} for z, scores in each.items()]}


@dataclass(frozen=True)
class MaskScores:
    """How well a mask, or probabilities at every threshold, agree with the true mask."""

    counts: ValueCounts
    """Voxels of each value"""
    not_scored: int
    """Voxels of the box that the truth marks as not to be scored"""
    threshold: float | None
    """``None`` if the prediction is a mask: all that is not 0"""
    value: int
    """The foreground are stored values of at least this one"""
    distances: Distances | None = None
    """``None`` if they were not measured, or a mask has no voxel"""
    sections: MaskSections | None = None
    """``None`` if sections were not asked for"""

    @classmethod
    def of_table(cls, table: Contingency, not_scored: int) -> MaskScores:
        """The scores of a mask, from a table that counts the background."""
        voxels = np.zeros((2, SURE + 1), np.int64)
        np.add.at(voxels, ((table.truth != 0).astype(int), np.where(table.predicted != 0, SURE, 0)), table.voxels)
        return cls(ValueCounts(voxels), not_scored, None, 1)

    @property
    def mask(self) -> MaskCounts:
        """The scores at the threshold in use."""
        return self.counts.at(self.value)

    @property
    def is_mask(self) -> bool:
        """True if there is no threshold to choose."""
        return self.threshold is None

    @property
    def average_precision(self) -> float | None:
        """Over all thresholds; ``None`` for a mask and without a true voxel."""
        return None if self.is_mask else self.counts.average_precision()

    @property
    def best(self) -> int | None:
        """The stored value with the largest Dice; ``None`` for a mask and without a true voxel."""
        return None if self.is_mask else self.counts.best()

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{name} {'undefined' if value is None else f'{value:.3f}'}"
            for name, value in (
                *(("foreground IoU", self.mask.foreground_iou), ("Dice", self.mask.dice)),
                *(("precision", self.mask.precision), ("recall", self.mask.recall)),
            )
        )
        at = "mask" if self.is_mask else f"probability of at least {self.threshold:g}"
        return f"{at}: {scores}, {self.counts.total:,} voxels"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``None`` where a score is not defined."""
        best = self.best
        return {
            "read_as": "mask" if self.is_mask else "probability",
            "threshold": self.threshold,
            "foreground_from": self.value,
            **self.mask.to_dict(),
            "average_precision": self.average_precision,
            "best": None
            if best is None
            else {"threshold": best / SURE, "foreground_from": best, **self.counts.at(best).to_dict()},
            "distances": None if self.distances is None else self.distances.to_dict(),
            "sections": None if self.sections is None else self.sections.to_dict(),
            "voxels": self.counts.total,
            "not_scored": self.not_scored,
        }


def compare_masks(
    pair: Pair,
    *,
    threshold: float | None = None,
    cap_nm: float | None = None,
    sections: bool = False,
    distances: bool = True,
    block: Vec = BLOCK,
    on_progress: Progress = lambda title, done, total: None,
) -> MaskScores:
    """Score a predicted mask, or probabilities, against a true mask.

    Args:
        pair: both volumes and the box. True is what is not 0; the marks of ``scored_voxels`` are not scored.
        threshold: of a probability, above 0 and up to 1: the foreground reaches it. 0.5 if left out.
        cap_nm: what longer distances count as, in nm; if left out, distances are measured without a cap, or not at all
            in a box of more than ``WHOLE_VOXELS``.
        sections: also score every section as a picture of its own.
        distances: measure CREMI's distances.
        block: voxels that are read at once; the scores do not depend on it.
        on_progress: called with (title, blocks done, blocks in all).

    Raises ``ConfigError`` for a threshold of labels, or one outside 0 to 1, and for a cap that cannot be used;
    ``VolumeError`` if no voxel is to be scored.
    """
    asked = None if threshold is None else _checked_threshold(pair, threshold)
    measured = distances and (cap_nm is not None or product(pair.box.shape) <= WHOLE_VOXELS)
    if measured:
        check_cap(pair.box, pair.resolution_nm, cap_nm, block)
    counts, planes = _count(pair, block, sections, on_progress)
    pair.require_scored(counts.total)
    is_mask = asked is None and counts.is_mask
    value = 1 if is_mask else asked or value_of(HALF)
    found = None
    if measured:
        found = measure(
            pair,
            lambda true, predicted: _foregrounds(true, predicted, value),
            cap_nm=cap_nm,
            block=block,
            on_progress=lambda done, total: on_progress("distances", done, total),
        )
    each = MaskSections(planes, value, is_mask) if sections else None
    shown = None if is_mask else HALF if threshold is None else threshold
    return MaskScores(counts, product(pair.box.shape) - counts.total, shown, value, found, each)


def _count(pair: Pair, block: Vec, sections: bool, on_progress: Progress) -> tuple[ValueCounts, dict[int, ValueCounts]]:
    """The counts of the box and, if asked for, of each section that has a scored voxel."""
    grid, counts = pair.grid(block), ValueCounts.empty()
    planes: dict[int, ValueCounts] = {}
    for number, chunk in enumerate(grid):
        true, predicted = pair.read(chunk.core)
        counts = counts + ValueCounts.of(true, predicted)
        for plane in range(len(true) if sections else 0):
            z, part = chunk.core.start.z + plane, ValueCounts.of(true[plane], predicted[plane])
            planes[z] = planes.get(z, ValueCounts.empty()) + part
        on_progress("evaluate", number + 1, len(grid))
    return counts, {z: part for z, part in planes.items() if part.total}


def _foregrounds(true: np.ndarray, predicted: np.ndarray, value: int) -> tuple[np.ndarray, np.ndarray]:
    """The true and the predicted mask among the voxels that are scored."""
    scored = scored_voxels(true)
    return (true != 0) & scored, (as_values(predicted) >= value) & scored


def _checked_threshold(pair: Pair, threshold: float) -> int:
    dtype = pair.predicted.spec.dtype
    if dtype != np.uint8 and dtype.kind != "f":
        raise ConfigError(
            f"threshold {threshold:g} is for probabilities (uint8 or floating-point), and {pair.predicted.url} holds "
            f"{dtype}, of which all that is not 0 is the mask: leave the threshold out"
        )
    return value_of(threshold)
