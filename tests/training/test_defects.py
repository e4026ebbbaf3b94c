"""The changes of Lee et al. 2017 and PyTorch Connectomics, and their presets, do what their settings say."""

import numpy as np
import pytest

from pipeline.config.base import Table
from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.training.augmentation import PRESETS, Augmentation, augment, change_grey, misalign, warp
from pipeline.training.augmentation.sections import (
    band,
    cut,
    cut_blur,
    cut_noise,
    defocus_sections,
    lose_parts,
    lose_sections,
    quarters,
    smear_sections,
)

EVERYTHING = Augmentation(
    **dict.fromkeys(("warp", "elastic", "misalignment", "missing_sections", "grey", "blurred_sections"), 0.7),
    **dict.fromkeys(("invert", "motion_blur", "missing_parts", "cut_blur", "cut_noise"), 0.7),
    misalignment_rotation=0.5,
    missing_partial=0.5,
    elastic_spacing=6,
)
LARGE = 2**40


class File(Table):
    augmentation: Augmentation = Augmentation()


def parsed(value):
    return parse_config({"augmentation": value}, File).augmentation


def halves(shape, axis):
    """Labels with a border in the middle, and an image that is bright on its far side."""
    far = np.arange(shape[axis]) >= shape[axis] // 2
    far = np.broadcast_to(far.reshape([-1 if a == axis else 1 for a in range(3)]), shape)
    return far.astype(np.float32), np.where(far, LARGE + 1, LARGE)


@pytest.mark.parametrize(
    "settings",
    [
        {"warp": 1.0, "warp_degrees": 30.0},
        {"elastic": 1.0, "elastic_spacing": 8},
        {"warp": 1.0, "elastic": 1.0, "elastic_spacing": 8},
        {"misalignment": 1.0, "misalignment_voxels": 6, "misalignment_rotation": 1.0},
    ],
)
@pytest.mark.parametrize("axis", [1, 2])
def test_image_and_labels_are_bent_alike(settings, axis):
    """Warping, elastic deformation and misalignment move image and labels alike and keep ids of 2^40 exact."""
    config = Augmentation(**settings)
    moved = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image, labels = halves((5, 32, 40), axis)
        arrays = [image, labels, np.ones(labels.shape, np.uint8)]
        seen, found, asked = misalign(arrays, rng, config) if config.misalignment == 1 else warp(arrays, config, rng)
        assert seen.shape == found.shape == labels.shape
        assert set(np.unique(found)) <= {0, LARGE, LARGE + 1}
        assert ((found > 0) == (asked > 0)).all()
        assert 0.6 < asked.mean() <= 1
        sure = (abs(seen - 0.5) > 0.45) & (asked > 0)
        assert ((seen > 0.5) == (found == LARGE + 1))[sure].mean() > 0.995
        moved += (found != labels).any()
    assert moved >= 5


def test_everything_together_follows_the_generator_and_leaves_its_input_alone():
    """With all changes on, a seed always gives the same patch, and the input arrays stay unchanged."""
    for shape in ((6, 24, 20), (1, 24, 24)):
        image = np.random.default_rng(0).random(shape, np.float32)
        labels = np.random.default_rng(1).integers(1, 9, shape)
        before = image.copy(), labels.copy()
        for seed in range(8):
            one, two = (augment(image, [labels], EVERYTHING, False, np.random.default_rng(seed)) for _ in range(2))
            assert (one[0] == two[0]).all()
            assert (one[1][0] == two[1][0]).all()
            assert one[0].dtype == np.float32
            assert 0 <= one[0].min() <= one[0].max() <= 1
        assert (image == before[0]).all()
        assert (labels == before[1]).all()


def test_what_is_off_draws_nothing():
    """The strengths of changes that are off do not affect the patches that are drawn."""
    image, labels = np.random.default_rng(0).random((4, 12, 12), np.float32), np.ones((4, 12, 12), int)
    strong = Augmentation(
        warp_degrees=90, elastic_voxels=50, blurred_most=1, blurred_voxels=9, motion_voxels=3, margin=2
    )
    for seed in range(10):
        plain, other = (
            augment(image, [labels], c, True, np.random.default_rng(seed)) for c in (Augmentation(), strong)
        )
        assert (plain[0] == other[0]).all()


def test_misalignment_keeps_to_its_settings():
    """Shifts reach `misalignment_voxels` at most; a slip moves one section, a jump all sections after it."""
    image, labels = np.zeros((6, 40, 40), np.float32), np.arange(6 * 1600).reshape(6, 40, 40) + 1
    kinds = {0.0: set(), 1.0: set()}
    for slip, found in kinds.items():
        config = Augmentation(misalignment_voxels=7, misalignment_slip=slip)
        farthest = 0
        for seed in range(60):
            _, moved = misalign([image, labels], np.random.default_rng(seed), config)
            changed = np.flatnonzero((moved != labels).any((1, 2)))
            if len(changed):
                found.add((len(changed) == 1, changed[-1] == 5))
                middle = np.argwhere(moved[changed[0]] == labels[changed[0], 20, 20])[0] - 20
                farthest = max(farthest, *abs(middle))
        assert farthest == 7
    assert {single for single, _ in kinds[1.0]} == {True}
    assert {last for _, last in kinds[0.0]} == {True}


def test_a_rotation_turns_about_the_middle_and_moves_no_corner_too_far():
    config = Augmentation(misalignment_voxels=4, misalignment_rotation=1.0, misalignment_slip=1.0)
    labels = np.arange(2 * 41 * 41).reshape(2, 41, 41) + 1
    for seed in range(10):
        _, moved = misalign([np.zeros(labels.shape, np.float32), labels], np.random.default_rng(seed), config)
        assert moved[1, 20, 20] == labels[1, 20, 20]
        known = moved[1] > 0
        came = np.stack(np.divmod(moved[1][known] - 1 - 41 * 41, 41)) - np.stack(np.nonzero(known))
        assert np.hypot(*came).max() < 4 + 1


def test_parts_are_lost_in_single_sections_only():
    """One to three sections lose a part, and no two of them are neighbours."""
    image = np.random.default_rng(0).random((12, 32, 32))
    for seed in range(30):
        changed = (lose_parts(image, np.random.default_rng(seed)) != image).any((1, 2))
        assert 1 <= changed.sum() <= 3
        assert not (changed[1:] & changed[:-1]).any()
    assert 0 < np.mean([band((64, 64), np.random.default_rng(seed)).mean() for seed in range(50)]) < 0.3


def test_lost_sections_may_be_lost_in_quarters():
    image = np.random.default_rng(0).random((9, 16, 16))
    shares = [(lose_sections(image, np.random.default_rng(s), 1, 1.0) != image).any(0).mean() for s in range(30)]
    assert all(0 < share < 1 for share in shares)
    several = [(lose_sections(image, np.random.default_rng(s), 6, 0.0) != image).any((1, 2)).sum() for s in range(60)]
    assert max(several) > 3
    assert max(several) <= 6
    assert {int(quarters((8, 8), np.random.default_rng(s)).mean() < 1) for s in range(20)} == {1}


def test_sections_are_blurred_by_themselves():
    """Defocus changes one to ten sections of a patch and smear one or two, and the changed ones lose contrast."""
    image = np.random.default_rng(0).random((20, 24, 24)).astype(np.float32)
    for change in (defocus_sections, smear_sections):
        counts = []
        for seed in range(20):
            changed = change(image, Augmentation(), np.random.default_rng(seed))
            which = (changed != image).any((1, 2))
            counts.append(which.sum())
            assert changed[which].std() < image[which].std()
        assert max(counts) == (2 if change is smear_sections else max(counts))
        assert 1 <= max(counts) <= 10


def test_greys_change_for_the_patch_or_for_each_section():
    """Grey values change for the whole patch or for each section by itself, within fixed limits."""
    flat = np.full((6, 4, 4), 0.5)
    kinds = set()
    for seed in range(40):
        seen = change_grey(flat, np.random.default_rng(seed))
        kinds.add(len(np.unique(seen)))
        assert (0.5 * 0.85 - 0.15) ** 2 <= seen.min() <= seen.max() <= (0.5 * 1.15 + 0.15) ** 0.5
    assert kinds == {1, 6}


def test_boxes_are_cut_to_their_share_of_the_patch():
    image = np.random.default_rng(0).random((10, 40, 40))
    for seed in range(20):
        assert [part.stop - part.start for part in cut(image.shape, 0.4, np.random.default_rng(seed))] == [4, 16, 16]
        noisy = cut_noise(image, 0.4, np.random.default_rng(seed)) - image
        assert (noisy != 0).sum() == 4 * 16 * 16
        assert abs(noisy).max() <= 0.3
        coarse = cut_blur(image, 0.4, np.random.default_rng(seed))
        changed = coarse != image
        assert 4 * 16 * 16 / 2 < changed.sum() < 4 * 16 * 16
        assert np.isin(coarse[changed], image).all(), "values are repeated, not made up"


def test_presets_are_those_of_the_papers():
    """The presets lee and pytc have the values of their papers; default is the same as an empty table."""
    lee, pytc = parsed("lee"), parsed("pytc")
    assert (lee.misalignment_voxels, lee.misalignment_slip, lee.missing_most, lee.blurred_most) == (17, 0.3, 10, 10)
    assert {lee.misalignment, lee.warp, lee.grey, lee.missing_sections, lee.blurred_sections} == {0.7}
    assert lee.contrast == lee.rescale == lee.blur == lee.noise == lee.shading == 0
    assert (pytc.misalignment_voxels, pytc.misalignment_rotation, pytc.rescale) == (16, 0.5, 0.25)
    assert (pytc.missing_parts, pytc.elastic, pytc.grey, pytc.cut_noise, pytc.cut_blur) == (0.9, 0.75, 0.75, 0.75, 0.5)
    assert parsed("default") == Augmentation() == parsed({})
    assert set(PRESETS) == {"default", "flips", "lee", "none", "pytc"}


def test_a_preset_may_be_changed_and_an_unknown_one_is_refused():
    changed = parsed({"preset": "pytc", "cut_noise": 0, "margin": 4})
    assert (changed.cut_noise, changed.margin, changed.elastic) == (0, 4, 0.75)
    assert changed == parsed(changed.model_dump())
    with pytest.raises(ConfigError, match=r"'pytorch' is no preset; there are default, none, flips, lee, pytc"):
        parsed("pytorch")
    with pytest.raises(ConfigError, match="colour"):
        parsed({"preset": "lee", "colour": 1})
