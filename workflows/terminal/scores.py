"""Tables of the scores of masks, of objects and of classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.errors import counted
from workflows.terminal.tables import console, heading, say

if TYPE_CHECKING:
    from pipeline.evaluation.compare_classes import ClassScores
    from pipeline.evaluation.compare_masks import MaskScores
    from pipeline.evaluation.compare_objects import ObjectScores


def result_table(scores: MaskScores | ObjectScores | ClassScores, title: str, *, distances: bool = True) -> None:
    """Print the scores of a result; distances: also those of a mask, or why they are not measured."""
    from pipeline.evaluation.compare_classes import ClassScores
    from pipeline.evaluation.compare_masks import MaskScores

    if isinstance(scores, MaskScores):
        mask_table(scores, title, distances=distances)
    elif isinstance(scores, ClassScores):
        class_table(scores, title)
    else:
        object_table(scores, title)


def mask_table(scores: MaskScores, title: str, *, distances: bool = True) -> None:
    """Print the scores of a mask, or of probabilities, and the best threshold."""
    heading(title)
    from pipeline.evaluation.masks import SURE

    mask, best = scores.mask, scores.best
    table = Table("score", "value", "")
    read = "a mask: all that is not 0" if scores.is_mask else f"probabilities of at least {scores.threshold:g}"
    table.add_row("foreground", f"{mask.tp + mask.fp:,}", f"voxels, of {scores.counts.total:,}; read as {read}")
    table.add_row("foreground IoU", _shown(mask.foreground_iou), "1 is best")
    table.add_row("mean IoU", _shown(mask.mean_iou), "of foreground and background")
    table.add_row("Dice (F1)", _shown(mask.dice), "")
    table.add_row("precision", _shown(mask.precision), "low after inventions")
    table.add_row("recall", _shown(mask.recall), "low after misses")
    if not scores.is_mask:
        table.add_row("average precision", _shown(scores.average_precision), "over all thresholds")
    if best is not None:
        shown = math.floor(best / SURE * 10_000) / 10_000  # rounded up, it would be the next value's
        table.add_row("best threshold", f"{shown:.4f}", f"Dice {scores.counts.at(best).dice:.3f}")
    if distances:
        _add_distances(table, scores)
    if scores.sections is not None:
        means = scores.sections.to_dict()
        names = {"foreground_iou": "foreground IoU", "dice": "Dice", "average_precision": "average precision"}
        for key in (key for key in names if key in means):
            table.add_row(f"{names[key]} a section", _shown(means[key]), f"mean of {means['sections']} in 2D")
    console.print(table)
    _note_not_scored(scores.not_scored, scores.counts.total - scores.counts.true)


def object_table(scores: ObjectScores, title: str) -> None:
    """Print the scores of objects, all and by size."""
    heading(title)
    small, medium = scores.size_limits
    names = {"small": f"small, to {small:,}", "medium": f"medium, to {medium:,}", "large": "large, above"}
    groups = {"all": scores.everything, **{names[name]: levels for name, levels in scores.sizes.items()}}
    table = Table("score", *groups, "")
    for name, read, note in ROWS:
        table.add_row(name, *(_shown(levels.to_dict()[read]) for levels in groups.values()), note)
    console.print(table)
    say(f"sizes in voxels; average precision goes by {'size' if scores.confidence == 'size' else scores.confidence}")
    if scores.sections is not None:
        means = scores.sections.to_dict()
        shown = ", ".join(f"{name} {_shown(means[key])}" for name, key in SECTION_MEANS.items())
        say(f"mean of {counted(means['sections'], 'section')} in 2D: {shown}")
    _note_not_scored(scores.not_scored, scores.voxels - int(scores.overlaps.true_voxels.sum()))


def class_table(scores: ClassScores, title: str) -> None:
    """Print the scores of a map of classes."""
    heading(title)
    table = Table("class", "IoU", "precision", "recall", "true voxels", "predicted voxels")
    for number, counts in scores.classes.items():
        shares = (_shown(each) for each in (counts.iou, counts.precision, counts.recall))
        table.add_row(str(number), *shares, f"{counts.true:,}", f"{counts.predicted:,}")
    table.add_row("mean", _shown(scores.mean_iou), "", "", f"{scores.voxels:,}", f"{scores.voxels:,}")
    console.print(table)
    say(f"accuracy {_shown(scores.accuracy)}: the share of the voxels that have their true class")
    background = scores.classes.get(0)
    _note_not_scored(scores.not_scored, 0 if background is None else background.true)


ROWS = (
    ("true objects", "objects", ""),
    ("predicted objects", "predicted", ""),
    ("found at IoU 0.5", "found", "one to one"),
    ("AP", "ap", "mean over IoU 0.5, 0.55 .. 0.95"),
    ("AP at IoU 0.5", "ap_50", ""),
    ("AP at IoU 0.75", "ap_75", ""),
    ("accuracy at IoU 0.5", "accuracy_50", "found / (true + invented)"),
    ("accuracy at IoU 0.75", "accuracy_75", ""),
    ("precision", "precision", "at IoU 0.5; low after inventions"),
    ("recall", "recall", "at IoU 0.5; low after misses"),
    ("F1", "f1", "at IoU 0.5"),
    ("panoptic quality", "panoptic_quality", "at IoU 0.5"),
)
SECTION_MEANS = {"AP": "ap", "AP-50": "ap_50", "AP-75": "ap_75", "accuracy at IoU 0.75": "accuracy_75"}


def _add_distances(table: Table, scores: MaskScores) -> None:
    found = scores.distances
    if found is None:
        empty = not (scores.mask.tp + scores.mask.fp and scores.mask.tp + scores.mask.fn)
        why = "a mask has no voxel" if empty else "too many voxels to measure at once; up to a length: --cap-nm 500"
        table.add_row("distances (CREMI)", "-", why)
        return
    how = (
        "all of the box in memory" if found.cap_nm is None else f"up to {found.cap_nm:g} nm, longer ones count as that"
    )
    table.add_row("ADGT", f"{found.adgt_nm:.1f} nm", f"predicted to true; 0 is best; {how}")
    table.add_row("ADF", f"{found.adf_nm:.1f} nm", "true to predicted")
    table.add_row("CREMI score", f"{found.cremi_nm:.1f} nm", "their mean")


def _note_not_scored(voxels: int, background: int) -> None:
    """Say how many voxels were left out, and warn if that is all that is not an object."""
    if not voxels:
        return
    say(f"{voxels:,} voxels are not scored: their truth is a mark, such as -1 or the largest number of its type")
    if not background:
        say(
            "no other voxel is background: if that number means background, as in CREMI's clefts, say "
            "--minus-one-is-background",
            "yellow",
        )


def _shown(score: float | None) -> str:
    if score is None:
        return "-"
    return f"{score:,}" if isinstance(score, int) else f"{score:.3f}"
