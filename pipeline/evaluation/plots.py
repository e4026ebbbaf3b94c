"""Pictures to judge a segmentation by: scores against the threshold, and the data side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.drawing import INK, MERGE, SPLIT, TOTAL, USED, new_figure, save_figure, tidy
from pipeline.evaluation.sweep import SweepPoint, best

if TYPE_CHECKING:  # importing it takes longer than all else that a finished run needs
    from matplotlib.axes import Axes

COLUMN_INCHES = 3.75
FLATTEST, TALLEST = 0.15, 3.0
"""The least and the largest height of a row of pictures, as a multiple of its width."""
OWN_COLOURS = np.uint64(1) << np.uint64(48)
"""Added to the ids of segments that match no object, so that they rarely look like one."""


def sweep_plot(
    points: Sequence[SweepPoint], path: Path | str, *, chosen: float | None = None, title: str = "Threshold sweep"
) -> None:
    """Draw VOI against the threshold, and split against merge, with the best threshold marked.

    Args:
        points: from ``sweep``; at least one.
        path: the PNG file.
        chosen: the threshold in use, which is marked as well.
        title: above the picture.

    Raises:
        VolumeError: there is no point.
        StorageError: the file cannot be written.
    """
    lowest = best(points)
    figure = new_figure((11, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_scores(left, points, lowest)
    if chosen is not None:
        left.axvline(chosen, color=USED, linestyle="--", linewidth=1, label=f"in use: {chosen:.3g}")
    left.legend(frameon=False)
    _draw_trade(right, points, lowest)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path, dpi=130)


def _draw_scores(axes: Axes, points: Sequence[SweepPoint], lowest: SweepPoint) -> None:
    """VOI split, merge and their sum against the threshold."""
    threshold = [point.threshold for point in points]
    for name, colour, values in (
        ("split", SPLIT, [point.scores.voi_split for point in points]),
        ("merge", MERGE, [point.scores.voi_merge for point in points]),
        ("total", TOTAL, [point.scores.voi for point in points]),
    ):
        axes.plot(threshold, values, ".-", color=colour, label=name, linewidth=2 if name == "total" else 1.4)
    axes.axvline(lowest.threshold, color=INK, linestyle=":", linewidth=1)
    axes.plot(lowest.threshold, lowest.scores.voi, "o", color=TOTAL, markersize=9, markerfacecolor="white")
    label = (
        f"best {lowest.threshold:.3g}: VOI {lowest.scores.voi:.3f}, Rand error {lowest.scores.adapted_rand_error:.3f}"
    )
    axes.set(xlabel="threshold (merges that score at least this are made)", ylabel="VOI in bits", ylim=(0, None))
    axes.set_title(label, fontsize=10)
    tidy(axes)


def _draw_trade(axes: Axes, points: Sequence[SweepPoint], lowest: SweepPoint) -> None:
    """VOI split against VOI merge, one point for each threshold, with lines of equal total."""
    split = np.array([point.scores.voi_split for point in points])
    merge = np.array([point.scores.voi_merge for point in points])
    axes.plot(merge, split, ".-", color=INK, linewidth=1.2, markersize=7)
    axes.plot(lowest.scores.voi_merge, lowest.scores.voi_split, "o", color=TOTAL, markersize=9, markerfacecolor="white")
    total = lowest.scores.voi
    axes.plot([0, total], [total, 0], ":", color=INK, linewidth=1)
    for point in (points[0], points[-1]):
        place = (point.scores.voi_merge, point.scores.voi_split)
        axes.annotate(f"{point.threshold:.3g}", place, textcoords="offset points", xytext=(6, 4), fontsize=8, color=INK)
    axes.set(xlabel="VOI merge in bits (false mergers)", ylabel="VOI split in bits (false splits)")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.set_title("dotted: the best total", fontsize=10)
    tidy(axes)


@dataclass(frozen=True)
class Planes:
    """Two planes of a volume, or of several channels of it: all that a picture needs to read."""

    xy: np.ndarray
    """(..., y, x)"""
    xz: np.ndarray
    """(..., z, x)"""

    @classmethod
    def middle(cls, volume: np.ndarray) -> Planes:
        """The planes through the middle of a volume (..., z, y, x)."""
        depth, height, _ = volume.shape[-3:]
        return cls(volume[..., depth // 2, :, :], volume[..., height // 2, :])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels, (z, y, x)."""
        return self.xz.shape[-2], self.xy.shape[-2], self.xy.shape[-1]

    @property
    def grey(self) -> Planes:
        """The same planes without channels; of colours, their mean."""
        return Planes(*(plane.mean(0).astype(np.uint8) if plane.ndim == 3 else plane for plane in self.both()))

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """Both planes, in the order in which they are drawn."""
        return self.xy, self.xz


def comparison_picture(
    path: Path | str,
    *,
    segmentation: np.ndarray | Planes,
    image: np.ndarray | Planes | None = None,
    affinities: np.ndarray | Planes | None = None,
    prediction: np.ndarray | Planes | None = None,
    truth: np.ndarray | Planes | None = None,
    resolution_nm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    title: str = "",
    same_ids: bool = False,
) -> None:
    """Draw the xy and xz planes of an image and its segmentation side by side; what is None is left out.

    Each argument may be a volume, of which the middle planes are drawn, or two planes of it.

    Colours depend on the id alone. If truth is given, the largest segment of each true object takes that object's
    colour, so a difference in colour between the two is an error; classes, which are ``same_ids``, need no such match.

    Args:
        path: the PNG file.
        segmentation: ids (z, y, x); 0 is drawn without colour.
        image: uint8 (z, y, x).
        affinities: uint8 (at least 3, z, y, x), drawn as red, green, blue = z, y, x.
        prediction: uint8 (z, y, x), of any other head.
        truth: ids (z, y, x); 0 is drawn without colour.
        resolution_nm: nm per voxel; sets the shape of the pictures.
        title: above the picture.
        same_ids: an id means the same in the truth, as that of a class does.

    Raises:
        VolumeError: the volumes differ in shape, or there are fewer than 3 affinities.
        StorageError: the file cannot be written.
    """
    given = {"image": image, "affinities": affinities, "prediction": prediction}
    given |= {"segmentation": segmentation, "truth": truth}
    planes = {
        name: volume if isinstance(volume, Planes) else Planes.middle(volume)
        for name, volume in given.items()
        if volume is not None
    }
    _check_shapes(planes)
    columns = _columns(planes, same_ids=same_ids)
    aspects = (resolution_nm[1] / resolution_nm[2], resolution_nm[0] / resolution_nm[2])
    depth, height, width = planes["segmentation"].shape
    heights = [
        float(np.clip(rows * aspect / width, FLATTEST, TALLEST))
        for rows, aspect in zip((height, depth), aspects, strict=True)
    ]
    size = (COLUMN_INCHES * len(columns), COLUMN_INCHES * sum(heights) + 0.9)
    figure = new_figure(size)
    grid = figure.subplots(2, len(columns), height_ratios=heights, squeeze=False)
    for column, (name, pictures) in enumerate(columns.items()):
        grid[0, column].set_title(name, fontsize=11)
        for row, picture in enumerate(pictures):
            axes = grid[row, column]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect=aspects[row], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
    grid[0, 0].set_ylabel("xy")
    grid[1, 0].set_ylabel("xz")
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path, dpi=110)


def _check_shapes(planes: Mapping[str, Planes]) -> None:
    """Refuse planes that do not cover the same voxels."""
    shapes = {name: part.shape for name, part in planes.items()}
    channels = planes["affinities"].xy.shape[0] if "affinities" in planes else 3
    if len(set(shapes.values())) > 1 or channels < 3:
        raise VolumeError(
            f"shapes {shapes}, {channels} affinities: a picture needs equal (z, y, x) and 3 affinities; "
            "read one box from all"
        )


def _columns(planes: Mapping[str, Planes], *, same_ids: bool) -> dict[str, list[np.ndarray]]:
    """The title of each column, and its two pictures, gray uint8 or colours."""
    columns: dict[str, list[np.ndarray]] = {}
    backdrops = [np.full(plane.shape, 150, np.uint8) for plane in planes["segmentation"].both()]
    if "image" in planes:
        backdrops = columns["raw"] = list(planes["image"].both())
    if "affinities" in planes:
        columns["affinities (z, y, x as red, green, blue)"] = [
            np.moveaxis(plane[:3], 0, -1) for plane in planes["affinities"].both()
        ]
    if "prediction" in planes:
        columns["prediction"] = list(planes["prediction"].both())
    ids = planes["segmentation"].both()
    colour_ids = _matched(ids, planes["truth"].both()) if "truth" in planes and not same_ids else list(ids)
    columns["segmentation"] = [overlay(*parts) for parts in zip(backdrops, ids, colour_ids, strict=True)]
    if "truth" in planes:
        true = planes["truth"].both()
        columns["ground truth"] = [overlay(*parts) for parts in zip(backdrops, true, true, strict=True)]
    return columns


def _matched(segmentation: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The ids that give segments their colours: the true object of which it is the largest part, else an own id."""
    flat = np.concatenate([part.ravel() for part in segmentation])
    table = Contingency.from_labels(np.concatenate([part.ravel() for part in truth]), flat).without_unassigned()
    order = np.argsort(-table.voxels, kind="stable")
    objects, first = np.unique(table.truth[order], return_index=True)
    ids, index = np.unique(flat, return_inverse=True)
    colours = ids.astype(np.uint64) + np.where(ids > 0, OWN_COLOURS, np.uint64(0))
    for true, entry in sorted(zip(objects, order[first], strict=True), key=lambda pair: table.voxels[pair[1]]):
        colours[np.searchsorted(ids, table.predicted[entry])] = true  # a merger takes the colour of its largest part
    ends = np.cumsum([part.size for part in segmentation])[:-1]
    pieces = np.split(colours[index], ends)
    return [piece.reshape(part.shape) for piece, part in zip(pieces, segmentation, strict=True)]


def label_colours(labels: np.ndarray) -> np.ndarray:
    """A colour for every id, the same in every picture; ids close together get colours far apart.

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
    from matplotlib.colors import hsv_to_rgb

    colours = hsv_to_rgb(np.stack([parts[0], 0.45 + 0.45 * parts[1], 0.7 + 0.3 * parts[2]], axis=-1))
    return colours[index.reshape(labels.shape)]


def overlay(raw: np.ndarray, ids: np.ndarray, colour_ids: np.ndarray) -> np.ndarray:
    """The image overlaid with colours, with dark borders between ids: float64 (rows, columns, 3)."""
    picture = np.repeat(raw[..., None] / 255, 3, axis=-1)
    shown = ids != 0
    picture[shown] = 0.35 * picture[shown] + 0.65 * label_colours(colour_ids)[shown]
    border = np.zeros(ids.shape, bool)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    picture[border] *= 0.25
    return picture
