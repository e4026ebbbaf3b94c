"""Given affinities are read in petaseg's convention, whatever program wrote them."""

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.stages.affinities import AffinitySource, to_uint8
from tests.runs import write_volume


def test_affinities_from_0_to_1_are_rounded_half_to_even():
    """Values halfway between two levels go to the even one, as NumPy and IEEE 754 round."""
    halves = np.array([0.5, 1.5, 2.5, 253.5, 254.5]) / 255
    assert to_uint8(halves, "here").tolist() == [0, 2, 2, 254, 254]


def test_affinities_between_two_levels_go_to_the_nearer_one():
    values = np.array([0, 0.4, 0.6, 99.4, 99.6, 254.6, 255], np.float32) / np.float32(255)
    assert to_uint8(values, "here").tolist() == [0, 0, 1, 99, 100, 255, 255]


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_affinities_outside_of_0_to_1_are_refused(value):
    with pytest.raises(VolumeError, match=r"affinities in here range .* must lie in 0\.\.1"):
        to_uint8(np.array([0.5, value], np.float32), "here")


def test_edges_that_are_stored_at_their_lower_voxel_are_read_at_the_upper_one(tmp_path):
    """A volume with channels x, y, z at the lower voxel is read as channels z, y, x at the upper one."""
    ours = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6), np.uint8)
    ours[0, 0], ours[1, :, 0], ours[2, :, :, 0] = 0, 0, 0  # their partners lie outside of the volume
    theirs = np.stack([np.roll(ours[axis], -1, axis) for axis in (2, 1, 0)])
    offsets = Vec(0, 0, 1), Vec(0, 1, 0), Vec(1, 0, 0)
    source = AffinitySource(write_volume(tmp_path / "theirs.zarr", theirs), "", offsets)
    for box in (BoundingBox.from_shape((4, 5, 6)), BoundingBox((1, 2, 3), (3, 5, 6))):
        np.testing.assert_array_equal(source.read(box), ours[:, *box.slices()])
