"""A contact sheet of training patches: each random change by itself, all together, and the targets.

Rows are changes, columns patches. Each panel shows the section that the change alters most. Coloured lines are the
borders of labels: they must lie on the borders in the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.training.config import TrainConfig
from pipeline.training.pictures import MASKED_COLOUR, limits_of
from pipeline.training.sampler import Sampler
from pipeline.training.sources import open_sources
from pipeline.training.targets import erode

PATCHES = 5
AMOUNTS = ("rescale", "contrast")
"""Changes whose setting is an amount; for the others it is a probability."""
CHANGES = (
    *("rescale", "copy_paste", "warp", "elastic", "misalignment", "contrast", "blur", "noise", "shading"),
    *("missing_sections", "grey", "invert", "blurred_sections", "motion_blur", "missing_parts", "cut_blur"),
    *("cut_noise", "mixup"),
)
"""The changes in the order in which they are applied."""

Panel = tuple[str, np.ndarray, np.ndarray | None, tuple[float, float]]
"""Title, values (y, x), labels (y, x) whose borders are drawn, and the values that are black and white."""


def preview(config: TrainConfig) -> Path:
    """Write ``preview.png`` into the output folder, and nothing else; returns its path."""
    rows = list(rows_of(config))
    figure = Figure(figsize=(2.4 * PATCHES, 2.5 * len(rows)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, row in zip(figure.subplots(len(rows), PATCHES, squeeze=False), rows, strict=True):
        for panel, content in zip(axes, row, strict=True):
            draw(panel, *content)
    path = config.make_output() / "preview.png"
    canvas.print_png(str(path))
    return path


def rows_of(config: TrainConfig) -> Iterator[list[Panel]]:
    """The rows of the sheet, from top to bottom."""
    sources = open_sources(config)[0]
    plain = Sampler(sources, with_changes(config, {}))
    yield [panel(plain, plain, number, "as it is") for number in range(PATCHES)]
    for name in CHANGES:
        if amount := getattr(config.augmentation, name):
            alone = with_changes(config, {name: amount if name in AMOUNTS else 1.0})
            yield [panel(Sampler(sources, alone), plain, number, name) for number in range(PATCHES)]
    everything = Sampler(sources, config)
    yield [panel(everything, plain, number, f"patch {number}") for number in range(PATCHES)]
    yield from target_rows(everything)


def with_changes(config: TrainConfig, on: dict[str, float]) -> TrainConfig:
    """The training with only some changes on, as strong as before."""
    off = {name: 0.0 for name in CHANGES}
    return config.model_copy(update={"augmentation": config.augmentation.model_copy(update=off | on)})


def panel(sampler: Sampler, plain: Sampler, number: int, title: str) -> Panel:
    """The section of a patch that differs most from the unchanged patch."""
    image, moved, _ = sampler.changed(number)
    image, before = as_grey(image), as_grey(plain.changed(number)[0])
    difference = abs(image - before).mean((1, 2))
    section = int(np.argmax(difference)) if difference.any() else len(image) // 2
    return title, image[section], moved.labels[section], (0.0, 1.0)


def as_grey(image: np.ndarray) -> np.ndarray:
    """An image (z, y, x) as it is; the mean of the colours of one (c, z, y, x)."""
    return image if image.ndim == 3 else image.mean(0)


def target_rows(sampler: Sampler) -> Iterator[list[Panel]]:
    """For each target the mean of its first three channels, in the middle section; NaN where voxels are masked.

    All panels of a row have the same black and white.
    """
    patches = [sampler.draw(number) for number in range(PATCHES)]
    first = 0
    for spec in sampler.targets:
        channels = slice(first, first + min(3, spec.target_channels))
        first += spec.target_channels
        made = [(values[channels], weights[channels]) for _, values, weights in patches]
        unmasked = np.concatenate([values[weights > 0] for values, weights in made])
        title, limits = (
            target_title(spec.what, unmasked),
            limits_of(spec, unmasked.min(initial=0), unmasked.max(initial=0)),
        )
        yield [(title, middle(values, weights), None, limits) for values, weights in made]


def target_title(what: str, unmasked: np.ndarray) -> str:
    """The target's name, with its value if it has a single one in all patches, so that there is nothing to learn."""
    found = np.unique(unmasked)
    if len(found) > 1:
        return what
    return f"{what}: {found[0]:.3g} everywhere" if len(found) else f"{what}: all masked"


def middle(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The middle section (y, x) of values (c, z, y, x), averaged over channels; NaN where voxels are masked."""
    section = values.shape[1] // 2
    unmasked = (weights[:, section] > 0).all(0)
    return np.where(unmasked, values[:, section].mean(0), np.nan)


def draw(axes: Axes, title: str, values: np.ndarray, labels: np.ndarray | None, limits: tuple[float, float]) -> None:
    """Draw one panel."""
    axes.set_facecolor(MASKED_COLOUR)
    axes.imshow(values, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    if labels is not None:
        line = np.zeros((*labels.shape, 4))
        line[(erode(labels) == 0) & (labels > 0)] = (1, 0.5, 0, 0.6)
        line[labels == 0] = (0, 0.4, 1, 0.25)
        axes.imshow(line, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
