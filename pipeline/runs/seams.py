"""The seam report of a run: its faces between chunks, or an even sample of them, against planes inside of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.seams import NUMBERS, PLANES, SeamTest, seam_test
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.blend_heads import BlendHeads

MOST = 200
"""Faces of each axis that are looked at; in a larger run every n-th."""


@dataclass(frozen=True)
class Face:
    """Where two chunks meet."""

    axis: int
    planes: BoundingBox
    """The four planes around it, over the voxels that both chunks have."""
    inside: BoundingBox
    """Four planes in the middle of the second chunk."""

    @property
    def name(self) -> str:
        """The first voxel (z, y, x) behind it and its axis."""
        place = list(self.planes.start)
        place[self.axis] += PLANES // 2
        return f"{'zyx'[self.axis]} = {place[self.axis]} at {','.join(map(str, place))}"


def faces_of(grid: ChunkGrid, most: int = MOST) -> list[Face]:
    """Faces between chunks that are thick enough, at most ``most`` of each axis, evenly spread over the grid."""
    found = []
    for axis in range(3):
        every = list(_along(grid, axis, most))
        found += every
    return found


def _along(grid: ChunkGrid, axis: int, most: int) -> Iterator[Face]:
    counts = [count - (number == axis) for number, count in enumerate(grid.counts)]
    total = int(np.prod(counts))
    for place in np.unique(np.linspace(0, total - 1, min(most, total)).astype(int)) if total > 0 else ():
        index = Vec(*map(int, np.unravel_index(place, counts))) + grid.first
        step = Vec(*(int(number == axis) for number in range(3)))
        face = _face(axis, grid.chunk(index).core, grid.chunk(index + step).core)
        if face is not None:
            yield face


def _face(axis: int, first: BoundingBox, second: BoundingBox) -> Face | None:
    at, thick = second.start[axis], second.shape[axis]
    if first.shape[axis] < PLANES // 2 or thick < PLANES + 2:
        return None
    middle = at + thick // 2
    return Face(axis, _planes(second, axis, at), _planes(second, axis, middle))


def _planes(box: BoundingBox, axis: int, at: int) -> BoundingBox:
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = at - PLANES // 2, at + PLANES // 2
    return BoundingBox(Vec(*start), Vec(*stop))


def seam_report(run: Run, most: int = MOST) -> list[SeamTest]:
    """The tests of a finished run: agreement of the result, jump and sharpness of each predicted head.

    It reads eight planes a face.
    """
    faces = faces_of(run.layout.grid(), most)
    tests = [] if run.kind.name == "mask" else [_test("agreement", run.result_url, faces)]
    if run.has_stage(BlendHeads.name):
        heads = [run.layout.volume_url(name) for name in run.stage(BlendHeads.name).volume_names()]
        tests += [_test(number, head, faces) for head in heads for number in ("jump", "sharpness")]
    return tests


def _test(number: str, url: str, faces: list[Face]) -> SeamTest:
    volume, value = opened.source(url), NUMBERS[number]

    def of(box: BoundingBox, axis: int) -> float:
        voxels: Any = volume.read(box)
        voxels = voxels.mean(0) if voxels.ndim == 4 else voxels  # of a head with several channels, their mean
        return value(np.moveaxis(voxels, axis, 0))

    name = url.rsplit("/", 1)[-1].removesuffix(".zarr")
    at_faces = {face.name: of(face.planes, face.axis) for face in faces}
    return seam_test(number, name, at_faces, [of(face.inside, face.axis) for face in faces])
