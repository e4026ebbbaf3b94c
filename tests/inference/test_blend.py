"""Sums of whole numbers become bytes by rounding half to even."""

import numpy as np
import pytest

from pipeline.geometry import BoundingBox
from pipeline.inference.fixed_point import FixedPoint
from pipeline.inference.lattice import PatchLattice

BOUNDS = BoundingBox.from_shape((200, 200, 200))


@pytest.mark.parametrize("bits", [7, 15])
def test_sums_are_rounded_half_to_even_and_cut_to_a_byte(bits):
    values = np.array([-3.0, 0.5, 1.5, 2.5, 99.25, 99.75, 254.5, 255.5]) * 2**bits
    sums = values.astype(np.int32)[None, None, None]
    scale = FixedPoint(bits)
    assert scale.to_uint8(sums, (0.0,)).ravel().tolist() == [0, 0, 2, 2, 99, 100, 254, 255]
    assert (sums.ravel() == values).all()
    assert scale.to_uint8(np.zeros_like(sums), (1.0,)).min() == 255
    assert scale.to_uint8(np.full_like(sums, -scale.one), (1.0,)).max() == 0


@pytest.mark.parametrize(("overlap", "itemsize"), [(0, 2), (16, 2), (48, 2), (49, 4), (63, 4)])
def test_sums_of_two_bytes_suffice_unless_very_many_patches_share_a_voxel(overlap, itemsize):
    """Each patch is off by half a unit at most, and all of them together by less than half a grey value."""
    lattice = PatchLattice(BOUNDS, (64, 64, 64), (overlap,) * 3)
    scale = FixedPoint.of(lattice)
    most = max(len(lattice.on_axis(0, place, place + 1)) for place in range(200)) ** 3
    assert scale.dtype.itemsize == itemsize
    assert scale.one + most / 2 < min(np.iinfo(scale.dtype).max, 2**24)
    assert itemsize == 4 or most / 2 < 2**scale.bits / 2
