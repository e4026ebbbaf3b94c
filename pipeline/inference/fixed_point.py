"""The whole numbers in which patches are added up, so that any order and any grouping gives the same sum.

A patch contributes round(value * weight * 255 * 2^bits) to a voxel. The weights of a voxel add up to 1, so its sum is
its value on the scale 255 * 2^bits, and one rounding makes the byte. Bits are as many as 16-bit sums can hold where few
patches share a voxel; where many do (their overlap is more than three quarters), each is rounded more finely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import product
from pipeline.inference.lattice import PatchLattice

FEW = 125
"""So many patches on a voxel are wrong by at most half a unit each, together by less than half a grey value."""


@dataclass(frozen=True)
class FixedPoint:
    """A scale of sums: a value of 1 is ``one``."""

    bits: int

    @classmethod
    def of(cls, lattice: PatchLattice) -> FixedPoint:
        """The scale for the patches of a lattice."""
        deepest = (lattice.patch_shape.ceil_div(lattice.stride) + 1).minimum(lattice.counts)
        return cls(7 if product(deepest) <= FEW else 15)

    @property
    def one(self) -> int:
        """The sum of a voxel whose value is 1 in all patches; below 2^23, so float32 adds such numbers exactly."""
        return 255 << self.bits

    @property
    def dtype(self) -> np.dtype:
        """The type in which sums are stored."""
        return np.dtype("<i2" if self.bits == 7 else "<i4")

    def to_uint8(self, sums: np.ndarray, outside: Sequence[float]) -> np.ndarray:
        """The bytes of complete sums, both (channels, z, y, x), rounded half to even.

        outside: the value of each channel where no patch has an image, from which sums count.
        """
        values = sums.astype(np.float32)  # exact, as is the quotient
        values *= np.float32(1 / (1 << self.bits))
        values += 255 * np.array(outside, np.float32)[:, None, None, None]
        return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)
