"""The blend window is positive, smooth and symmetric, and its sums are right at any place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.window import bump_window, profile, weight_sums
from tests.inference.boxes import boxes_in, lattices, patient


@pytest.mark.parametrize("width", [1, 2, 3, 16, 64, 257, 1024])
def test_weights_are_positive_symmetric_and_fall_towards_the_border(width):
    weights = profile(width)
    assert weights.dtype == np.float32
    assert weights.min() >= 2**-16
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (np.diff(weights[: (width + 1) // 2]) >= 0).all()


def test_the_profile_is_smooth_and_flat_at_the_border():
    weights = profile(64).astype(np.float64)
    assert np.abs(np.diff(weights)).max() < 0.07
    assert weights[0] < 1e-4


def test_the_window_is_a_product_of_profiles_and_strictly_positive():
    window = bump_window((5, 64, 128))
    assert window.dtype == np.float32
    assert window.min() > 0
    np.testing.assert_allclose(window[2, 32], profile(128) * profile(64)[32], rtol=1e-6)


@patient
@given(st.data())
def test_the_sums_of_weights_are_those_of_the_windows(data):
    lattice = data.draw(lattices(largest=20))
    core = data.draw(boxes_in(lattice.bounds))
    direct = np.zeros(core.shape)
    for index in lattice.touching(core):
        box = lattice.box(index)
        part = box.intersect(core)
        direct[part.slices(core.start)] += bump_window(lattice.patch_shape)[part.slices(box.start)]
    z, y, x = weight_sums(lattice, core)
    np.testing.assert_allclose(z[:, None, None] * y[:, None] * x, direct, rtol=1e-6)


@patient
@given(st.data())
def test_the_sums_of_weights_do_not_depend_on_the_core(data):
    lattice = data.draw(lattices())
    core = data.draw(boxes_in(lattice.bounds))
    whole, part = weight_sums(lattice, lattice.bounds), weight_sums(lattice, core)
    for w, p, where in zip(whole, part, core.slices(lattice.bounds.start), strict=True):
        np.testing.assert_array_equal(w[where], p)
