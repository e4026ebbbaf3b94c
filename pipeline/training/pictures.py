"""What a network predicts, step by step of its recurrence, as a picture."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

MOST_STEPS = 6
"""Panels of steps; of a longer recurrence evenly spread ones."""


@torch.no_grad()
def predictions_of_steps(network: nn.Module, image: Tensor) -> list[Tensor]:
    """Sigmoid of the outputs (b, c, z, y, x) after each step, or the only output of a network without steps."""
    if "every_step" in inspect.signature(network.forward).parameters:
        outputs = network(image, every_step=True)
    else:
        outputs = [network(image)]
    return [torch.sigmoid(output.float()) for output in outputs]


def draw_steps(image: Tensor, steps: Sequence[Tensor], targets: Tensor, path: Path) -> None:
    """The middle section: image, mean of the nearest affinities after each step, and the truth; a PNG.

    image (b, 1, z, y, x); steps and targets (b, c, z, y, x); of the first in the batch.
    """
    middle = image.shape[2] // 2
    chosen = sorted({round(i * (len(steps) - 1) / max(1, MOST_STEPS - 1)) for i in range(MOST_STEPS)})
    panels = {"image": image[0, 0, middle]}
    panels |= {f"step {i + 1}": steps[i][0, :3, middle].mean(0) for i in chosen}
    panels["truth"] = targets[0, :3, middle].mean(0)
    figure = Figure(figsize=(2.2 * len(panels), 2.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        limits = (None, None) if title == "image" else (0, 1)
        axes.imshow(panel.float().cpu().numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    canvas.print_png(str(partial))
    partial.replace(path)
