"""Made-up mitochondria have exact ground truth: each label is one piece, and many touch."""

import numpy as np
import pytest
from skimage import measure

from pipeline.synthetic.mitochondria import MitochondriaConfig, _apart, make_mitochondria_sample, touching

CONFIG = MitochondriaConfig(shape=(32, 96, 96), clusters_per_um3=60.0, smallest=40)


@pytest.fixture(scope="module")
def sample():
    return make_mitochondria_sample(2, seed=3, config=CONFIG)


def test_every_label_is_one_piece_of_enough_voxels(sample):
    """Labels are 1 to n, each is one 6-connected piece, and none is smaller than ``smallest``."""
    labels = sample.target
    assert (sample.image.dtype, labels.dtype, labels.shape) == (np.uint8, np.uint32, (32, 96, 96))
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) == sample.more["mitochondria"] > 5
    assert sizes.min() >= 40
    assert measure.label(labels, connectivity=1, background=0).max() == len(sizes)


def test_many_touch_and_without_clusters_none(sample):
    """Mitochondria of a cluster share faces; where every cluster is a single one, none touches another."""
    assert sample.more["touching"] == len(touching(sample.target)) > 0.3 * sample.more["mitochondria"]
    alone = make_mitochondria_sample(2, seed=3, config=CONFIG.model_copy(update={"touching": 0.0}))
    assert alone.more["mitochondria"] > 3
    assert alone.more["touching"] == 0


def test_a_mask_of_them_has_fewer_pieces(sample):
    """The connected pieces of the mask are fewer than the mitochondria: a mask alone does not tell them apart."""
    pieces = measure.label(sample.target > 0, connectivity=1, background=0).max()
    assert pieces < 0.8 * sample.more["mitochondria"]


def test_they_are_darker_than_the_cytoplasm(sample):
    """The image shows what the labels say: mitochondria are much darker than what surrounds them."""
    inside = sample.target > 0
    assert sample.image[inside].mean() < sample.image[~inside].mean() - 25


def test_a_sample_depends_on_seed_and_index_alone(sample):
    again = make_mitochondria_sample(2, seed=3, config=CONFIG)
    assert np.array_equal(again.image, sample.image)
    assert np.array_equal(again.target, sample.target)
    assert not np.array_equal(make_mitochondria_sample(1, seed=3, config=CONFIG).image, sample.image)


def test_thick_sections_have_the_labels_of_their_middle():
    """Sections of 30 nm are drawn as thin ones, and the labels have the shape of the sections."""
    config = MitochondriaConfig(shape=(8, 80, 80), resolution_nm=(30, 8, 8), clusters_per_um3=80.0, smallest=0)
    sample = make_mitochondria_sample(0, config=config)
    assert sample.target.shape == sample.image.shape == (8, 80, 80)
    assert sample.more["mitochondria"] > 2


def test_each_ends_halfway_to_its_neighbour():
    """Between two that overlap, the distance of one is at least half of its lead over the other: none overlaps."""
    first, second = (np.array([[[-3.0, -1.0, 2.0]]]), np.array([[[2.0, -1.5, -4.0]]]))
    a, b = _apart([first, second])
    assert a.tolist() == [[[-2.5, 0.25, 3.0]]]
    assert b.tolist() == [[[2.5, -0.25, -3.0]]]
    assert not ((a < 0) & (b < 0)).any()


def test_neighbours_are_counted_by_faces():
    """Labels that share a face touch; labels that share an edge alone do not."""
    labels = np.zeros((1, 3, 4), np.uint32)
    labels[0, 0, :2] = 1, 2
    labels[0, 2, 3] = 3
    labels[0, 1, 2] = 4
    assert touching(labels) == {1, 2}
