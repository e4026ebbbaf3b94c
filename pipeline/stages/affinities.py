"""The source of nearest-neighbour affinities: this run's network, or another program; or membranes of either.

petaseg's own convention: channel k (z, y, x) at voxel v is the affinity between v and v - e_k, uint8, 255 = surely
the same object. Other programs order the channels differently or store the edge at its lower voxel; their offsets
define this, and floating-point values from 0 to 1 are rounded half to even to uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.geometry import ZERO, BoundingBox, Vec, as_vec
from pipeline.models.heads import AFFINITIES, MEMBRANES
from pipeline.segmentation.far_contacts import NEAREST, reach_of
from pipeline.stages import opened
from pipeline.stages.base import Stage
from pipeline.stages.heads import HeadSource, to_uint8
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class AffinitySource:
    """A volume of affinities, read in petaseg's convention."""

    url: str
    fingerprint: str
    """The fingerprint of the stage that wrote the affinities, or of the given volume."""
    offsets: tuple[Vec, ...] = NEAREST
    """Channel k of the volume at voxel v is the affinity between v and v + offsets[k]."""
    far: tuple[Vec, ...] = ()
    """Offsets of distant voxels, of those in ``offsets``, that count in agglomeration."""

    @property
    def reach(self) -> Vec:
        """How far offsets lead along each axis that counts in agglomeration."""
        return reach_of((*NEAREST, *self.far))

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides about its values: the volume, and how it is read."""
        return self.fingerprint, self.offsets

    def read(self, box: BoundingBox) -> np.ndarray:
        """Affinities (3, z, y, x) uint8 of a box; 0 where the partner lies outside the volume."""
        return self._channels(NEAREST, box)

    def read_all(self, box: BoundingBox) -> np.ndarray:
        """The same, and the affinities of the far offsets behind them."""
        return self._channels((*NEAREST, *self.far), box)

    def _channels(self, wanted: Sequence[Vec], box: BoundingBox) -> np.ndarray:
        """The channels of these offsets, which lead back; read at once if they stand first in the volume."""
        if self.offsets[: len(wanted)] == tuple(wanted):
            return to_uint8(opened.source(self.url).read(box)[: len(wanted)], self.url)
        return np.stack([self._channel(offset, box) for offset in wanted])

    def _channel(self, back: Vec, box: BoundingBox) -> np.ndarray:
        """The channel of an offset; where the volume holds the edge at its other voxel, that channel moved there."""
        volume = opened.source(self.url)
        if back in self.offsets:
            return to_uint8(volume.read(box)[self.offsets.index(back)], self.url)
        shifted = box.translate(back)
        inside = shifted.intersect(volume.spec.bounds)
        result = np.zeros(box.shape, np.uint8)
        if not inside.empty:
            result[inside.slices(shifted.start)] = to_uint8(volume.read(inside)[self.offsets.index(-back)], self.url)
        return result


@dataclass(frozen=True)
class MembraneSource:
    """The affinities that follow from membranes: two voxels are as surely one object as neither is membrane."""

    membranes: HeadSource

    @property
    def reach(self) -> Vec:
        """How far the affinities lead along each axis."""
        return reach_of(NEAREST)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides about its values."""
        return ("of membranes", self.membranes.fingerprint)

    @property
    def far(self) -> tuple[Vec, ...]:
        """None: membranes say nothing of distant voxels."""
        return ()

    def read_all(self, box: BoundingBox) -> np.ndarray:
        """See ``read``."""
        return self.read(box)

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
    head, far = setup.head(AFFINITIES, predicted), setup.config.agglomeration.far_offsets
    return AffinitySource(head.url, head.fingerprint, setup.inputs.affinity_offsets, far)
