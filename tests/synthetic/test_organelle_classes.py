"""Made-up organelles have the class of every voxel, in the tissue that is drawn without them being noted."""

import numpy as np

from pipeline.synthetic.organelle_classes import OrganellesConfig, make_organelles_sample
from pipeline.synthetic.organelles import CLASSES
from pipeline.synthetic.tissue_samples import TissueConfig, make_tissue_sample

SHAPE = (32, 128, 128)


def test_the_image_is_that_of_the_tissue() -> None:
    """Noting the classes draws no other number at random: the image is that of ``tissue``, byte for byte."""
    sample = make_organelles_sample(1, seed=2, config=OrganellesConfig(shape=SHAPE))
    plain = make_tissue_sample(1, seed=2, config=TissueConfig(shape=SHAPE))
    np.testing.assert_array_equal(sample.image, plain.image)


def test_classes_are_where_the_image_shows_them() -> None:
    """Mitochondria are darker than the background, vacuoles brighter, and the facts count their voxels."""
    sample = make_organelles_sample(1, seed=2, config=OrganellesConfig(shape=SHAPE))
    classes = sample.target
    assert (classes.dtype, classes.shape) == (np.uint8, SHAPE)
    counts = np.bincount(classes.ravel(), minlength=len(CLASSES))
    assert [sample.more[f"{name} voxels"] for name in CLASSES[1:]] == counts[1:].tolist()
    assert min(counts[1:3]) > 1000
    means = [sample.image[classes == number].mean() for number in range(3)]
    assert means[1] < means[0] - 25
    assert means[2] > means[0] + 5


def test_thick_sections_have_the_classes_of_their_middle() -> None:
    sample = make_organelles_sample(0, config=OrganellesConfig(shape=(8, 96, 96), resolution_nm=(32, 8, 8)))
    assert sample.image.shape == sample.target.shape == (8, 96, 96)
    inside = sample.target == 1
    assert inside.any()
    assert sample.image[inside].mean() < sample.image[sample.target == 0].mean() - 20


def test_a_deep_cell_has_a_nucleus() -> None:
    """In a volume with a large cell, the third class occurs."""
    config = OrganellesConfig(shape=(40, 96, 96), resolution_nm=(40, 40, 40))
    found = [make_organelles_sample(index, config=config).more["nucleus voxels"] for index in range(3)]
    assert max(found) > 100
