"""Pictures to judge a segmentation by: scores against the threshold, and the data side by side.

Drawn with matplotlib's Agg canvas, without global state, so that any thread may draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.files import whole_file
from pipeline.evaluation.sweep import SweepPoint, best

SPLIT, MERGE, TOTAL, INK = "#2a78b5", "#d9692b", "#222222", "#8a8a8a"
PICTURE_INCHES = 15.0
TALLEST = 3.0
"""Height of the second row of pictures, at most, as a multiple of its width."""


def plot_sweep(points: Sequence[SweepPoint], path: Path | str, *, title: str = "Threshold sweep") -> None:
    """Draw VOI against the threshold, and split against merge, with the best threshold marked.

    Args:
        points: from ``sweep``; at least one.
        path: the PNG file.
        title: above the picture.

    Raises:
        VolumeError: there is no point.
        StorageError: the file cannot be written.
    """
    chosen = best(points)
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_scores(left, points, chosen)
    _draw_trade(right, points, chosen)
    figure.suptitle(title, fontsize=12)
    _save(figure, path, dpi=130)


def _draw_scores(axes: Axes, points: Sequence[SweepPoint], chosen: SweepPoint) -> None:
    """VOI split, merge and their sum against the threshold."""
    threshold = [point.threshold for point in points]
    for name, colour, values in (
        ("split", SPLIT, [point.scores.voi_split for point in points]),
        ("merge", MERGE, [point.scores.voi_merge for point in points]),
        ("total", TOTAL, [point.scores.voi for point in points]),
    ):
        axes.plot(threshold, values, ".-", color=colour, label=name, linewidth=2 if name == "total" else 1.4)
    axes.axvline(chosen.threshold, color=INK, linestyle=":", linewidth=1)
    axes.plot(chosen.threshold, chosen.scores.voi, "o", color=TOTAL, markersize=9, markerfacecolor="white")
    label = (
        f"best {chosen.threshold:.3g}: VOI {chosen.scores.voi:.3f}, Rand error {chosen.scores.adapted_rand_error:.3f}"
    )
    axes.set(xlabel="threshold (merges that score at least this are made)", ylabel="VOI in bits", ylim=(0, None))
    axes.set_title(label, fontsize=10)
    _tidy(axes)
    axes.legend(frameon=False)


def _draw_trade(axes: Axes, points: Sequence[SweepPoint], chosen: SweepPoint) -> None:
    """Split against merge, a point a threshold, with lines of equal total."""
    split = np.array([point.scores.voi_split for point in points])
    merge = np.array([point.scores.voi_merge for point in points])
    axes.plot(merge, split, ".-", color=INK, linewidth=1.2, markersize=7)
    axes.plot(chosen.scores.voi_merge, chosen.scores.voi_split, "o", color=TOTAL, markersize=9, markerfacecolor="white")
    total = chosen.scores.voi
    axes.plot([0, total], [total, 0], ":", color=INK, linewidth=1)
    for point in (points[0], points[-1]):
        place = (point.scores.voi_merge, point.scores.voi_split)
        axes.annotate(f"{point.threshold:.3g}", place, textcoords="offset points", xytext=(6, 4), fontsize=8, color=INK)
    axes.set(xlabel="VOI merge in bits (false mergers)", ylabel="VOI split in bits (false splits)")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.set_title("dotted: the best total", fontsize=10)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    """Fewer lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def comparison_picture(
    raw: np.ndarray,
    affinities: np.ndarray | None,
    segmentation: np.ndarray,
    truth: np.ndarray | None,
    path: Path | str,
    *,
    resolution_nm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    title: str = "",
) -> None:
    """Draw the middle xy and xz planes of an image and what was made of it, side by side.

    Colours depend on the id alone; where truth is given, the largest segment of each true object takes that object's
    colour, so what differs in colour between the two is an error.

    Args:
        raw: uint8 (z, y, x).
        affinities: uint8 (at least 3, z, y, x), drawn as red, green, blue = z, y, x; left out if None.
        segmentation: ids (z, y, x); 0 is drawn as raw.
        truth: ids (z, y, x); 0 is drawn as raw; left out if None.
        path: the PNG file.
        resolution_nm: nm per voxel; sets the shape of the xz pictures.
        title: above the picture.

    Raises:
        VolumeError: the volumes differ in shape.
        StorageError: the file cannot be written.
    """
    _check_shapes(raw, affinities, segmentation, truth)
    colour_id = segmentation if truth is None else _matched(segmentation, truth)
    columns: dict[str, tuple[np.ndarray, ...]] = {"raw": (raw,)}
    if affinities is not None:
        columns["affinities (z, y, x as red, green, blue)"] = (np.moveaxis(affinities[:3], 0, -1),)
    columns["segmentation"] = (raw, segmentation, colour_id)
    if truth is not None:
        columns["ground truth"] = (raw, truth, truth)
    depth = raw.shape[0] * resolution_nm[0] / (raw.shape[2] * resolution_nm[2])
    width = raw.shape[1] * resolution_nm[1] / (raw.shape[2] * resolution_nm[2])
    heights = (width, min(max(depth, 0.15), TALLEST))
    inches = PICTURE_INCHES / 4
    figure = Figure(figsize=(inches * len(columns), inches * sum(heights) + 0.9), layout="constrained")
    grid = figure.subplots(2, len(columns), height_ratios=heights, squeeze=False)
    aspects = (resolution_nm[1] / resolution_nm[2], resolution_nm[0] / resolution_nm[2])
    for column, (name, volumes) in enumerate(columns.items()):
        grid[0, column].set_title(name, fontsize=11)
        for row, plane in enumerate((np.s_[raw.shape[0] // 2], np.s_[:, raw.shape[1] // 2])):
            _show(grid[row, column], [volume[plane] for volume in volumes], aspects[row])
    grid[0, 0].set_ylabel(f"xy, z = {raw.shape[0] // 2}")
    grid[1, 0].set_ylabel(f"xz, y = {raw.shape[1] // 2}")
    figure.suptitle(title, fontsize=12)
    _save(figure, path, dpi=110)


def _check_shapes(
    raw: np.ndarray, affinities: np.ndarray | None, segmentation: np.ndarray, truth: np.ndarray | None
) -> None:
    """All volumes must cover the same voxels."""
    shapes = {"raw": raw.shape, "segmentation": segmentation.shape}
    if truth is not None:
        shapes["truth"] = truth.shape
    if affinities is not None:
        shapes["affinities"] = affinities.shape[1:]
    if len(set(shapes.values())) > 1 or raw.ndim != 3 or (affinities is not None and len(affinities) < 3):
        raise VolumeError(f"shapes {shapes}: a picture needs equal (z, y, x), and 3 affinities; read one box from all")


def _matched(segmentation: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ids to colour segments by: the true object of which the segment is the largest part, else an id of its own."""
    table = Contingency.from_labels(truth, segmentation).without_unassigned()
    order = np.argsort(-table.voxels, kind="stable")
    objects, first = np.unique(table.truth[order], return_index=True)
    ids, index = np.unique(segmentation, return_inverse=True)
    colours = ids.astype(np.uint64) + np.where(ids > 0, np.uint64(1) << np.uint64(48), np.uint64(0))
    for true, entry in sorted(zip(objects, order[first], strict=True), key=lambda pair: table.voxels[pair[1]]):
        colours[np.searchsorted(ids, table.predicted[entry])] = true  # a merger takes the colour of its largest part
    return colours[index.reshape(segmentation.shape)]


def label_colours(labels: np.ndarray) -> np.ndarray:
    """A colour for every id, far apart for ids close together, the same in every picture.

    Args:
        labels: ids, any shape.

    Returns:
        float64, ``labels.shape`` + (3,), red, green, blue from 0 to 1.
    """
    ids, index = np.unique(labels, return_inverse=True)
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    parts = [(mixed >> np.uint64(shift)).astype(np.uint16) / 65535 for shift in (48, 32, 16)]
    colours = hsv_to_rgb(np.stack([parts[0], 0.45 + 0.45 * parts[1], 0.7 + 0.3 * parts[2]], axis=-1))
    return colours[index.reshape(labels.shape)]


def _show(axes: Axes, planes: Sequence[np.ndarray], aspect: float) -> None:
    """Draw one plane: an image, or (image, ids, ids for colours)."""
    if len(planes) == 1:
        axes.imshow(planes[0], cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="nearest")
    else:
        axes.imshow(_overlay(*planes), aspect=aspect, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _overlay(raw: np.ndarray, ids: np.ndarray, colour_ids: np.ndarray) -> np.ndarray:
    """Colours over the image, borders between ids dark: float64 (rows, columns, 3)."""
    picture = np.repeat(raw[..., None] / 255, 3, axis=-1)
    shown = ids != 0
    picture[shown] = 0.35 * picture[shown] + 0.65 * label_colours(colour_ids)[shown]
    border = np.zeros(ids.shape, bool)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    picture[border] *= 0.25
    return picture


def _save(figure: Figure, path: Path | str, dpi: int) -> None:
    """Write a PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
