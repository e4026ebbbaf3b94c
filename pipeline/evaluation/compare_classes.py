"""Scores of a map of classes against a true one: the IoU of each class, their mean, and the accuracy.

Every voxel has one class, a number from 0 to 255; class 0, the background, counts like the others. All scores follow
from how many voxels each pair (true class, predicted class) shares, and these tables add up over blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency, scored_voxels
from pipeline.evaluation.pairs import BLOCK, Pair
from pipeline.geometry import Vec, product
from pipeline.volumes.base import Volume
from pipeline.volumes.sample import sample_blocks

LAST_CLASS = 255
"""The largest class, which uint8 holds."""


@dataclass(frozen=True)
class ClassCounts:
    """Voxels of one class; it occurs in the truth or in the prediction."""

    true: int
    predicted: int
    both: int

    @property
    def iou(self) -> float:
        """Voxels of the class in both volumes / in one of them."""
        return self.both / (self.true + self.predicted - self.both)

    @property
    def precision(self) -> float | None:
        """The share of the predicted voxels that are right; ``None`` if none is predicted."""
        return self.both / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """The share of the true voxels that are found; ``None`` if there is none."""
        return self.both / self.true if self.true else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"iou": self.iou, "precision": self.precision, "recall": self.recall, **vars(self)}


@dataclass(frozen=True)
class ClassScores:
    """How well two maps of classes agree."""

    classes: dict[int, ClassCounts]
    """Class -> voxels, rising, of the classes that occur in a scored voxel of either volume"""
    voxels: int
    """Voxels scored"""
    not_scored: int
    """Voxels of the box that the truth marks as not to be scored"""

    @classmethod
    def of_table(cls, table: Contingency, not_scored: int) -> ClassScores:
        """The scores that follow from a table which counts the background and has a voxel; its ids are classes."""
        shared = np.zeros((LAST_CLASS + 1, LAST_CLASS + 1), np.int64)
        shared[table.truth.astype(int), table.predicted.astype(int)] = table.voxels
        true, predicted, both = shared.sum(1), shared.sum(0), shared.diagonal()
        found = np.flatnonzero(true + predicted).tolist()
        counts = {each: ClassCounts(int(true[each]), int(predicted[each]), int(both[each])) for each in found}
        return cls(counts, table.total, not_scored)

    @property
    def mean_iou(self) -> float:
        """The mean of the IoU of all classes that occur."""
        return sum(counts.iou for counts in self.classes.values()) / len(self.classes)

    @property
    def accuracy(self) -> float:
        """The share of the voxels that have their true class."""
        return sum(counts.both for counts in self.classes.values()) / self.voxels

    def __repr__(self) -> str:
        each = ", ".join(f"class {number} {counts.iou:.3f}" for number, counts in self.classes.items())
        return f"mean IoU {self.mean_iou:.3f} ({each}), accuracy {self.accuracy:.3f}, {self.voxels:,} voxels"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "mean_iou": self.mean_iou,
            "accuracy": self.accuracy,
            "classes": [{"class": number, **counts.to_dict()} for number, counts in self.classes.items()],
            "voxels": self.voxels,
            "not_scored": self.not_scored,
        }


def compare_classes(
    pair: Pair,
    *,
    block: Vec = BLOCK,
    on_progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> ClassScores:
    """Score a map of classes against a true one.

    Args:
        pair: both volumes, integers (z, y, x), and the box. The marks of ``scored_voxels`` are not scored.
        block: voxels that are read at once; the scores do not depend on it.
        on_progress: called with (title, blocks done, blocks in all).

    Raises ``VolumeError`` for a scored voxel of a class above 255, and if no voxel is to be scored.
    """
    grid, table = pair.grid(block), Contingency.empty()
    for number, chunk in enumerate(grid):
        found = Contingency.from_labels(*pair.read(chunk.core), background=True)
        require_classes(pair.truth.url, found.truth)
        require_classes(pair.predicted.url, found.predicted)
        table = table + found
        on_progress("evaluate", number + 1, len(grid))
    pair.require_scored(table.total)
    return ClassScores.of_table(table, product(pair.box.shape) - table.total)


def require_classes(url: str, ids: np.ndarray) -> None:
    """Raise ``VolumeError`` for an id of a volume that is no class."""
    if len(ids) and ids.max() > LAST_CLASS:
        raise VolumeError(
            f"{url} holds {ids.max()}; classes are from 0 to {LAST_CLASS}: score ids of objects as objects (--as "
            "objects, or segmentation.kind: objects), or correct the volume"
        )


def require_classes_in(volume: Volume) -> None:
    """The same for a whole volume, of which a sample is read; marks that are not scored are no ids."""
    blocks = (block[scored_voxels(block)] for block in sample_blocks(volume))
    require_classes(volume.url, np.concatenate([np.unique(block) for block in blocks]))
