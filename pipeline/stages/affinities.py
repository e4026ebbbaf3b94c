"""The source of nearest-neighbour affinities: this run's network, or another program; or membranes of either.

petaseg's own convention: channel k (z, y, x) at voxel v is the affinity between v and v - e_k, uint8, 255 = surely
the same object. Other programs order the channels differently or store the edge at its lower voxel; their offsets
define this, and floating-point values from 0 to 1 are rounded half to even to uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.geometry import ZERO, BoundingBox, Vec, as_vec
from pipeline.models.heads import AFFINITIES, MEMBRANES
from pipeline.stages import opened
from pipeline.stages.base import Stage
from pipeline.stages.heads import HeadSource, to_uint8
from pipeline.stages.setup import Setup

STANDARD_OFFSETS = Vec(-1, 0, 0), Vec(0, -1, 0), Vec(0, 0, -1)


@dataclass(frozen=True)
class AffinitySource:
    """A volume of affinities, read in petaseg's convention."""

    url: str
    fingerprint: str
    """The fingerprint of the stage that wrote the affinities, or of the given volume."""
    offsets: tuple[Vec, ...] = STANDARD_OFFSETS
    """Channel k of the volume at voxel v is the affinity between v and v + offsets[k]."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides about its values: the volume, and how it is read."""
        return self.fingerprint, self.offsets

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


@dataclass(frozen=True)
class MembraneSource:
    """The affinities that follow from membranes: two voxels are as surely one object as neither is membrane."""

    membranes: HeadSource

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides about its values."""
        return ("of membranes", self.membranes.fingerprint)

    def read(self, box: BoundingBox) -> np.ndarray:
        """Affinities (3, z, y, x) uint8 of a box: 255 - max(m(v), m(v - e_k)); 0 where v - e_k lies outside."""
        seen = box.grow((1, 1, 1), ZERO).intersect(self.membranes.bounds)
        return affinities_of_membranes(self.membranes.read(seen), box.start - seen.start)


def affinities_of_membranes(membranes: np.ndarray, before: Vec) -> np.ndarray:
    """Affinities uint8 (3, z, y, x) of membranes uint8, which begin ``before`` voxels (0 or 1 along each axis) earlier.

    Along an axis without a voxel before, the first plane has no partner, and its affinities are 0.
    """
    shape = as_vec(membranes.shape) - before
    result = np.zeros((3, *shape), np.uint8)
    for axis in range(3):
        along = membranes[tuple(slice(0 if a == axis else b, None) for a, b in enumerate(before))]
        pair = np.maximum(along[_planes(axis, 1, None)], along[_planes(axis, 0, -1)])
        result[axis][_planes(axis, 1 - before[axis], None)] = 255 - pair
    return result


def _planes(axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    """The index of some planes along an axis of a volume (z, y, x)."""
    return tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))


AnyAffinities = AffinitySource | MembraneSource


def affinity_source(setup: Setup, predicted: Stage | None) -> AnyAffinities:
    """The affinities of a run, or those of its membranes: what the stage ``predicted`` writes, or what was given."""
    if setup.source == MEMBRANES:
        return MembraneSource(setup.head(MEMBRANES, predicted))
    head = setup.head(AFFINITIES, predicted)
    return AffinitySource(head.url, head.fingerprint, setup.inputs.affinity_offsets)
