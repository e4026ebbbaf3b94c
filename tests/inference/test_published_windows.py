"""Blend windows equal those of PyTorch Connectomics at 121bb8c (December 2021)."""

import numpy as np
import pytest

from pipeline.inference.published_windows import gaussian_window, superhuman_window


@pytest.mark.parametrize(
    ("make", "name"), [(gaussian_window, "blend_gauss_6_16_16"), (superhuman_window, "blend_bump_6_16_16")]
)
def test_a_window_is_the_reference_but_for_the_last_bit_of_the_exponential(shared_fixtures, make, name):
    """A window equals the reference within two ulps, because exp differs slightly from machine to machine."""
    expected = np.load(shared_fixtures / "pytc2021_targets.npz")[name]
    found = make((6, 16, 16))
    assert found.dtype == expected.dtype
    np.testing.assert_array_max_ulp(found, expected, maxulp=2)


@pytest.mark.parametrize("make", [gaussian_window, superhuman_window])
def test_a_window_is_positive_and_symmetric(make):
    """A window is at least 1e-4 everywhere, symmetric, and largest in its middle."""
    window = make((5, 8, 9))
    assert window.min() >= np.float32(1e-4)
    np.testing.assert_allclose(window, window[::-1, ::-1, ::-1], rtol=1e-5)
    assert window.argmax() in (2 * 72 + 3 * 9 + 4, 2 * 72 + 4 * 9 + 4)
