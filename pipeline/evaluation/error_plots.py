"""Pictures of masks and objects: scores against the threshold or the IoU, and the sections with the most errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import VolumeError
from pipeline.evaluation.compare_masks import MaskScores
from pipeline.evaluation.compare_objects import ObjectScores
from pipeline.evaluation.drawing import FOUND, INK, INVENTED, MISSED, TOTAL, new_figure, save_figure, tidy
from pipeline.evaluation.masks import SURE
from pipeline.evaluation.objects import IOUS
from pipeline.evaluation.plots import FLATTEST, TALLEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = 5.5
COLOURS = {"found": FOUND, "missed": MISSED, "invented": INVENTED}
CODES = {name: code for code, name in enumerate(COLOURS, start=1)}
"""How a picture of errors marks a voxel; 0 is background."""
NOT_SCORED = 4


def threshold_plot(scores: MaskScores, path: Path | str, *, title: str = "Threshold sweep") -> None:
    """Draw precision, recall and Dice against the threshold, and precision against recall.

    Raises ``VolumeError`` for a mask, which has no thresholds, and without a true voxel; ``StorageError`` if the file
    cannot be written.
    """
    best = scores.best
    if best is None:
        raise VolumeError("a threshold sweep needs probabilities and at least one true voxel; this has none")
    figure = new_figure((11, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    curve = list(scores.counts.curve())
    at = [value / SURE for value, _ in curve]
    for name, colour in (("precision", INVENTED), ("recall", MISSED), ("dice", TOTAL)):
        values = [np.nan if (each := getattr(counts, name)) is None else each for _, counts in curve]
        left.plot(at, values, color=colour, label=name, linewidth=2 if name == "dice" else 1.4)
    left.axvline(best / SURE, color=INK, linestyle=":", linewidth=1)
    left.axvline(scores.value / SURE, color=FOUND, linestyle="--", linewidth=1, label=f"in use: {scores.threshold:.3g}")
    left.legend(frameon=False)
    left.set(xlabel="threshold (the foreground reaches it)", ylim=(0, 1.02))
    left.set_title(f"best {best / SURE:.3g}: Dice {scores.counts.at(best).dice:.3f}", fontsize=10)
    defined = [(counts.recall, counts.precision) for _, counts in curve if counts.precision is not None]
    right.plot(*zip(*defined, strict=True), color=INK, linewidth=1.4)
    right.plot(
        scores.counts.at(best).recall, scores.counts.at(best).precision, "o", color=TOTAL, markerfacecolor="white"
    )
    right.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    right.set_title(f"average precision {scores.average_precision:.3f}", fontsize=10)
    _finish(figure, (left, right), path, title)


def iou_plot(scores: ObjectScores, path: Path | str, *, title: str = "Objects") -> None:
    """Draw the average precision against the least IoU for all objects and for each size class, and the objects found.

    Raises ``StorageError`` if the file cannot be written.
    """
    figure = new_figure((11, 4.4))
    left, right = figure.subplots(1, 2)
    groups = {"all": scores.everything, **scores.sizes}
    for name, colour in zip(groups, (TOTAL, MISSED, FOUND, INVENTED), strict=True):
        values = [np.nan if level.ap is None else level.ap for level in groups[name].levels]
        left.plot(IOUS, values, ".-", color=colour, label=name, linewidth=2 if name == "all" else 1.4)
    left.legend(frameon=False)
    left.set(xlabel="least IoU of partners", ylabel="average precision", ylim=(0, 1.02))
    levels = scores.everything.levels
    for name, colour in (("precision", INVENTED), ("recall", MISSED), ("accuracy", TOTAL)):
        values = [np.nan if (each := getattr(level, name)) is None else each for level in levels]
        right.plot(IOUS, values, ".-", color=colour, label=name)
    right.legend(frameon=False)
    right.set(xlabel="least IoU of partners", ylim=(0, 1.02))
    _finish(figure, (left, right), path, title)


def error_picture(
    sections: Mapping[str, Mapping[str, np.ndarray]], path: Path | str, *, aspect: float = 1.0, title: str = ""
) -> None:
    """Draw sections in a row each: what was found, missed and invented, in the colours of ``COLOURS``.

    Args:
        sections: title of a row -> title of a column -> codes (y, x) as in ``CODES``, 0 = background.
        path: the PNG file.
        aspect: the height of a pixel as a multiple of its width.
        title: above the picture.

    Raises ``StorageError`` if the file cannot be written.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    rows = list(sections.values())
    height, width = next(iter(rows[0].values())).shape
    ratio = float(np.clip(height * aspect / width, FLATTEST, TALLEST))
    figure = new_figure((INCHES * len(rows[0]), INCHES * ratio * len(rows) + 0.9))
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    colours = ListedColormap(["#efefef", *COLOURS.values(), "#bdbdbd"])
    for row, (name, pictures) in enumerate(sections.items()):
        for column, (head, codes) in enumerate(pictures.items()):
            axes = grid[row, column]
            axes.imshow(codes, cmap=colours, vmin=0, vmax=NOT_SCORED, aspect=aspect, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{name}: {head}" if head else name, fontsize=10)
    patches = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path, dpi=110)


def _finish(figure: Figure, axes: Sequence[Axes], path: Path | str, title: str) -> None:
    for each in axes:
        tidy(each)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path, dpi=130)
