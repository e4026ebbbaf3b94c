"""The kinds of results that can be scored besides neurons, and which setting is for which of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from pipeline.errors import ConfigError
from pipeline.evaluation.compare_classes import ClassScores, compare_classes
from pipeline.evaluation.compare_masks import MaskScores, compare_masks
from pipeline.evaluation.compare_objects import ObjectScores, compare_objects
from pipeline.evaluation.confidences import Confidences
from pipeline.evaluation.masks import require_mask, require_true_mask
from pipeline.evaluation.objects import SIZE_LIMITS
from pipeline.evaluation.pairs import Pair, common_box, require_labels
from pipeline.geometry import BoundingBox
from pipeline.volumes.base import Volume

NEURONS, MASK, OBJECTS, CLASSES = "neurons", "mask", "objects", "classes"
KINDS = (NEURONS, MASK, OBJECTS, CLASSES)


@dataclass(frozen=True)
class Settings:
    """How masks, objects and classes are scored; each field is for the kinds of ``USED_BY``."""

    threshold: float | None = None
    """Probability that the foreground reaches; 0.5 if left out"""
    cap_nm: float | None = None
    """What longer distances count as"""
    confidence: str | Confidences | None = None
    """Table, or its path or URL, of a confidence for each predicted object; their sizes if left out"""
    size_limits: tuple[int, int] | None = None
    """Voxels of the largest small and medium object; those of MitoEM if left out"""
    sections: bool = False
    """Also score every section as a picture of its own"""
    minus_one_is_background: bool = False
    """-1 and the largest uint32 and uint64 are background, as in CREMI's clefts, and scored"""

    def require_fit(self, kind: str) -> None:
        """Raise ``ConfigError`` for an unknown kind, and for a setting that the kind does not use."""
        if kind not in KINDS:
            raise ConfigError(
                f"results are scored as {', '.join(KINDS[:-1])} or {KINDS[-1]}, not as {kind!r}: choose one"
            )
        for field in fields(self):
            used_by = USED_BY[field.name]
            if getattr(self, field.name) != field.default and kind not in used_by:
                raise ConfigError(
                    f"{field.name} is for results scored as {' or '.join(used_by)}, and these are {kind}: leave it out"
                )
        if self.size_limits is not None and not 0 < self.size_limits[0] < self.size_limits[1]:
            raise ConfigError(
                f"size_limits are {list(self.size_limits)}; they are voxels of the largest small and of the largest "
                "medium object, rising and above 0, like 5000,15000"
            )


USED_BY = {
    "threshold": (MASK,),
    "cap_nm": (MASK,),
    "confidence": (OBJECTS,),
    "size_limits": (OBJECTS,),
    "sections": (MASK, OBJECTS),
    "minus_one_is_background": (MASK, OBJECTS, CLASSES),
}


def pair_of(kind: str, truth: Volume, labels: Volume, box: BoundingBox | None, settings: Settings) -> Pair:
    """Two volumes as the kind reads them; ``VolumeError`` if one of them, or the box, does not fit."""
    if kind in (OBJECTS, CLASSES):
        require_labels(truth)
        require_labels(labels)
    else:
        require_true_mask(truth)
        require_mask(labels)
    return Pair(truth, labels, common_box(truth, labels, box), settings.minus_one_is_background)


def compare_as(
    kind: str,
    pair: Pair,
    settings: Settings,
    *,
    distances: bool = True,
    on_progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> MaskScores | ObjectScores | ClassScores:
    """Score a pair as a mask, as objects or as classes.

    distances: measure those of masks; not between arrays, which do not say how large their voxels are.
    on_progress: called with (title, blocks done, blocks in all).
    """
    settings.require_fit(kind)
    if kind == CLASSES:
        return compare_classes(pair, on_progress=on_progress)
    sections = settings.sections
    if kind == MASK:
        return compare_masks(
            pair,
            threshold=settings.threshold,
            cap_nm=settings.cap_nm,
            sections=sections,
            distances=distances,
            on_progress=on_progress,
        )
    given = settings.confidence
    table = Confidences.load(given) if isinstance(given, str) else given
    return compare_objects(
        pair,
        confidence=table,
        confidence_name="size" if table is None else table.name,
        size_limits=settings.size_limits or SIZE_LIMITS,
        sections=sections,
        on_progress=on_progress,
    )
