"""The picture of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


class Point(Protocol):
    """The part of a validation that a curve needs."""

    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def loss(self) -> float: ...  # noqa: D102
    @property
    def validation_loss(self) -> float: ...  # noqa: D102
    @property
    def score(self) -> float: ...  # noqa: D102


def draw_curve(points: Sequence[Point], path: Path, title: str, score: str) -> None:
    """Losses and the score of this name against steps, as a PNG that replaces the former one as a whole."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    steps = [p.step for p in points]
    losses.plot(steps, [p.loss for p in points], label="training", marker=".")
    losses.plot(steps, [p.validation_loss for p in points], label="validation", marker=".")
    losses.set(xlabel="step", ylabel="loss", title=title)
    losses.legend(frameon=False)
    scores.plot(steps, [p.score for p in points], color="tab:green", marker=".")
    scores.set(xlabel="step", ylabel=score, title="score of the mean weights, validation")
    for axes in (losses, scores):
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    partial = path.with_name(f".{path.name}.partial")
    canvas.print_png(str(partial))
    partial.replace(path)
