"""What all pictures share: colours, and how a figure is made and saved.

Drawn with matplotlib's Agg canvas, without global state, so that any thread may draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.files import whole_file

if TYPE_CHECKING:  # importing it takes longer than all else that a finished run needs
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLIT, MERGE, TOTAL, USED, INK = "#2a78b5", "#d9692b", "#222222", "#3f9a5a", "#8a8a8a"
MISSED, INVENTED, FOUND = SPLIT, MERGE, USED
"""True but not predicted, predicted but not true, and both."""


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of a size in inches, (width, height)."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def tidy(axes: Axes) -> None:
    """Remove the upper and right borders of the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def save_figure(figure: Figure, path: Path | str, dpi: int) -> None:
    """Write a PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
