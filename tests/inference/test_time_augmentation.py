"""The affinities of turned labels, turned back, are those of the labels."""

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference.augmentation import Augmentation, Variant, variants
from tests.inference.networks import NEAREST, affinities_head

LONG = [*NEAREST, [-2, 0, 0], [0, -3, 0], [0, 0, -3], [0, -5, 0], [0, 0, -5]]


def true_affinities(labels, offsets):
    """1 where a voxel and its partner have one label; 0 where the partner is outside."""
    result = np.zeros((len(offsets), *labels.shape), np.float32)
    for channel, offset in enumerate(offsets):
        for v in np.ndindex(labels.shape):
            partner = tuple(a + o for a, o in zip(v, offset, strict=True))
            if all(0 <= p < n for p, n in zip(partner, labels.shape, strict=True)):
                result[(channel, *v)] = labels[v] == labels[partner]
    return torch.from_numpy(result)


def has_partner(shape, offset):
    inside = np.zeros(shape, bool)
    inside[tuple(slice(min(n, -o), n) for n, o in zip(shape, offset, strict=True))] = True
    return inside


@pytest.fixture(scope="module")
def labels():
    return torch.from_numpy(np.random.default_rng(3).integers(0, 3, (6, 6, 6)))


@pytest.mark.parametrize("offsets", [NEAREST, LONG], ids=["nearest", "long-range"])
@pytest.mark.parametrize("name", ["none", "flips", "flips+transpose"])
def test_every_variant_gives_back_the_affinities_of_the_labels(labels, name, offsets):
    assert variants_that_err(labels, name, offsets) == []


def test_all_permutations_give_back_the_nearest_affinities(labels):
    assert variants_that_err(labels, "flips+permutations", NEAREST) == []


def variants_that_err(labels, name, offsets):
    """The variants, with an offset, whose affinities turned back are not those of the labels, or are missing."""
    wrong = []
    truth = true_affinities(labels.numpy(), offsets)
    augmentation = Augmentation(name, [affinities_head(offsets, len(offsets))], labels.shape)
    for which, variant in enumerate(augmentation.variants):
        turned = true_affinities(variant.turn(labels).numpy(), offsets)
        back = torch.full(truth.shape, torch.nan)
        for out, source in zip(back, augmentation.sources[which], strict=True):
            to, origin = source.slices(out.shape)
            out[to] = variant.restore(turned[source.channel])[origin]
        for channel, offset in enumerate(offsets):
            inside = has_partner(labels.shape, offset)
            if not torch.equal(back[channel][inside], truth[channel][inside]):
                wrong.append((variant, offset))
    return wrong


@pytest.mark.parametrize("name", ["none", "flips", "flips+transpose", "flips+permutations"])
def test_the_mean_over_all_variants_of_true_affinities_is_exact_and_every_voxel_has_a_value(labels, name):
    augmentation = Augmentation(name, [affinities_head(NEAREST)], labels.shape)
    total = torch.zeros((3, *labels.shape))
    for which, variant in enumerate(augmentation.variants):
        augmentation.add(total, true_affinities(variant.turn(labels).numpy(), NEAREST), which)
    np.testing.assert_array_equal(augmentation.result(total), true_affinities(labels.numpy(), NEAREST))


def test_border_planes_are_averaged_over_the_variants_that_have_a_value():
    """Half of the flips reverse the z axis and have no value in plane 0 of the z channel."""
    augmentation = Augmentation("flips", [affinities_head(NEAREST)], (4, 4, 4))
    total = torch.zeros((3, 4, 4, 4))
    for which in range(8):
        augmentation.add(total, torch.ones(3, 4, 4, 4), which)
    assert total[0, 0].unique().tolist() == [4.0]
    assert total[0, 1:].unique().tolist() == [8.0]
    assert augmentation.result(total).unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "count"), [("none", 1), ("flips", 8), ("flips+transpose", 16), ("flips+permutations", 48)]
)
def test_variants_are_distinct_and_begin_with_the_image_itself(name, count):
    found = variants(name)
    assert found[0] == Variant((0, 1, 2), (False, False, False))
    assert len(set(found)) == len(found) == count


@pytest.mark.parametrize("variant", variants("flips+permutations"), ids=str)
def test_restore_is_the_inverse_of_turn(variant):
    image = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert torch.equal(variant.restore(variant.turn(image)), image)


def test_offsets_without_a_turned_counterpart_are_refused_only_if_they_are_wanted():
    offsets = [*NEAREST, [-2, -1, 0]]
    assert Augmentation("flips", [affinities_head(offsets)], (6, 6, 6)).values == (3,)
    with pytest.raises(ConfigError, match="no counterpart"):
        Augmentation("flips", [affinities_head(offsets, 4)], (6, 6, 6))


def test_a_transposed_patch_must_keep_its_shape():
    Augmentation("flips+transpose", [affinities_head(NEAREST)], (4, 6, 6))
    with pytest.raises(ConfigError, match="must be equal"):
        Augmentation("flips+transpose", [affinities_head(NEAREST)], (4, 6, 5))


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ConfigError, match="must be one of"):
        variants("mirror")
