"""Scores of the objects of two volumes of labels, block by block in bounded memory, and section by section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.objects import (
    SIZE_LIMITS,
    Confidence,
    Levels,
    Overlaps,
    score_classes,
    score_objects,
    score_overlaps,
)
from pipeline.evaluation.pairs import BLOCK, Pair, layers
from pipeline.geometry import Vec, product
from pipeline.grid import Chunk

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ObjectSections:
    """The objects of each section, scored in 2D; an object is all that has one id in the section."""

    sections: dict[int, Levels]
    """z -> scores; sections without a scored voxel are left out"""

    def mean(self, name: str) -> float | None:
        """The mean of a score (as in ``Levels.to_dict``) over the sections that have a true object."""
        found = [levels.to_dict() for levels in self.sections.values() if levels.at(0.5).objects]
        return sum(each[name] for each in found) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the means, and each section."""
        with_objects = sum(levels.at(0.5).objects > 0 for levels in self.sections.values())
        means = {name: self.mean(name) for name in ("ap", "ap_50", "ap_75", "accuracy_50", "accuracy_75")}
        each = [{"z": z, **levels.to_dict()} for z, levels in self.sections.items()]
        return {**means, "sections": with_objects, "each": each}


@dataclass(frozen=True)
class ObjectScores:
    """How well predicted objects agree with the true ones."""

    overlaps: Overlaps
    """Objects, sizes and overlaps, from which all follows but the sections"""
    everything: Levels
    """All objects"""
    sizes: dict[str, Levels]
    """small, medium and large objects"""
    size_limits: tuple[int, int]
    """Voxels of the largest small and medium object"""
    confidence: str
    """What the predicted objects were ordered by: ``size``, or the name of a table"""
    voxels: int
    """Voxels scored, the background among them"""
    not_scored: int
    """Voxels of the box that the truth marks as not to be scored"""
    sections: ObjectSections | None = None
    """``None`` if sections were not asked for"""

    @classmethod
    def of_table(
        cls,
        table: Contingency,
        not_scored: int,
        *,
        confidence: Confidence | None = None,
        confidence_name: str = "size",
        size_limits: tuple[int, int] = SIZE_LIMITS,
        sections: ObjectSections | None = None,
    ) -> ObjectScores:
        """The scores that follow from a table which counts the background; the arguments are those of the fields."""
        overlaps = Overlaps.of(table, confidence)
        classes = score_classes(overlaps, size_limits)
        levels, voxels = score_overlaps(overlaps), table.total
        return cls(overlaps, levels, classes, size_limits, confidence_name, voxels, not_scored, sections)

    def __repr__(self) -> str:
        half, ap = self.everything.at(0.5), self.everything.ap
        return (
            f"AP {_shown(ap)} (IoU 0.5: {_shown(half.ap)}, 0.75: {_shown(self.everything.at(0.75).ap)}), "
            f"{half.found} of {half.objects} objects found, {half.predicted - half.found} invented, "
            f"F1 {_shown(half.f1)}, {self.voxels:,} voxels"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``None`` where a score is not defined."""
        return {
            **self.everything.to_dict(),
            "confidence": self.confidence,
            "voxels": self.voxels,
            "not_scored": self.not_scored,
            "size_limits": list(self.size_limits),
            "sizes": {name: levels.to_dict() for name, levels in self.sizes.items()},
            "levels": [level.to_dict() for level in self.everything.levels],
            "sections": None if self.sections is None else self.sections.to_dict(),
        }


def compare_objects(
    pair: Pair,
    *,
    confidence: Confidence | None = None,
    confidence_name: str = "size",
    size_limits: tuple[int, int] = SIZE_LIMITS,
    sections: bool = False,
    block: Vec = BLOCK,
    on_progress: Progress = lambda title, done, total: None,
) -> ObjectScores:
    """Score the objects of one volume of labels against those of another.

    Args:
        pair: both volumes and the box. Truth 0 is background; the marks of ``scored_voxels`` are not scored: such
            voxels count neither as part of an object nor as background. An object that the box cuts counts with the
            voxels inside.
        confidence: of the ids of predicted objects; their sizes if left out.
        confidence_name: what ``confidence`` is called in the result.
        size_limits: voxels of the largest small object and of the largest medium one.
        sections: also score every section as a picture of its own.
        block: voxels that are read at once; the scores do not depend on it.
        on_progress: called with (title, blocks done, blocks in all).

    Raises ``VolumeError`` if no voxel is to be scored, or ``confidence`` lacks an object.
    """
    grid, done = pair.grid(block), 0
    table, planes = Contingency.empty(), ObjectSections({})
    for layer in layers(grid):
        found: dict[int, list[Contingency]] = {}
        for chunk in layer:
            true, predicted = pair.read(chunk.core)
            table = table + Contingency.from_labels(true, predicted, background=True)
            if sections:
                _count_sections(found, chunk, true, predicted)
            done += 1
            on_progress("evaluate", done, len(grid))
        scored = {z: Contingency.sum(parts) for z, parts in found.items()}
        planes.sections.update({z: score_objects(each, confidence) for z, each in scored.items() if each.total})
    pair.require_scored(table.total)
    return ObjectScores.of_table(
        table,
        product(pair.box.shape) - table.total,
        confidence=confidence,
        confidence_name=confidence_name,
        size_limits=size_limits,
        sections=planes if sections else None,
    )


def _count_sections(found: dict[int, list[Contingency]], chunk: Chunk, true: np.ndarray, predicted: np.ndarray) -> None:
    """Add the tables of a chunk's sections to those of its layer."""
    for plane in range(len(true)):
        part = Contingency.from_labels(true[plane], predicted[plane], background=True)
        found.setdefault(chunk.core.start.z + plane, []).append(part)


def _shown(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.3f}"
