import numpy as np
import pytest

from pipeline.training.augmentation import (
    augment,
    change_intensity,
    draw_factor,
    lose_sections,
    misalign,
    resample,
    shading,
    turn,
)
from pipeline.training.config import Augmentation

SEEDS = range(40)
GEOMETRY = Augmentation(contrast=0, blur=0, noise=0, shading=0, missing_sections=0, misalignment=0.5)
ALL = Augmentation(misalignment=0.5, blur=1, noise=1, shading=1, missing_sections=1)


def coordinates(shape):
    """Every voxel's own number, from 1 on: where it comes from can be read from it."""
    return np.arange(1, np.prod(shape) + 1).reshape(shape)


@pytest.mark.parametrize("shape", [(6, 6, 6), (4, 6, 6), (3, 5, 7)])
def test_image_and_labels_are_turned_and_shifted_alike(shape):
    """Image and labels move together: each voxel with a known label keeps its brightness."""
    labels = coordinates(shape)
    image = (labels / labels.size).astype(np.float32)
    moved = 0
    for seed in SEEDS:
        seen, [one, two] = augment(image, [labels, labels * 2], GEOMETRY, True, np.random.default_rng(seed))
        known = one > 0
        assert seen.shape == one.shape == shape
        assert seen[known] == pytest.approx(one[known] / labels.size, abs=1e-5)
        assert (two == 2 * one).all()
        moved += not (one == labels).all()
    assert moved > 30


def test_the_generator_decides_about_everything():
    """The same seed gives the same augmented patch, and another seed gives another one."""
    image, labels = np.random.default_rng(0).random((6, 8, 8), np.float32), coordinates((6, 8, 8))
    found = [augment(image, [labels], ALL, True, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert (found[0][0] == found[1][0]).all()
    assert (found[0][1][0] == found[1][1][0]).all()
    assert (found[0][0] != found[2][0]).any()


def test_the_patch_that_was_read_stays_as_it_was():
    """Augmentation leaves the arrays that it is given unchanged."""
    image, labels = np.random.default_rng(0).random((6, 8, 8), np.float32), coordinates((6, 8, 8))
    before = image.copy(), labels.copy()
    for seed in range(10):
        augment(image, [labels], ALL, True, np.random.default_rng(seed))
    assert (image == before[0]).all()
    assert (labels == before[1]).all()


def test_brightness_stays_between_zero_and_one():
    """An augmented image is float32 with the same shape and with values between 0 and 1."""
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        image = rng.choice(np.array([0, 0.2, 1], np.float32), (6, 9, 8))
        seen, _ = augment(image, [], ALL, True, rng)
        assert seen.dtype == np.float32
        assert seen.shape == image.shape
        assert 0 <= seen.min() <= seen.max() <= 1


def axis_order(before, after):
    """For each axis of the result, the axis that it was; read from differences of neighbours' numbers."""
    strides = [int(abs(np.diff(after, axis=axis)).flat[0]) for axis in range(3)]
    return tuple([s // before.itemsize for s in before.strides].index(stride) for stride in strides)


@pytest.mark.parametrize(
    ("shape", "isotropic", "transpose", "orders"),
    [
        ((4, 4, 4), True, True, {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}),
        ((4, 4, 4), False, True, {(0, 1, 2), (0, 2, 1)}),
        ((3, 4, 4), True, True, {(0, 1, 2), (0, 2, 1)}),
        ((4, 4, 3), True, True, {(0, 1, 2)}),
        ((4, 4, 4), True, False, {(0, 1, 2)}),
    ],
)
def test_only_axes_of_equal_voxels_and_sides_are_swapped(shape, isotropic, transpose, orders):
    """Only axes of equal voxel size and length are swapped; all allowed orders and all eight flips occur."""
    before = coordinates(shape)
    found, first = set(), set()
    for seed in range(200):
        [after] = turn([before], transpose, isotropic, np.random.default_rng(seed))
        assert after.shape == shape
        found.add(axis_order(before, after))
        first.add(int(after[0, 0, 0]))
    assert found == orders
    assert len(first) == 8


def test_a_misaligned_section_keeps_its_voxels_and_forgets_what_was_wrapped():
    """A misaligned section moves by up to three voxels, and labels that wrap around become unknown."""
    labels = coordinates((5, 9, 8))
    image = labels.astype(np.float32)
    kinds = set()
    for seed in range(100):
        seen, known = misalign([image, labels], np.random.default_rng(seed))
        moved = np.array([(a != b).any() for a, b in zip(seen, image, strict=True)])
        assert not moved[0]
        kinds.add((int(moved.sum()), bool(moved[-1])))
        for section in range(5):
            rolled = seen[section]
            dy, dx = np.argwhere(rolled == image[section, 4, 4])[0] - 4
            assert max(abs(dy), abs(dx)) <= 3
            y, x = np.mgrid[:9, :8] - np.array([dy, dx])[:, None, None]
            stays = (y >= 0) & (y < 9) & (x >= 0) & (x < 8)
            assert (rolled == np.roll(image[section], (dy, dx), (0, 1))).all()
            assert (known[section] == np.where(stays, rolled, 0)).all()
    assert {(1, False), (4, True), (0, False)} < kinds


def test_a_single_section_has_nothing_to_be_misaligned_with():
    """A patch of one section is not misaligned."""
    flat = coordinates((1, 4, 4))
    [same] = misalign([flat], np.random.default_rng(0))
    assert (same == flat).all()


def test_resampling_keeps_image_and_labels_on_the_same_places():
    """After resampling, the label changes exactly where the image crosses the middle of its step."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        before, after = (tuple(int(n) for n in rng.integers(8, 20, 3)) for _ in range(2))
        axis = int(rng.integers(3))
        labels = np.ones(before, int)
        np.moveaxis(labels, axis, 0)[int(rng.integers(2, before[axis] - 1)) :] = 2
        image, turned = resample(labels.astype(np.float32) - 1, labels, after)
        assert image.shape == turned.shape == after
        assert set(np.unique(turned)) == {1, 2}
        sure = abs(image - 0.5) > 1e-4
        assert ((image > 0.5) == (turned == 2))[sure].all()
        assert sure.mean() > 0.8


def test_an_image_of_the_right_shape_is_not_resampled():
    """An image that already has the wanted shape is returned as the same array."""
    image, labels = np.random.default_rng(0).random((3, 4, 5)), coordinates((3, 4, 5))
    same, alike = resample(image, labels, (3, 4, 5))
    assert same is image
    assert alike is labels


def test_half_of_the_patches_are_rescaled_within_the_limits():
    """Half of the patches are rescaled, by factors between 1 / (1 + rescale) and 1 + rescale."""
    rng = np.random.default_rng(0)
    factors = np.array([draw_factor(Augmentation(rescale=0.3), rng) for _ in range(2000)])
    assert 0.45 < (factors == 1).mean() < 0.55
    assert 1 / 1.3 <= factors.min() < 0.8
    assert 1.28 < factors.max() <= 1.3
    assert {draw_factor(Augmentation(rescale=0), rng) for _ in range(50)} == {1.0}


def test_with_all_shares_at_zero_the_image_is_unchanged():
    """An image stays unchanged if every change of intensity has the share 0."""
    image = np.random.default_rng(0).random((4, 5, 6))
    off = Augmentation(contrast=0, blur=0, noise=0, shading=0, missing_sections=0)
    assert change_intensity(image, off, np.random.default_rng(1)) == pytest.approx(image, abs=1e-12)


def test_one_or_two_sections_are_lost():
    """A patch loses one or two sections and never more."""
    image = np.random.default_rng(0).random((9, 4, 4))
    for seed in SEEDS:
        changed = (lose_sections(image, np.random.default_rng(seed), 2, 0.0) != image).any((1, 2))
        assert 1 <= changed.sum() <= 2


def test_shading_changes_slowly():
    """Shading varies over the patch, but by less than 0.06 between neighbouring voxels, so it adds no edges."""
    field = shading((90, 60, 30), np.random.default_rng(0))
    assert field.shape == (90, 60, 30)
    assert max(abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.06
    assert field.std() > 0.02


@pytest.mark.parametrize("preset", ["none", {"preset": "none", "noise": 1}])
def test_nothing_is_flipped_with_the_preset_none(preset):
    """With ``none`` patches stay as they are; single changes can be added to it."""
    image, labels = np.random.default_rng(0).random((4, 8, 8), np.float32), np.arange(256).reshape(4, 8, 8)
    rng = np.random.default_rng(1)
    found, (moved,) = augment(image, [labels], Augmentation.model_validate(preset), True, rng)
    assert np.array_equal(moved, labels)
    assert np.array_equal(found, image) == (preset == "none")


def test_flips_that_are_off_draw_no_number():
    """Without flips and exchanged axes an array stays as it is, and the generator too."""
    image, rng = np.arange(24).reshape(2, 3, 4), np.random.default_rng(1)
    state = rng.bit_generator.state
    assert np.array_equal(turn([image], False, True, rng, flip=False)[0], image)
    assert rng.bit_generator.state == state


@pytest.mark.parametrize("preset", ["default", "all"])
def test_all_colours_are_moved_and_changed_alike(preset):
    """Three equal channels stay equal, and are what a grey image becomes; channels are not exchanged."""
    changes = (
        ALL
        if preset == "default"
        else ALL.model_copy(
            update={"warp": 1.0, "elastic": 1.0, "grey": 1.0, "missing_parts": 1.0, "cut_blur": 1.0, "cut_noise": 1.0}
        )
    )
    grey, labels = np.random.default_rng(0).random((6, 16, 16), np.float32), coordinates((6, 16, 16))
    for seed in range(8):
        alone, [expected] = augment(grey, [labels], changes, True, np.random.default_rng(seed))
        colour, [moved] = augment(np.stack([grey] * 3), [labels], changes, True, np.random.default_rng(seed))
        assert colour.shape == (3, 6, 16, 16)
        assert (colour == alone).all()
        assert (moved == expected).all()
    still = Augmentation(transpose=False, misalignment=0, contrast=0, blur=0, noise=0, shading=0, missing_sections=0)
    levels = np.stack([np.full((4, 8, 8), level, np.float32) for level in (0.1, 0.2, 0.3)])
    kept = augment(levels, [], still, True, np.random.default_rng(0))[0]
    assert kept.mean((1, 2, 3)) == pytest.approx([0.1, 0.2, 0.3])


def test_each_colour_is_resampled_by_itself():
    image, labels = np.random.default_rng(0).random((3, 4, 6, 6), np.float32), coordinates((4, 6, 6))
    found, _ = resample(image, labels, (4, 9, 9))
    assert found.shape == (3, 4, 9, 9)
    for channel, given in zip(found, image, strict=True):
        assert (channel == resample(given, labels, (4, 9, 9))[0]).all()


def test_a_flipped_patch_of_one_section_can_be_bent():
    """A patch one section thick, mirrored along z, has ordinary strides, which torch needs to deform it."""
    section = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    for seed in range(8):
        (turned,) = turn([section], False, False, np.random.default_rng(seed))
        assert min(turned.strides) > 0
