"""Blocks that are read and written in slabs, so that progress is seen within a block. The stored bytes are the same.

read     sections of a format that keeps each apart, a few at a time; of others, the whole block
written  rows of write units along y
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.base import Volume

SECTIONS = 4
"""Sections that are read at a time: opening a file of many pages costs more than one."""
Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


class Tally:
    """Counts voxels that were read or written, and tells how many of all.

    total: voxels in all, of which ``done`` were counted by an earlier call.
    """

    def __init__(self, tell: Progress, total: int, done: int) -> None:
        self._tell, self._total, self._done = tell, total, done
        tell(done, total)

    def add(self, voxels: int) -> None:
        """Count voxels."""
        self._done += voxels
        self._tell(self._done, self._total)


class SlabReader(Volume):
    """A volume whose boxes are read in slabs of ``sections``, each of which is counted."""

    def __init__(self, volume: Volume, sections: int, tally: Tally) -> None:
        self.url, self.spec = volume.url, volume.spec
        self._volume, self._sections, self._tally = volume, sections, tally

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box."""
        parts = []
        for slab in slabs(box, 0, self._sections):
            parts.append(self._volume.read(slab))
            self._tally.add(slab.voxels)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-3)

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Refused: it is a source."""
        raise VolumeError(f"{self.url} is read in slabs; write to the volume itself")


def write_in_slabs(volume: Volume, box: BoundingBox, data: np.ndarray, tally: Tally) -> None:
    """Write a box of whole write units, row by row of them, each of which is counted."""
    for slab in slabs(box, 1, volume.spec.write_unit[1]):
        volume.write(slab, data[(..., *slab.slices(box.start))])
        tally.add(slab.voxels)


def slabs(box: BoundingBox, axis: int, thickness: int) -> Iterator[BoundingBox]:
    """The box in parts of this many voxels along an axis, in order."""
    for first in range(box.start[axis], box.stop[axis], thickness):
        last = min(first + thickness, box.stop[axis])
        start, stop = list(box.start), list(box.stop)
        start[axis], stop[axis] = first, last
        yield BoundingBox(Vec(*start), Vec(*stop))
