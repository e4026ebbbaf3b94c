"""Blended values become bytes by rounding half to even."""

import torch

from pipeline.inference.blend import to_uint8


def test_values_are_rounded_half_to_even_and_cut_to_a_byte():
    values = torch.tensor([-3.0, 0.5, 1.5, 2.5, 99.4, 99.6, 254.5, 300.0])
    assert to_uint8(values).tolist() == [0, 0, 2, 2, 99, 100, 254, 255]
