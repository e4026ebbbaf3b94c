import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import Vec
from pipeline.synthetic.dataset import settings_of
from pipeline.synthetic.faults import Faults, add_faults
from pipeline.synthetic.kinds import find_kind
from pipeline.synthetic.tissue_samples import TissueConfig, make_tissue_sample

ALL = Faults(shift_voxels=3, folds=0.4, dark=0.3, missing=0.3)


def stack(faults, sections=12, side=48):
    """Bright sections with a label in each column, with the margin that the faults need."""
    wide = side + 2 * faults.margin
    labels = np.broadcast_to(np.arange(1, wide + 1, dtype=np.uint32), (sections, wide, wide))
    return np.full((sections, wide, wide), 200, np.uint8), labels


def test_without_faults_tissue_is_what_it_was():
    """Faults of zero change no voxel, and are not listed."""
    small = TissueConfig(shape=Vec(3, 24, 28), resolution_nm=Vec(40, 8, 8))
    plain = make_tissue_sample(0, config=small)
    image, labels, found = add_faults(plain.image, plain.target, Faults(), np.random.default_rng(0))
    assert np.array_equal(image, plain.image)
    assert np.array_equal(labels, plain.target)
    assert found == {"folds": [], "dark": [], "missing": []}
    assert "faults" not in plain.more


def test_a_shift_moves_labels_with_the_image():
    """Each section is the same window of image and labels, at most ``shift_voxels`` beside its place."""
    faults = Faults(shift_voxels=3)
    _, labels = stack(faults)
    image = labels.astype(np.uint8)
    moved, truth, _ = add_faults(image, labels, faults, np.random.default_rng(1))
    assert np.array_equal(moved, truth)
    firsts = truth[:, 0, 0].astype(int)
    assert set(firsts - 4) <= set(range(-3, 4))
    assert len(set(firsts)) > 1


def test_missing_sections_are_black_and_never_two_in_a_row_and_their_labels_stay():
    """A missing section is 0 everywhere, has its labels, and the one beside it is there."""
    image, labels = stack(ALL)
    made, truth, found = add_faults(image, labels, Faults(missing=0.9), np.random.default_rng(2))
    assert len(found["missing"]) > 2
    assert not made[found["missing"]].any()
    assert min(np.diff(found["missing"])) > 1
    assert np.array_equal(truth, labels)


def test_a_dark_section_is_darker():
    """Dark sections, and no others, are darker than what was drawn."""
    image, labels = stack(ALL)
    made, _, found = add_faults(image, labels, Faults(dark=0.4), np.random.default_rng(3))
    assert 0 < len(found["dark"]) < 12
    assert {z for z in range(12) if made[z].max() <= 120} == set(found["dark"])


def test_a_fold_hides_tissue_and_is_not_known():
    """Under the dark band of a fold labels are 0; some columns are hidden, and far from it nothing has moved."""
    faults = Faults(folds=0.5)
    image, labels = stack(faults, side=200)
    made, truth, found = add_faults(image, labels, faults, np.random.default_rng(5))
    assert 0 < len(found["folds"]) < 12
    for z in range(12):
        assert ((truth[z] == 0) == (made[z] < 100)).all()
        assert (truth[z] == 0).any() == (z in found["folds"])
        jump = max(
            np.abs(np.diff(truth[z].astype(int), axis=axis))[(truth[z][1:, 1:] > 0).nonzero()].max() for axis in (1,)
        )
        assert (jump > 1) == (z in found["folds"])


def test_a_data_set_has_faults_by_its_settings():
    """``faults`` of the generator's settings are applied, keep the shape, and are listed; a wrong share is refused."""
    config = settings_of(find_kind("tissue"), ["shape=[6,24,28]", "resolution_nm=[40,8,8]", "faults.missing=1"])
    sample = make_tissue_sample(0, config=config)
    assert sample.image.shape == sample.target.shape == (6, 24, 28)
    assert [z for z in range(6) if not sample.image[z].any()] == sample.more["faults"]["missing"] == [0, 2, 4]
    with pytest.raises(ConfigError, match=r"faults\.folds is 2"):
        settings_of(find_kind("tissue"), ["faults.folds=2"])
