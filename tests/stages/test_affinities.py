"""Given affinities are read in petaseg's convention, whatever program wrote them."""

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.stages.affinities import to_uint8


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
