"""What segments touch near given places: small boxes of labels and supervoxels, read chunk by chunk.

Each place has a box of its own around it, cut at the region of interest, so nothing depends on the chunks; the places
of a chunk are read with one box around all of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.stages.tissue import tissue
from pipeline.stages.write_supervoxels import WriteSupervoxels

REACH_NM = 100.0
"""How far from a place its contacts are looked for, and how far from any border a place is inside."""


@dataclass(frozen=True, eq=False)
class Touching:
    """Contacts of two supervoxels near places, in the order of places, then supervoxels."""

    place: np.ndarray
    """int64 (n,): the number of the place"""
    pairs: np.ndarray
    """uint64 (n, 2): the supervoxel of the segment at the place, and that of another segment"""
    segments: np.ndarray
    """uint64 (n,): the other segment"""
    faces: np.ndarray
    """int64 (n,): faces of voxels between the two, within ``REACH_NM`` of the place"""
    ahead: np.ndarray
    """float64 (n,): how far along the heading of the place they lie on average, in units of ``REACH_NM``, -1..1"""


@dataclass(frozen=True, eq=False)
class Window:
    """Voxels of a run within a box."""

    box: BoundingBox
    labels: np.ndarray
    """uint64 (z, y, x): segments"""
    supervoxels: np.ndarray
    """uint64 (z, y, x)"""
    masked: np.ndarray | None
    """bool (z, y, x); ``None`` without a mask"""

    @classmethod
    def read(cls, run: Run, box: BoundingBox) -> Window:
        """The voxels of a box within the region of interest."""
        layout = run.layout
        labels, supervoxels = (layout.read(name, box) for name in (run.kind.volume, WriteSupervoxels.volumes[0].name))
        mask = tissue(run.setup.inputs.mask_url, layout, box)
        return cls(box, labels, supervoxels, None if mask is None else ~mask)

    def within(self, box: BoundingBox) -> Window:
        """Those of a smaller box."""
        at = box.slices(self.box.start)
        masked = None if self.masked is None else self.masked[at]
        return Window(box, self.labels[at], self.supervoxels[at], masked)


def is_inside(voxels: np.ndarray, run: Run) -> np.ndarray:
    """Which voxels, int64 (n, 3), are farther than ``REACH_NM`` from all faces of the region of interest: bool (n,)."""
    roi, sides = run.layout.roi, np.array(run.layout.resolution_nm)
    low = (voxels - np.array(roi.start)) * sides
    high = (np.array(roi.stop) - 1 - voxels) * sides
    return np.asarray((np.minimum(low, high) > REACH_NM).all(axis=1))


def touching(run: Run, voxels: np.ndarray, segments: np.ndarray, headings: np.ndarray) -> Touching:
    """What segments, uint64 (n,), touch near voxels, int64 (n, 3); of places near masked voxels nothing is told.

    headings: float64 (n, 3), a unit vector for each place.
    """
    found: list[tuple[np.ndarray, ...]] = [_nothing()] * len(voxels)
    for number, window in windows(run, voxels):
        found[number] = _around(window, voxels[number], segments[number], headings[number], run)
    counts = [len(part[0]) for part in found]
    columns = [np.concatenate(column) for column in zip(_nothing(), *found, strict=True)]
    return Touching(np.repeat(np.arange(len(voxels)), counts), *columns)


def windows(run: Run, voxels: np.ndarray) -> Iterator[tuple[int, Window]]:
    """The voxels around each place, as far as ``REACH_NM``, with its number; the places of a chunk come together."""
    roi, reach = run.layout.roi, reach_of(run)
    index = (voxels - np.array(roi.start)) // np.array(run.layout.chunk_shape)
    chunks, of = np.unique(index, axis=0, return_inverse=True)
    for chunk in range(len(chunks)):
        rows = np.flatnonzero(of.reshape(-1) == chunk)
        low, high = voxels[rows].min(axis=0), voxels[rows].max(axis=0)
        window = Window.read(run, _box(low, high, reach).intersect(roi))
        for row in rows.tolist():
            yield row, window.within(_box(voxels[row], voxels[row], reach).intersect(roi))


def reach_of(run: Run) -> Vec:
    """``REACH_NM`` in voxels, rounded up."""
    return Vec(*np.ceil(REACH_NM / np.array(run.layout.resolution_nm)).astype(int).tolist())


def supervoxels_at(run: Run, voxels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The supervoxel of a segment, uint64 (n,), nearest to each voxel, int64 (n, 3); 0 if none is within ``REACH_NM``.

    Of equally near voxels of the segment the first in C order counts.
    """
    found = np.zeros(len(voxels), np.uint64)
    for number, window in windows(run, voxels):
        at = np.argwhere(window.labels == segments[number])
        offsets = (at + np.array(window.box.start) - voxels[number]) * np.array(run.layout.resolution_nm)
        squares = (offsets**2).sum(axis=1)
        if squares.min(initial=np.inf) <= REACH_NM**2:
            found[number] = window.supervoxels[tuple(at[np.argmin(squares)])]
    return found


def _box(low: np.ndarray, high: np.ndarray, reach: Vec) -> BoundingBox:
    """The voxels from ``low`` to ``high`` and as far around them."""
    return BoundingBox(Vec(*low.tolist()) - reach, Vec(*high.tolist()) + reach + 1)


def _around(
    window: Window, voxel: np.ndarray, segment: np.uint64, heading: np.ndarray, run: Run
) -> tuple[np.ndarray, ...]:
    """Pairs, other segments, faces and how far ahead they are, near one place."""
    if window.masked is not None and window.masked.any():
        return _nothing()
    sides = np.array(run.layout.resolution_nm)
    pairs, others, own = _faces(window, segment)
    offsets = (own - voxel) * sides
    near = (offsets**2).sum(axis=1) <= REACH_NM**2
    found, first, group = np.unique(pairs[near], axis=0, return_index=True, return_inverse=True)
    faces = np.bincount(group.reshape(-1), minlength=len(found))
    ahead = np.bincount(group.reshape(-1), (offsets[near] * heading).sum(axis=1) / REACH_NM, len(found))
    return found, others[near][first], faces, ahead / np.maximum(faces, 1)


def _nothing() -> tuple[np.ndarray, ...]:
    return np.zeros((0, 2), np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0)


def _faces(window: Window, segment: np.uint64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All faces between a segment and others: supervoxels, uint64 (n, 2), the other segment, and the own voxel."""
    found = [_across(window, segment, axis, forward) for axis in range(3) for forward in (True, False)]
    pairs, others, own = (np.concatenate(column) for column in zip(*found, strict=True))
    return pairs, others, own + np.array(window.box.start)


def _across(window: Window, segment: np.uint64, axis: int, forward: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The faces of a segment with its neighbours behind it along an axis, or with those before it."""
    parts = [slice(None, -1), slice(1, None)]
    one, other = ((*(slice(None),) * axis, part) for part in (parts if forward else parts[::-1]))
    at = np.nonzero((window.labels[one] == segment) & (window.labels[other] != segment) & (window.labels[other] > 0))
    pairs = np.stack([window.supervoxels[each][at] for each in (one, other)], axis=1)
    own = np.stack(at, axis=1)
    own[:, axis] += 0 if forward else 1
    return pairs, window.labels[other][at], own
