"""What a network predicts, step by step of its recurrence, as a picture."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from pipeline.training.target_specs import AnyTarget

MOST_STEPS = 6
"""The most panels of steps; of a longer recurrence, evenly spread steps are drawn."""
MASKED_COLOUR = (0.5, 0.7, 1.0)
"""Colour of masked voxels of a target, which no loss sees; their values are NaN."""


@torch.no_grad()
def outputs_of_steps(network: nn.Module, image: Tensor) -> list[Tensor]:
    """Logits (b, c, z, y, x) after each step, or once for a network without steps; float32."""
    if "every_step" in inspect.signature(network.forward).parameters:
        outputs = network(image, every_step=True)
    else:
        outputs = [network(image)]
    return [output.float() for output in outputs]


def draw_steps(image: Tensor, steps: Sequence[Tensor], targets: Tensor, specs: Sequence[AnyTarget], path: Path) -> None:
    """Draw the middle section of the first patch: image, prediction after each step, and truth; a PNG.

    image (b, c, z, y, x), drawn grey; steps, logits, and targets (b, c, z, y, x), the channels those of the specs; a
    row a target. Targets are NaN where voxels are masked.
    """
    chosen = sorted({round(i * (len(steps) - 1) / max(1, MOST_STEPS - 1)) for i in range(MOST_STEPS)})
    middle = image.shape[2] // 2
    predicted = [steps[i][0, :, middle].cpu().split([spec.channels for spec in specs]) for i in chosen]
    true = targets[0, :, middle].cpu().split([spec.target_channels for spec in specs])
    figure = Figure(figsize=(2.2 * (len(chosen) + 2), 2.5 * len(specs)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(specs), len(chosen) + 2, squeeze=False)
    for row, (axes, spec) in enumerate(zip(grid, specs, strict=True)):
        show(axes[0], image[0, :, middle].mean(0).cpu(), "image")
        truth = shown(true[row])
        unmasked = truth[truth.isfinite()].tolist()
        limits = limits_of(spec, min(unmasked, default=0), max(unmasked, default=0))
        for panel, number, outputs in zip(axes[1:], chosen, predicted, strict=False):
            title = f"step {number + 1}" if len(steps) > 1 else "prediction"
            show(panel, shown(activated(outputs[row], spec)), title, limits)
        show(axes[-1], truth, f"truth: {spec.what}", limits)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    canvas.print_png(str(partial))
    partial.replace(path)


def limits_of(spec: AnyTarget, least: float, most: float) -> tuple[float, float]:
    """The values drawn black and white: the target's whole range, so that a target of ones alone is white.

    least, most: of the values that are drawn; the range is extended to hold them.
    """
    whole = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softmax": (0.0, spec.channels - 1.0), "none": (0.0, 1.0)}
    low, high = whole[spec.activation]
    return min(low, least), max(high, most)


def activated(logits: Tensor, spec: AnyTarget) -> Tensor:
    """Logits (c, y, x) -> values of the target; for classes, the likeliest one, (1, y, x)."""
    if spec.activation == "softmax":
        return logits.argmax(0, keepdim=True).float()
    return {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "none": lambda given: given}[spec.activation](logits)  # type: ignore[no-any-return, operator]


def shown(values: Tensor) -> Tensor:
    """The mean of the first three channels, which for affinities are the nearest neighbours."""
    return values[:3].mean(0)


def show(axes: Axes, panel: Tensor, title: str, limits: tuple[float, float] | None = None) -> None:
    """Draw one grey panel, blue where it is NaN."""
    low, high = limits or (None, None)
    axes.set_facecolor(MASKED_COLOUR)
    axes.imshow(panel.float().numpy(), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
