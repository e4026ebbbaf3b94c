import numpy as np
import pytest

from pipeline.training.targets import edge_padded_affinities, ratio_weights, unet_weights
from tests.training.targets.usual import shared_level, signed_distance


def disc(side=21, radius=6, value=1):
    y, x = np.ogrid[-(side // 2) : side - side // 2, -(side // 2) : side - side // 2]
    return np.where(y**2 + x**2 <= radius**2, value, 0)


def test_signed_distance_without_squashing_is_in_pixels_over_alpha_and_beta():
    labels = np.array([[0, 0, 0, 7, 7, 7]])
    found = signed_distance(labels, inside=2, outside=10, squash=False)[0, 0]
    assert found == pytest.approx([-0.3, -0.2, -0.1, 0.5, 1.0, 1.5])


def test_a_section_without_a_border_is_far_inside_or_far_outside():
    labels = np.stack([np.zeros((4, 4), int), np.ones((4, 4), int)])
    found = signed_distance(labels)[0]
    assert found[0] == pytest.approx(-np.tanh(5))
    assert found[1] == pytest.approx(np.tanh(5))


def test_depth_in_three_dimensions_knows_the_size_of_voxels():
    labels = np.ones((5, 9, 9), int)
    labels[0] = labels[-1] = 0
    labels[:, :, 0] = labels[:, :, -1] = labels[:, 0] = labels[:, -1] = 0
    flat = signed_distance(labels, in_plane=False, resolution=(1, 1, 1), squash=False)[0, 2, 4, 4]
    deep = signed_distance(labels, in_plane=False, resolution=(10, 1, 1), squash=False)[0, 2, 4, 4]
    assert flat == pytest.approx(2 / 8)
    assert deep == pytest.approx(4 / 8)


def test_every_object_is_deepest_in_its_own_middle():
    labels = np.zeros((30, 60), int)
    labels[5:26, 5:26] = disc(value=3)
    labels[12:19, 40:47] = disc(7, 3, value=3)
    depth = shared_level(labels, levels=None)
    for part in (depth[:, :30], depth[:, 30:]):
        assert part.max() == pytest.approx(1, abs=1e-6)
    levels = shared_level(labels)
    assert set(np.unique(levels)) <= set(range(1, 11))


def test_the_background_has_its_own_level_where_asked():
    """Background has level 0 with `separate_background`, and shares level 1 with the rim of objects otherwise."""
    labels = disc()
    shared, own = shared_level(labels), shared_level(labels, separate_background=True)
    assert (shared[labels == 0] == 1).all()
    assert (own[labels == 0] == 0).all()
    assert np.array_equal(shared[labels > 0], own[labels > 0])
    assert (own[labels > 0] >= 1).all()
    assert (shared_level(np.zeros((3, 4, 5), int)) == 0).all()


def holes_by_the_whole(labels):
    """The definition, with every object measured in the whole section."""
    from scipy import ndimage
    from skimage import measure, morphology

    parts = measure.label(labels)
    depth = np.zeros(labels.shape)
    for number in range(1, parts.max() + 1):
        filled = morphology.remove_small_holes(parts == number, max_size=15, connectivity=1)
        distance = ndimage.distance_transform_edt(filled)
        depth = np.maximum(depth, distance / (distance.max() + 1e-6))
    return depth.astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_measuring_in_boxes_changes_nothing(seed):
    """Distances measured in the box around each object equal those measured in the whole section."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (6, 9)), 5, 0), 5, 1)
    labels[rng.random(labels.shape) < 0.03] = 0
    labels[0:2, 0:3] = 0
    assert np.array_equal(shared_level(labels, levels=None), holes_by_the_whole(labels))


def test_the_border_counts_as_background_where_asked():
    labels = np.ones((9, 9), int)
    labels[0, 0] = 0
    assert shared_level(labels, levels=None)[8, 8] == pytest.approx(1, abs=1e-6)
    assert shared_level(labels, levels=None, border_is_background=True)[4, 4] == pytest.approx(1, abs=1e-6)
    assert shared_level(np.ones((9, 9), int), levels=None) == pytest.approx(1, abs=1e-6)


def test_centred_affinities_join_both_sides():
    labels = np.array([[[1, 1, 2, 2, 2, 0, 2]]])
    found = edge_padded_affinities(labels, (1, 1, 1), centred=True)[2, 0, 0]
    assert found.tolist() == [1, 0, 0, 1, 0, 1, 0]


def test_the_rarer_class_has_the_higher_weight():
    target = np.zeros((1, 10, 10))
    target[0, :2] = 1
    weights = ratio_weights(target)
    assert (weights[0, :2] == 4).all()
    assert (weights[0, 2:] == 1).all()
    assert np.array_equal(ratio_weights(1 - target), weights)
    assert ratio_weights(np.eye(100)[None]).max() == pytest.approx(19)
    assert (ratio_weights(np.zeros((1, 4, 4))) == 1).all()


def test_masked_voxels_have_no_say_in_the_ratio_and_no_weight():
    target = np.zeros((1, 10, 10))
    target[0, :2] = 1
    mask = np.zeros((10, 10))
    mask[:, :5] = 1
    target[0, :, 5:] = 1
    weights = ratio_weights(target, mask)
    assert (weights[0, :2, :5] == 4).all()
    assert (weights[0, 2:, :5] == 1).all()
    assert (weights[0, :, 5:] == 0).all()


def test_the_unet_map_is_high_in_narrow_gaps():
    labels = np.zeros((40, 40), int)
    labels[5:35, 5:18], labels[5:35, 20:35] = 1, 2
    weights = unet_weights(labels)[0]
    assert weights[20, 18] == pytest.approx(10 * np.exp(-((1 + 2) ** 2) / 50))
    assert (weights[labels > 0] == 5).all()
    assert weights[0, 0] == 1
    assert (unet_weights(np.where(labels == 1, 1, 0))[0] == np.where(labels == 1, 5, 1)).all()
    assert np.array_equal(unet_weights(np.stack([labels, labels * 0]))[0, 0], weights)
