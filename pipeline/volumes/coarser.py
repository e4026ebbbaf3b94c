"""Volumes of other voxel sizes: equal sizes are told from unequal ones, and a coarser mip is read voxel by voxel.

Voxel v of the fine volume lies in voxel ``v // factor`` of the coarse one, axis by axis, in global coordinates: the
lookup is exact and the same for every chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.base import Volume, VolumeSpec
from pipeline.volumes.placement import Resolution

EQUAL = 1e-5
"""Relative difference up to which two sizes of voxels are the same: the rounding of float32 metadata."""


@dataclass(frozen=True)
class CoarserVolume:
    """A volume of one value a voxel, read at the voxels of a finer one."""

    volume: Volume
    factor: Vec
    """Fine voxels along each side of a coarse one."""

    @property
    def url(self) -> str:
        """Where the coarse volume is."""
        return self.volume.url

    @property
    def bounds(self) -> BoundingBox:
        """The fine voxels that the volume covers."""
        bounds = self.volume.spec.bounds
        return BoundingBox(bounds.start * self.factor, bounds.stop * self.factor)

    def coarse(self, box: BoundingBox) -> BoundingBox:
        """The coarse voxels that hold the fine voxels of a box."""
        return BoundingBox(box.start // self.factor, box.stop.ceil_div(self.factor))

    def read(self, box: BoundingBox) -> np.ndarray:
        """The value at each fine voxel of a box, (z, y, x)."""
        coarse = self.coarse(box)
        data = self.volume.read(coarse)
        for axis, times in enumerate(self.factor):
            data = np.repeat(data, times, axis)
        return data[box.slices(coarse.start * self.factor)]


def same_size(first: Resolution, second: Resolution) -> bool:
    """True if two sizes of voxels (nm) are equal but for rounding."""
    return all(math.isclose(a, b, rel_tol=EQUAL) for a, b in zip(first, second, strict=True))


def at_voxels(what: str, volume: Volume, resolution_nm: Resolution) -> CoarserVolume:
    """The volume at voxels of ``resolution_nm``; ``VolumeError`` unless its own are a whole number of them long."""
    ratios = [a / b for a, b in zip(volume.spec.resolution_nm, resolution_nm, strict=True)]
    factor = Vec(*(max(1, round(ratio)) for ratio in ratios))
    if not same_size(
        volume.spec.resolution_nm,
        (resolution_nm[0] * factor[0], resolution_nm[1] * factor[1], resolution_nm[2] * factor[2]),
    ):
        raise VolumeError(
            f"the {what} {volume.url} has voxels of {list(volume.spec.resolution_nm)} nm, the input of "
            f"{list(resolution_nm)} nm; each side must be a whole number of the input's: choose another mip (#mip=1), "
            "or correct the size by adding #resolution=z,y,x"
        )
    return CoarserVolume(volume, factor)


def mask_on(volume: Volume, spec: VolumeSpec) -> CoarserVolume:
    """A mask on the voxels of an image, or on voxels that hold a whole number of those; ``VolumeError`` if it is not.

    spec: the image's.
    """
    if volume.spec.channels is not None:
        raise VolumeError(
            f"the mask {volume.url} has {volume.spec.channels} channels; it must have one value a voxel: take one of "
            "them by adding #channel=0"
        )
    mask = at_voxels("mask", volume, spec.resolution_nm)
    if mask.factor == Vec(1, 1, 1) and mask.bounds != spec.bounds:
        raise VolumeError(
            f"the mask {volume.url} covers {mask.bounds}; it must cover the same voxels as the input, {spec.bounds}: "
            "crop or pad it, or correct its place by adding #offset=z,y,x"
        )
    if mask.factor != Vec(1, 1, 1) and volume.spec.bounds == spec.bounds:
        raise VolumeError(
            f"the mask {volume.url} has as many voxels as the input, {spec.bounds}, but says that they are of "
            f"{list(volume.spec.resolution_nm)} nm, and those of the input of {list(spec.resolution_nm)} nm; one of "
            "the two is wrong: correct it by adding #resolution=z,y,x"
        )
    if not mask.bounds.contains(spec.bounds):
        raise VolumeError(
            f"the mask {volume.url} covers {mask.bounds} of the input, which is {spec.bounds}; it must cover all of "
            "it: pad it, or correct its place by adding #offset=z,y,x"
        )
    return mask
