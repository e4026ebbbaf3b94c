"""A picture of the first samples of a data set, image and target side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SHOWN = 8
"""Samples on a sheet, at most."""
PAIRS = 2
"""The number of samples in one row."""
PANEL_INCHES = 2.6
DPI = 110
ANGLE_COLOUR = "#e8622c"


def contact_sheet(path: Path, pairs: Sequence[tuple[np.ndarray, np.ndarray]], notes: Sequence[str], title: str) -> None:
    """Draw up to ``SHOWN`` samples as a PNG.

    pairs: image uint8 (y, x) or (z, y, x), of which the middle section is drawn; and its target: a mask or labels of
        the same shape, or (sin 2 theta, cos 2 theta) of an orientation, or (sin theta, cos theta).
    notes: one line for each sample, written below its image.
    """
    pairs = list(pairs)[:SHOWN]
    columns = 2 * min(PAIRS, len(pairs))
    rows = -(-len(pairs) // PAIRS)
    figure = Figure(figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows * 1.12 + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for number, ((image, target), note) in enumerate(zip(pairs, notes, strict=False)):
        left, right = grid[2 * number : 2 * number + 2]
        left.imshow(_section(image), cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        left.set_title(f"{number}: image", fontsize=9, loc="left")
        right.set_title(f"target ({note})", fontsize=9, loc="left")
        _draw_target(right, target, image)
    figure.suptitle(title, fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI)


def _section(volume: np.ndarray) -> np.ndarray:
    """The middle section of a volume, or the picture itself."""
    return volume if volume.ndim == 2 else volume[len(volume) // 2]  # type: ignore[no-any-return]


def _draw_target(axes: Axes, target: np.ndarray, image: np.ndarray) -> None:
    if target.ndim == 1:
        _draw_angle(axes, target, image)
    elif target.max() > 1:
        axes.imshow(label_picture(_section(target)), interpolation="nearest")
    else:
        axes.imshow(_section(target), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")


def label_picture(labels: np.ndarray) -> np.ndarray:
    """Labels in 20 colours, 0 black: float64 (y, x, 4)."""
    colours = colormaps["tab20"](labels.astype(np.int64) * 7 % 20)
    colours[labels == 0] = (0, 0, 0, 1)
    return np.asarray(colours)


def _draw_angle(axes: Axes, doubled: np.ndarray, image: np.ndarray) -> None:
    """A line of the orientation over the faded image."""
    angle = np.arctan2(*doubled) / 2
    middle, reach = image.shape[0] / 2, image.shape[0] * 0.12
    step = reach * np.array([np.cos(angle), -np.sin(angle)])
    axes.imshow(image, cmap="gray", vmin=-255, vmax=255, interpolation="antialiased")
    axes.plot(*np.stack([middle - step, middle + step], axis=-1), color=ANGLE_COLOUR, linewidth=3)
