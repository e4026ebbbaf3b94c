"""The pictures of a report that only it has: three directions at three places, the largest in 3D, times, sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.drawing import INK, SPLIT, TOTAL, new_figure, save_figure, tidy
from pipeline.evaluation.plots import label_colours, overlay
from pipeline.geometry import BoundingBox, Vec
from pipeline.ledger.ledger import Ledger
from pipeline.runs.outline import StageOutline
from pipeline.runs.run import Run
from pipeline.segmentation.sizes import Sizes
from pipeline.shapes.meshing import Mesh
from pipeline.shapes.stored_meshes import StoredMeshes
from pipeline.stages import opened
from pipeline.stages.write_meshes import WriteMeshes
from pipeline.viewing.rendering import render

SIDE = 256
"""Voxels along each side of a place."""
RENDERED = 9
"""So many of the largest neurons are drawn in 3D."""
RENDERED_PIXELS = 720
RENDERED_BYTES = 400_000
"""Bytes of the level of detail that is drawn of each: some hundred thousand triangles."""
SHARES = (0.25, 0.5, 0.75)
"""Where the three places lie on the diagonal of the region of interest."""
DIRECTIONS = ("xy", "xz", "yz")


def draw_places(run: Run, path: Path) -> None:
    """Three rows, one a place; three directions with the image, or a head, beside the result; three planes are read."""
    figure = new_figure((15, 8.4))
    grid = figure.subplots(len(SHARES), 2 * len(DIRECTIONS), squeeze=False)
    for row, share in enumerate(SHARES):
        point, box = place_of(run.layout.roi, share)
        for column, (grey, labels, aspect) in enumerate(_planes(run, box, point)):
            for axes, picture in zip(
                grid[row, 2 * column : 2 * column + 2], (grey, _coloured(grey, labels)), strict=True
            ):
                axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
            if row == 0:
                grid[0, 2 * column].set_title(DIRECTIONS[column], fontsize=10)
        grid[row, 0].set_ylabel("z, y, x = " + ", ".join(map(str, point)), fontsize=8)
    save_figure(figure, path, dpi=80)


def place_of(roi: BoundingBox, share: float) -> tuple[Vec, BoundingBox]:
    """A point on the diagonal of a region, and the box around it that is drawn."""
    point = Vec(*(start + int(share * side) for start, side in zip(roi.start, roi.shape, strict=True)))
    half = SIDE // 2
    return point, BoundingBox(point, point + 1).grow((half, half, half)).intersect(roi)


def _planes(run: Run, box: BoundingBox, point: Vec) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Of each direction a grey plane, the result there, and the height of a voxel over its width."""
    background = run.inputs.image_url or next((head.url for head in run.inputs.given), None)
    nm = run.layout.resolution_nm
    for axis in range(3):
        start, stop = list(box.start), list(box.stop)
        start[axis], stop[axis] = point[axis], point[axis] + 1
        plane = BoundingBox(Vec(*start), Vec(*stop))
        grey = np.full(plane.shape, 160, np.uint8) if background is None else opened.source(background).read(plane)
        grey = grey.mean(0) if grey.ndim == 4 else grey
        rows, columns = (nm[other] for other in range(3) if other != axis)
        yield np.squeeze(grey, axis), np.squeeze(opened.source(run.result_url).read(plane), axis), rows / columns


def _coloured(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The result over the grey values, (rows, columns, 3) from 0 to 1."""
    scaled = grey.astype(np.float64) * (255 / max(255.0, float(grey.max(initial=0))))
    return overlay(scaled, labels, labels)


def draw_largest(run: Run, largest: Sequence[tuple[int, int]], path: Path) -> bool:
    """The largest neurons in 3D, all together and each alone; False if none of them has a mesh.

    largest: labels and voxels.
    """
    stage = run.stage(WriteMeshes.name)
    assert isinstance(stage, WriteMeshes)
    store = opened.store(run.layout.home(stage.name))
    stored = StoredMeshes(lambda name: store.get(f"{WriteMeshes.folder}/{name}"), stage.fragments.sharding)
    found = {label: stored.read(label, RENDERED_BYTES) for label, _ in largest[:RENDERED]}
    meshes = {label: mesh for label, mesh in found.items() if mesh is not None}
    if meshes:
        _draw_meshes(meshes, dict(largest), run.layout.resolution_nm, path)
    return bool(meshes)


def _draw_meshes(
    meshes: Mapping[int, Mesh], voxels: Mapping[int, int], resolution_nm: tuple[float, float, float], path: Path
) -> None:
    columns = 3
    rows = max(2, -(-len(meshes) // columns))
    figure = new_figure((15, 15 * rows / (rows + columns)))
    grid = figure.add_gridspec(rows, rows + columns)
    colours = {label: _colour(label) for label in meshes}
    together = figure.add_subplot(grid[:, :rows])
    together.imshow(render(meshes, colours, resolution_nm, RENDERED_PIXELS))
    for number, (label, mesh) in enumerate(meshes.items()):
        axes = figure.add_subplot(grid[number // columns, rows + number % columns])
        axes.imshow(render({label: mesh}, colours, resolution_nm, RENDERED_PIXELS // rows))
        axes.set_title(f"{label}: {voxels[label]:,} voxels", fontsize=7)
    for axes in figure.axes:
        axes.set_axis_off()
    save_figure(figure, path, dpi=80)


def _colour(label: int) -> tuple[float, float, float]:
    red, green, blue = label_colours(np.array([label], np.uint64))[0].tolist()
    return red, green, blue


def draw_times(stages: Sequence[tuple[StageOutline, Ledger]], path: Path) -> None:
    """For each stage its chunks as a map seen along z, coloured by their mean seconds."""
    columns = min(4, len(stages))
    rows = -(-len(stages) // columns)
    figure = new_figure((3.4 * columns, 2.9 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(stages) :]:
        axes.set_axis_off()
    for axes, (stage, ledger) in zip(grid, stages, strict=False):
        seconds = _seconds(stage, ledger)
        drawn = axes.imshow(seconds, cmap="viridis", vmin=0, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(stage.name, fontsize=9)
        figure.colorbar(drawn, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    save_figure(figure, path, dpi=80)


def _seconds(stage: StageOutline, ledger: Ledger) -> np.ndarray:
    """Mean seconds of the chunks of the first grid along z, (y, x); NaN where none is done."""
    grid = stage.grids[0]
    done = ledger.done_mask(grid)
    seconds = np.zeros(len(done))
    seconds[done] = ledger.chunk_seconds(grid)
    count = done.reshape(grid.counts).sum(0)
    return np.where(count, seconds.reshape(grid.counts).sum(0) / np.maximum(count, 1), np.nan)


def draw_sizes(sizes: Sizes, path: Path, words: str) -> None:
    """How many segments, and how many voxels, are in segments of each size."""
    used = np.flatnonzero(sizes.counts)
    size = sizes.voxels[used] / sizes.counts[used]
    figure = new_figure((8, 3))
    left, right = figure.subplots(1, 2)
    edges = np.logspace(0, np.log10(max(10.0, size.max(initial=1) * 1.1)), 40)
    left.hist(size, edges, weights=sizes.counts[used], color=SPLIT)
    right.hist(size, edges, weights=sizes.voxels[used] / max(1, sizes.total), color=TOTAL)
    for axes, label in ((left, words), (right, "share of the labelled voxels")):
        axes.set(xscale="log", xlabel="voxels of one", ylabel=label)
        axes.yaxis.label.set_color(INK)
        tidy(axes)
    save_figure(figure, path, dpi=80)


def swatch(label: int) -> str:
    """The colour of a label in all pictures, for a page."""
    red, green, blue = (round(255 * part) for part in _colour(label))
    return f"rgb({red} {green} {blue})"
