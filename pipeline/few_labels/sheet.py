"""The contact sheet of suggested boxes: image, prediction, and where the network is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.drawing import new_figure, save_figure
from pipeline.few_labels.candidates import Probabilities
from pipeline.few_labels.suggestion import Suggestion
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.stages import opened

if TYPE_CHECKING:  # importing matplotlib takes longer than all else
    from matplotlib.axes import Axes

SHOWN = 24
"""Boxes on a sheet, at most."""
SIDE_BY_SIDE = 2
"""Boxes in one row."""
CONTRAST = (0.01, 0.99)
"""Quantiles of a section's grey values that are black and white."""
PANELS = ("image", "prediction", "unsure")


def draw_sheet(run: Run, found: Sequence[Suggestion], path: Path) -> None:
    """Write the middle section of each box as a PNG: image, mean probability, and where the network is unsure."""
    shown = found[:SHOWN]
    rows, columns = -(-len(shown) // SIDE_BY_SIDE), len(PANELS) * min(SIDE_BY_SIDE, len(shown))
    figure = new_figure((2.1 * columns, 2.45 * rows + 0.3))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for number, each in enumerate(shown):
        draw_box(list(grid[len(PANELS) * number :][: len(PANELS)]), run, each)
    save_figure(figure, path, dpi=110)


def draw_box(panels: Sequence[Axes], run: Run, each: Suggestion) -> None:
    """The three panels of a box."""
    start, stop = each.box.start, each.box.stop
    z = (start[0] + stop[0]) // 2
    section = BoundingBox(Vec(z, *start[1:]), Vec(z + 1, *stop[1:]))
    image = opened.source(run.inputs.url).read(section)[..., 0, :, :]
    share = Probabilities.of(run).read(section)[:, 0] / 255
    titles = f"{each.name}, z {z}", f"y {start[1]}, x {start[2]}", f"unsure {each.unsure:.2f}, cluster {each.cluster}"
    grey = image if image.ndim == 2 else image.mean(0)
    unsure = (1 - np.abs(2 * share - 1)).mean(0)
    pictures = (grey, "gray", np.quantile(grey, CONTRAST)), (share.mean(0), "gray", (0, 1)), (unsure, "magma", (0, 1))
    for axes, title, (picture, colours, (least, most)) in zip(panels, titles, pictures, strict=True):
        axes.imshow(picture, cmap=colours, vmin=least, vmax=most, interpolation="nearest")
        axes.set_title(title, fontsize=8, loc="left")
