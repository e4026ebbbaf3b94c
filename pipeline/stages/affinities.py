"""The source of nearest-neighbour affinities: this run's network, or another program.

petaseg's own convention: channel k (z, y, x) at voxel v is the affinity between v and v - e_k, uint8, 255 = surely
the same object. Other programs order the channels differently or store the edge at its lower voxel; their offsets
define this, and floating-point values from 0 to 1 are rounded half to even to uint8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.stages import opened
from pipeline.stages.base import Stage
from pipeline.stages.setup import Setup

STANDARD_OFFSETS = Vec(-1, 0, 0), Vec(0, -1, 0), Vec(0, 0, -1)
SURE = 128
"""Half of what is sure in uint8. Affinities of which none reaches it have another scale: percent, or 0 and 1."""


@dataclass(frozen=True)
class AffinitySource:
    """A volume of affinities, read in petaseg's convention."""

    url: str
    fingerprint: str
    """The fingerprint of the stage that wrote the affinities, or of the given volume."""
    offsets: tuple[Vec, ...] = STANDARD_OFFSETS
    """Channel k of the volume at voxel v is the affinity between v and v + offsets[k]."""

    def read(self, box: BoundingBox) -> np.ndarray:
        """Affinities (3, z, y, x) uint8 of a box; 0 where the partner lies outside the volume."""
        return np.stack([self._channel(axis, box) for axis in range(3)]) if self._translated else self._plain(box)

    @property
    def _translated(self) -> bool:
        return self.offsets[:3] != STANDARD_OFFSETS

    def _plain(self, box: BoundingBox) -> np.ndarray:
        return to_uint8(opened.source(self.url).read(box)[:3], self.url)

    def _channel(self, axis: int, box: BoundingBox) -> np.ndarray:
        volume = opened.source(self.url)
        unit = Vec(*(int(a == axis) for a in range(3)))
        lower = -unit
        if lower in self.offsets:
            return to_uint8(volume.read(box)[self.offsets.index(lower)], self.url)
        shifted = box.translate(lower)
        inside = shifted.intersect(volume.spec.bounds)
        result = np.zeros(box.shape, np.uint8)
        values = to_uint8(volume.read(inside)[self.offsets.index(unit)], self.url)
        result[inside.slices(shifted.start)] = values
        return result


def affinity_source(setup: Setup, predicted: Stage | None) -> AffinitySource:
    """The affinities of a run: those that the stage ``predicted`` writes, or, without it, those that were given."""
    if predicted is not None:
        return AffinitySource(setup.layout.volume_url("affinities"), predicted.fingerprint)
    return AffinitySource(setup.inputs.url, setup.inputs.fingerprint, setup.inputs.affinity_offsets)


def to_uint8(values: np.ndarray, url: str) -> np.ndarray:
    """Affinities as uint8; floating-point values are rounded half to even, and must then lie in 0..255.

    So values that are off 0..1 by less than half a step of uint8, as sums of float32 are, count as 0 and 1.
    """
    if values.dtype == np.uint8:
        return values
    steps = np.rint(values.astype(np.float64) * 255)
    if values.size and not (steps.min() >= 0 and steps.max() <= 255):
        raise VolumeError(
            f"affinities in {url} range from {values.min()} to {values.max()}; floating-point affinities must lie in "
            "0..1: name the value that is sure by adding #scale=255 (or another one), or store them as uint8"
        )
    return steps.astype(np.uint8)
