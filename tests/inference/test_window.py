"""The blend window is positive, smooth and symmetric, and the shares of a voxel are right at any place."""

import numpy as np
import pytest
from hypothesis import given

from pipeline.inference.window import profile, weight_shares
from tests.inference.boxes import lattices, patient


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


@patient
@given(lattices(largest=20))
def test_the_shares_of_a_voxel_add_up_to_one(lattice):
    """They are as the weights of its patches, which are products of profiles, and strictly positive."""
    total, windows = np.zeros(lattice.bounds.shape), np.zeros(lattice.bounds.shape)
    patches, weights = lattice.touching(lattice.bounds), _product(*map(profile, lattice.patch_shape))
    for index in patches:
        where, inside = _inside(lattice, index)
        shares = _product(*weight_shares(lattice, index))
        assert shares.min() > 0
        total[where] += shares[inside]
        windows[where] += weights[inside]
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    for index in patches:
        where, inside = _inside(lattice, index)
        shares = _product(*weight_shares(lattice, index))[inside]
        np.testing.assert_allclose(shares, weights[inside] / windows[where], rtol=1e-5)


def _product(z, y, x):
    return z[:, None, None] * y[:, None] * x


def _inside(lattice, index):
    """Indices of the voxels of a patch that are in the dataset: in the dataset, and in the patch."""
    box = lattice.box(index)
    part = box.intersect(lattice.bounds)
    return part.slices(lattice.bounds.start), part.slices(box.start)
