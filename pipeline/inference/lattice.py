"""The positions of patches: one lattice for the whole dataset, whatever the chunks are.

    dataset   |----------------------------------------|
    patch 0   [............]                               S = P - overlap
    patch 1           [............]                       patch i begins at start + i * S
    patch 2                   [............]
    patch 3 (the last)                    [............]   clamped to stop - P

A dataset that is smaller than P along an axis has one patch there; its image is reflected up to P.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import product as cartesian
from math import prod

import numpy as np

from pipeline.errors import BoundsError, ConfigError
from pipeline.geometry import BoundingBox, Triple, Vec, as_vec

Ranges = tuple[range, range, range]
"""Patches that lie in a box of the lattice: for each axis their indices."""


@dataclass(frozen=True)
class PatchLattice:
    """All patches of a dataset, in lattice order: C order of their indices, x fastest."""

    bounds: BoundingBox
    """The dataset's full extent, not the region of interest and not a chunk."""
    patch_shape: Vec
    """Voxels of a patch, z, y, x."""
    overlap: Vec
    """Voxels that neighbouring patches share, z, y, x; more at the clamped last patch."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_shape", as_vec(self.patch_shape, "patch_shape"))
        object.__setattr__(self, "overlap", as_vec(self.overlap, "overlap"))
        if self.bounds.empty:
            raise ConfigError(f"dataset bounds are {self.bounds}; they must hold a voxel: correct the volume")
        if min(self.patch_shape) < 1:
            raise ConfigError(f"patch_shape is {list(self.patch_shape)}; every side must be at least 1 voxel")
        if not self.overlap.indexes(self.patch_shape):
            raise ConfigError(
                f"overlap is {list(self.overlap)}; on each axis it must be at least 0 and less than the patch "
                f"{list(self.patch_shape)}: a quarter of the patch is a good choice"
            )

    @property
    def stride(self) -> Vec:
        """Voxels from one patch to the next."""
        return self.patch_shape - self.overlap

    @property
    def counts(self) -> Vec:
        """Patches along z, y, x."""
        return (self.bounds.shape - self.patch_shape).ceil_div(self.stride).maximum(0) + 1

    def __len__(self) -> int:
        return prod(self.counts)

    def box(self, index: Triple) -> BoundingBox:
        """The voxels of one patch; it leaves the bounds only where the dataset is smaller than a patch."""
        place = as_vec(index, "patch index")
        if not place.indexes(self.counts):
            raise BoundsError(f"patch {index} is not in the lattice of {self.counts} patches")
        last = (self.bounds.stop - self.patch_shape).maximum(self.bounds.start)
        return BoundingBox.from_shape(self.patch_shape, (self.bounds.start + place * self.stride).minimum(last))

    def position(self, axis: int, i: int) -> int:
        """The first voxel of the i-th patch along an axis."""
        start, stop = self.bounds.start[axis], self.bounds.stop[axis]
        return min(start + i * self.stride[axis], max(start, stop - self.patch_shape[axis]))

    def touching(self, core: BoundingBox) -> list[Triple]:
        """The indices of all patches that share a voxel with ``core``, in lattice order."""
        z, y, x = self.ranges(core)
        return list(cartesian(z, y, x))

    def ranges(self, core: BoundingBox) -> Ranges:
        """For each axis the indices of the patches that share a voxel with ``core``.

        Raises ``BoundsError`` if the core is empty or leaves the bounds.
        """
        if core.empty or not self.bounds.contains(core):
            raise BoundsError(f"core {core} must be a non-empty part of the dataset {self.bounds}")
        z, y, x = map(self.on_axis, range(3), core.start, core.stop)
        return z, y, x

    def support(self, core: BoundingBox) -> BoundingBox:
        """The voxels to read for ``core``: the box around all its patches, inside the bounds."""
        return self.around(self.ranges(core))

    def around(self, ranges: Ranges) -> BoundingBox:
        """The box around patches, of which there is one at least, inside the bounds."""
        first, last = (Vec(*(r[end] for r in ranges)) for end in (0, -1))
        return BoundingBox(self.box(first).start, self.box(last).stop).intersect(self.bounds)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """The image of a support, (..., z, y, x), reflected at its end up to the patch where the dataset is smaller."""
        missing = (self.patch_shape - as_vec(image.shape[-3:])).maximum(0)
        widths = [(0, 0)] * (image.ndim - 3) + [(0, m) for m in missing]
        return np.pad(image, widths, mode="reflect") if any(missing) else image

    def on_axis(self, axis: int, start: int, stop: int) -> range:
        """Along an axis the indices of the patches that share a voxel with an interval."""
        return self.beginning(axis, start - self.patch_shape[axis] + 1, stop)

    def beginning(self, axis: int, start: int, stop: int) -> range:
        """Along an axis the indices of the patches whose first voxel lies in an interval."""
        every = range(self.counts[axis])

        def position(i: int) -> int:
            return self.position(axis, i)

        return range(bisect_left(every, start, key=position), bisect_left(every, stop, key=position))
