import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.training.targets import descriptor_channels, shape_descriptors


def described_by_loops(labels, sigma, sizes, v):
    """The statistics of the window around one voxel, term by term."""
    sigma, sizes = np.array(sigma, float), np.array(sizes, float)
    reach = np.floor(3 * sigma / sizes + 0.5).astype(int)
    norm = np.prod(
        [np.exp(-0.5 * (np.arange(-r, r + 1) * d / s) ** 2).sum() for r, d, s in zip(reach, sizes, sigma, strict=True)]
    )
    weights, places = [], []
    for w in np.argwhere(labels == labels[v]):
        step = w - np.array(v)
        if (np.abs(step) <= reach).all():
            weights.append(np.exp(-0.5 * ((step * sizes / sigma) ** 2).sum()) / norm)
            places.append(step * sizes)
    weights, places = np.array(weights), np.array(places)
    mean = (weights[:, None] * places).sum(0) / weights.sum()
    covariance = np.einsum("n,ni,nj->ij", weights / weights.sum(), places - mean, places - mean)
    spread = np.maximum(np.diag(covariance), 1e-3)
    pairs = [(i, j) for i in range(len(v)) for j in range(i + 1, len(v))]
    pearson = [covariance[i, j] / np.sqrt(spread[i] * spread[j]) * 0.5 + 0.5 for i, j in pairs]
    return np.clip([*(mean / sigma * 0.5 + 0.5), *(spread / sigma**2), *pearson, weights.sum()], 0, 1)


@pytest.mark.parametrize(
    ("shape", "sigma", "sizes"),
    [((6, 9, 10), (2, 2, 2), (1, 1, 1)), ((5, 12, 12), (60, 24, 24), (30, 8, 8)), ((14, 15), (20, 20), (8, 8))],
)
def test_descriptors_are_those_of_the_definition(shape, sigma, sizes):
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 4, [-(-n // 4) for n in shape]), np.ones([4] * len(shape), int))[
        tuple(map(slice, shape))
    ]
    found, mask = shape_descriptors(labels, sigma, sizes)
    assert found.shape == mask.shape == (descriptor_channels(len(shape)), *shape)
    assert (found[:, labels == 0] == 0).all()
    assert np.array_equal(mask[0], labels != 0)
    for v in rng.permutation(np.argwhere(labels))[:25]:
        assert found[(slice(None), *v)] == pytest.approx(described_by_loops(labels, sigma, sizes, tuple(v)), abs=1e-6)


def test_there_are_ten_channels_in_3d_and_six_in_2d():
    assert descriptor_channels(3) == 10
    assert descriptor_channels(2) == 6


def test_where_an_object_lies_in_the_volume_changes_nothing():
    """An object far from the origin has bit for bit the descriptors of the same object near it."""
    labels = np.zeros((8, 400), int)
    labels[2:6, 3:11] = labels[2:6, 383:391] = 1
    labels[2:6, 383:391] = 2
    found, _ = shape_descriptors(labels, (3.0, 3.0), (1e4, 1e4 + 1))
    near, far = found[:, 2:6, 3:11], found[:, 2:6, 383:391]
    assert np.array_equal(near, far)


def test_the_middle_of_a_large_object_is_unremarkable():
    labels = np.ones((41, 41, 41), int)
    found, _ = shape_descriptors(labels, (4, 4, 4))
    middle = found[:, 20, 20, 20]
    assert middle[:3] == pytest.approx(0.5)
    assert middle[3:6] == pytest.approx(1, abs=0.03)
    assert middle[6:9] == pytest.approx(0.5)
    assert middle[9] == pytest.approx(1)


def test_mirrored_objects_have_mirrored_descriptors():
    labels = np.random.default_rng(3).integers(0, 3, (1, 6, 7)).repeat(6, 0)
    found, _ = shape_descriptors(labels, (2, 2, 2))
    turned, _ = shape_descriptors(labels[:, ::-1], (2, 2, 2))
    expected = found[:, :, ::-1].copy()
    for channel in (1, 6, 8):
        expected[channel] = np.where(labels[:, ::-1] > 0, 1 - expected[channel], 0)
    assert turned == pytest.approx(expected, abs=1e-6)


def test_a_wrong_number_of_axes_is_refused():
    with pytest.raises(ConfigError, match="one number for each of 2 axes"):
        shape_descriptors(np.ones((4, 4), int), (1, 1, 1))
