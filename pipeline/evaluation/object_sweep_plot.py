"""Scores of a mask or of objects along a line of choices, the best one among them, and their picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.drawing import INK, INVENTED, MISSED, TOTAL, USED, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = {"foreground_iou": "foreground IoU", "f1": "F1 at IoU 0.5"}
"""What the best choice has most of: of a mask the first, of objects the second."""
DRAWN = {
    "precision": ("precision", INVENTED),
    "recall": ("recall", MISSED),
    "dice": ("Dice", INK),
    "ap_50": ("AP-50", INK),
    **{name: (words, TOTAL) for name, words in MEASURES.items()},
}
"""Scores that are drawn, with their names and colours."""
WORDS = {"threshold": "threshold", "seed_threshold": "threshold of seeds"}


@dataclass(frozen=True)
class Tried:
    """The scores of one choice."""

    stored: int
    """Voxels with a larger stored number are inside, or are seeds."""
    value: float
    """The same as a value for the run file."""
    scores: Mapping[str, Any]
    """By name; ``None`` where a score is not defined"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"value": self.value, "stored_above": self.stored, **self.scores}


@dataclass(frozen=True)
class Line:
    """The scores along one key of the run file; all else is as the run has it."""

    key: str
    """``threshold`` or ``seed_threshold``"""
    points: tuple[Tried, ...]
    """The lowest value first; the run's own is among them"""
    used: int
    """The stored number in use"""
    average_precision: float | None = None
    """Of a mask without a least size; ``None`` for all else"""

    @property
    def measure(self) -> str:
        """The score by which choices are compared."""
        return next(name for name in MEASURES if name in self.points[0].scores)

    @property
    def best(self) -> Tried:
        """The choice of the largest measure; of equal ones that in use, then the larger average precision."""

        def rank(each: Tried) -> tuple[float, bool, float, int]:
            return self.score(each), each.stored == self.used, each.scores.get("ap") or 0.0, each.stored

        return max(self.points, key=rank)

    @property
    def own(self) -> Tried:
        """The choice in use."""
        return next(each for each in self.points if each.stored == self.used)

    @property
    def is_best(self) -> bool:
        """True if no choice is better than that in use."""
        return self.best.stored == self.used

    def score(self, tried: Tried) -> float:
        """The measure of a choice; 0 where it is not defined."""
        return float(tried.scores[self.measure] or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = {"key": self.key, "measure": self.measure, "in_use": self.own.value, "best": self.best.to_dict()}
        return {
            **found,
            "average_precision": self.average_precision,
            "points": [each.to_dict() for each in self.points],
        }


def object_sweep_plot(lines: Sequence[Line], path: Path | str, *, title: str = "Threshold sweep") -> None:
    """Draw the scores along each line, with the best choice and that in use marked; beside one line, its trade-off.

    Raises ``StorageError`` if the file cannot be written.
    """
    figure = new_figure((11, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_line(left, lines[0])
    if len(lines) > 1:
        _draw_line(right, lines[1])
    else:
        _draw_trade(right, lines[0])
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path, dpi=130)


def _draw_line(axes: Axes, line: Line) -> None:
    """The scores against the value of a key."""
    at, best = [each.value for each in line.points], line.best
    for name, (words, colour) in DRAWN.items():
        if name in best.scores:
            values = [np.nan if (score := each.scores[name]) is None else score for each in line.points]
            axes.plot(at, values, color=colour, label=words, linewidth=2 if name == line.measure else 1.4)
    axes.axvline(best.value, color=INK, linestyle=":", linewidth=1)
    axes.plot(best.value, line.score(best), "o", color=TOTAL, markersize=9, markerfacecolor="white")
    axes.axvline(line.own.value, color=USED, linestyle="--", linewidth=1, label=f"in use: {line.own.value:g}")
    axes.legend(frameon=False)
    axes.set(xlabel=f"{WORDS[line.key]} (voxels are above it)", ylim=(0, 1.02))
    axes.set_title(f"best {best.value:g}: {MEASURES[line.measure]} {line.score(best):.3f}", fontsize=10)
    tidy(axes)


def _draw_trade(axes: Axes, line: Line) -> None:
    """Precision against recall, with the best choice and that in use."""
    pairs = [(each.scores["recall"], each.scores["precision"]) for each in line.points]
    axes.plot(*zip(*(pair for pair in pairs if None not in pair), strict=True), ".-", color=INK, linewidth=1.4)
    for each, colour, name in ((line.best, TOTAL, "best"), (line.own, USED, "in use")):
        if None not in (pair := (each.scores["recall"], each.scores["precision"])):
            axes.plot(*pair, "o", color=colour, markersize=9, markerfacecolor="white", label=name)
    axes.legend(frameon=False)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    if line.average_precision is not None:
        axes.set_title(f"average precision {line.average_precision:.3f}", fontsize=10)
    tidy(axes)
