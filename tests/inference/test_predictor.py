"""The byte of a voxel does not depend on the chunks, the batches or the neighbours of its patch."""

import hashlib
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.inference.augmentation import variants
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.predictor import PredictOptions, Predictor, measure
from pipeline.inference.probe import probe_patches
from pipeline.inference.window import profile
from pipeline.models.gamma_net_2d import GammaNet2D
from tests.inference.boxes import patient
from tests.inference.networks import NEAREST, Card, Copies, Loaded, convolutional, identity

PATCH, OVERLAP = (8, 10, 10), (2, 3, 3)


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def lattice_of(shape, start=(0, 0, 0), patch=PATCH, overlap=OVERLAP):
    return PatchLattice(BoundingBox.from_shape(shape, start), patch, overlap)


def reader(image, lattice):
    return lambda box: image[box.slices(lattice.bounds.start)]


def window_of(shape):
    z, y, x = map(profile, shape)
    return z[:, None, None] * y[:, None] * x


def whole(predictor, image, lattice):
    return predictor.predict(image, core=lattice.bounds, lattice=lattice)[0]


def in_chunks(predictor, image, lattice, chunk_shape):
    result = np.zeros((predictor.options.channels, *image.shape), np.uint8)
    for chunk in ChunkGrid(lattice.bounds, lattice.bounds, chunk_shape):
        block, _ = predictor.predict(reader(image, lattice), core=chunk.core, lattice=lattice)
        result[:, *chunk.core.slices(lattice.bounds.start)] = block
    return result


def unrounded(predictor, image, lattice, core=None):
    """The sums before rounding to uint8, which hides nearly every difference."""
    core = core or lattice.bounds
    patches = lattice.ranges(core)
    return predictor.sums(reader(image, lattice), patches=patches, box=core, lattice=lattice)[0]


shapes = st.tuples(*(st.integers(1, 22) for _ in range(3)))


@settings(patient, max_examples=25)
@given(shapes, st.tuples(*(st.integers(3, 25) for _ in range(3))), st.integers(0, 9))
def test_the_identity_network_gives_the_image_back_for_any_volume_and_any_chunks(shape, chunk, seed):
    lattice = lattice_of(shape, start=(5, -3, 11))
    image = image_of(shape, seed)
    result = in_chunks(Predictor(identity(), PredictOptions()), image, lattice, chunk)
    alive = image if image.min() != image.max() else np.zeros_like(image)
    for channel in result:
        np.testing.assert_array_equal(channel, alive)


CONVOLUTIONAL = Predictor(convolutional(), PredictOptions())


@settings(patient, max_examples=20)
@given(st.data())
def test_no_bit_depends_on_the_chunks(data):
    """The network has instance norms, so every voxel of a patch depends on the whole patch."""
    shape = data.draw(shapes)
    lattice = lattice_of(shape)
    image = image_of(shape, data.draw(st.integers(0, 9)))
    expected = unrounded(CONVOLUTIONAL, image, lattice)
    chunk = tuple(data.draw(st.integers(max(2, n // 3), n + 3)) for n in shape)
    for core in (chunk.core for chunk in ChunkGrid(lattice.bounds, lattice.bounds, chunk)):
        np.testing.assert_array_equal(unrounded(CONVOLUTIONAL, image, lattice, core), expected[:, *core.slices()])


@pytest.mark.parametrize("augmentation", ["none", "flips", "flips+transpose"])
def test_no_byte_depends_on_the_chunks_with_augmentation(augmentation):
    predictor = Predictor(convolutional(), PredictOptions(augmentation=augmentation))
    lattice, image = lattice_of((11, 15, 17)), image_of((11, 15, 17))
    np.testing.assert_array_equal(in_chunks(predictor, image, lattice, (6, 7, 9)), whole(predictor, image, lattice))


@pytest.mark.parametrize("augmentation", ["none", "flips+transpose"])
@pytest.mark.parametrize("shape", [(11, 15, 17), (5, 8, 23)])
def test_no_byte_of_a_colour_image_depends_on_the_chunks(augmentation, shape):
    """A network of three channels sees all of them in their order, in volumes smaller than a patch too."""
    predictor = Predictor(convolutional(colours=3), PredictOptions(augmentation=augmentation))
    lattice, image = lattice_of(shape), image_of((3, *shape))
    expected = whole(predictor, image, lattice)
    for chunk in ChunkGrid(lattice.bounds, lattice.bounds, (6, 7, 9)):
        block, _ = predictor.predict(image[:, *lattice.support(chunk.core).slices()], core=chunk.core, lattice=lattice)
        np.testing.assert_array_equal(block, expected[:, *chunk.core.slices()])
    assert (whole(predictor, image[[1, 0, 2]], lattice) != expected).any()
    with pytest.raises(ConfigError, match=r"the image has shape .*; the patches of this core need \(3, "):
        predictor.predict(image[0], core=lattice.bounds, lattice=lattice)


def test_the_digest_of_a_colour_network_sees_every_channel():
    """Another weight of the last channel alone is another environment."""
    loaded = convolutional(colours=3)
    before = Predictor(loaded, PredictOptions()).digest(PATCH)
    with torch.no_grad():
        loaded.module[0].weight[:, 2] += 0.1
    assert Predictor(loaded, PredictOptions()).digest(PATCH) != before


@pytest.mark.parametrize("threads", [1, 2])
def test_the_result_of_a_patch_does_not_depend_on_its_neighbours_or_its_place(threads):
    """The sizes are odd, because vector kernels treat a tensor's tail differently and a batch has only one tail."""
    predictor = Predictor(convolutional(), PredictOptions(threads=threads, batch_size=4))
    lattice = lattice_of((33, 37, 29), patch=(11, 37, 29), overlap=(0, 0, 0))
    image = image_of((33, 37, 29))
    together = unrounded(predictor, image, lattice)
    for part in (slice(0, 11), slice(11, 22), slice(22, 33)):
        alone = unrounded(predictor, image[part], lattice_of((11, 37, 29), patch=(11, 37, 29), overlap=(0, 0, 0)))
        np.testing.assert_array_equal(alone, together[:, part])


@pytest.mark.parametrize("name", ["flips", "flips+transpose", "flips+permutations"])
def test_an_augmented_prediction_turns_with_the_image(name):
    """The mean affinities over all variants of a turned image are the turned affinities, but for rounding."""
    predictor = Predictor(convolutional(), PredictOptions(augmentation=name))
    image, lattice = image_of((10, 10, 10)), lattice_of((10, 10, 10), patch=(10, 10, 10))
    straight = torch.from_numpy(whole(predictor, image, lattice).astype(int))
    for variant in variants(name)[1::3]:
        turned = variant.turn(torch.from_numpy(image)).numpy()
        affinities = torch.from_numpy(whole(predictor, turned, lattice).astype(int))
        for expected, source in zip(straight, variant.sources(NEAREST, 3), strict=True):
            to, origin = source.slices(expected.shape)
            difference = variant.restore(affinities[source.channel])[origin] - expected[to]
            inner = difference[1:, 1:, 1:]  # border planes are means over fewer variants, and not over the same ones
            assert inner.abs().max() <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_on_a_cpu_the_batch_size_changes_no_bit(threads):
    lattice, image = lattice_of((11, 37, 69), patch=(11, 37, 29)), image_of((11, 37, 69))
    one, *others = (
        unrounded(Predictor(convolutional(), PredictOptions(batch_size, "cpu", threads=threads)), image, lattice)
        for batch_size in (1, 2, 7)
    )
    for other in others:
        np.testing.assert_array_equal(other, one)


class _Batched(Predictor):
    """This predictor runs whole batches on a CPU too, so that padding is tested without a GPU."""

    batch_size = 4


@pytest.mark.parametrize("augmentation", ["none", "flips"])
def test_the_last_batch_is_padded_and_every_batch_has_one_shape(augmentation):
    seen = []

    class Watching(Copies):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return super().forward(x)

    lattice, image = lattice_of((20, 10, 10)), image_of((20, 10, 10))
    loaded = Loaded(Card(activation="none"), Watching())
    options = PredictOptions(augmentation=augmentation)
    np.testing.assert_array_equal(
        whole(_Batched(loaded, options), image, lattice), whole(Predictor(identity(), options), image, lattice)
    )
    assert len(lattice) % 4
    assert set(seen) == {(4, 1, *PATCH)}


def test_the_result_is_the_weighted_mean_over_the_patches():
    """Against the formula, spelled out in float64: half a level from rounding, and a little from each of 27 patches."""
    loaded = convolutional()
    lattice, image = lattice_of((11, 15, 17)), image_of((11, 15, 17))
    result = whole(Predictor(loaded, PredictOptions()), image, lattice)
    total, weights, window = np.zeros((3, *image.shape)), np.zeros(image.shape), window_of(PATCH)
    for index in product(*(range(n) for n in lattice.counts)):
        where = lattice.box(index).slices()
        patch = torch.from_numpy(image[where].astype(np.float32) / 255)[None, None]
        with torch.inference_mode():
            total[:, *where] += torch.sigmoid(loaded.module(patch))[0].double().numpy() * window
        weights[where] += window
    exact = 255 * total / weights
    assert np.abs(result - exact).max() < 0.5 + 27 / 2 / 128


def test_a_patch_adds_the_same_numbers_wherever_it_is_computed():
    """The sums of a box are those of its patches one by one, in any order and in parts, to the last unit."""
    lattice, image = lattice_of((11, 15, 17)), image_of((11, 15, 17))
    total = np.zeros((3, *image.shape), np.int16)
    for z, y, x in reversed(lattice.touching(lattice.bounds)):
        patches = range(z, z + 1), range(y, y + 1), range(x, x + 1)
        box = lattice.box((z, y, x)).intersect(lattice.bounds)
        for part in ChunkGrid(lattice.bounds, box, (5, 6, 7)):
            found, counters = CONVOLUTIONAL.sums(
                reader(image, lattice), patches=patches, box=part.core, lattice=lattice
            )
            assert counters == {"patches": 1, "skipped": 0}
            total[:, *part.core.slices()] += found
    np.testing.assert_array_equal(total, unrounded(CONVOLUTIONAL, image, lattice))


def test_constant_patches_are_not_run_and_count_as_zero():
    image = image_of((8, 10, 40))
    image[:, :, :20] = 77
    lattice = lattice_of((8, 10, 40), overlap=(0, 0, 0))
    predictor = Predictor(convolutional(), PredictOptions())
    result, counters = predictor.predict(image, core=lattice.bounds, lattice=lattice)
    assert counters == {"patches": 2, "skipped": 2}
    assert not result[..., :20].any()
    assert result[..., 20:].any()


def test_a_skipped_patch_keeps_its_weight():
    """Where an empty patch overlaps one with tissue, the value falls smoothly instead of jumping."""
    image = image_of((8, 10, 20))
    image[:, :, 6:] = 0
    lattice = lattice_of((8, 10, 16), overlap=(0, 0, 4))
    result = whole(Predictor(convolutional(), PredictOptions()), image[..., :16], lattice)
    alone = whole(Predictor(convolutional(), PredictOptions()), image[..., :10], lattice_of((8, 10, 10)))
    assert (result[..., 6:10] <= alone[..., 6:10]).all()
    assert result[..., 9].max() < alone[..., 9].min()
    assert not result[..., 10:].any()


def test_skipping_changes_no_byte_between_chunks():
    image = image_of((16, 20, 40))
    image[:, :, :20] = 0
    lattice = lattice_of(image.shape)
    np.testing.assert_array_equal(
        in_chunks(CONVOLUTIONAL, image, lattice, (7, 9, 11)), whole(CONVOLUTIONAL, image, lattice)
    )


def test_only_the_first_channels_are_written():
    long_range = [*NEAREST, [-2, 0, 0], [0, 0, -9]]
    lattice, image = lattice_of((8, 12, 12)), image_of((8, 12, 12))
    three = whole(Predictor(convolutional(long_range), PredictOptions()), image, lattice)
    five = whole(Predictor(convolutional(long_range), PredictOptions(channels=5)), image, lattice)
    assert three.shape == (3, 8, 12, 12)
    np.testing.assert_array_equal(five[:3], three)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_any_image_type_is_taken_and_left_as_it_was(dtype):
    image = image_of((8, 12, 12)).astype(dtype)
    image.setflags(write=False)
    lattice = lattice_of(image.shape)
    result = whole(Predictor(identity(), PredictOptions()), image, lattice)
    np.testing.assert_array_equal(result[0], image)


def test_an_image_with_one_channel_is_taken_as_one_without():
    image = image_of((8, 12, 12))
    lattice = lattice_of(image.shape)
    np.testing.assert_array_equal(whole(CONVOLUTIONAL, image[None], lattice), whole(CONVOLUTIONAL, image, lattice))


def test_normalisation_is_that_of_the_card():
    loaded = identity()
    loaded.card.normalisation.offset, loaded.card.normalisation.scale = 55.0, 200.0
    image = image_of((8, 10, 10)).clip(55, 255)
    result = whole(Predictor(loaded, PredictOptions()), image, lattice_of(image.shape))
    np.testing.assert_array_equal(result[0], np.rint((image - 55.0) / 200.0 * 255))


def test_the_calling_threads_settings_are_restored():
    before = torch.get_num_threads(), torch.is_inference_mode_enabled()
    whole(Predictor(identity(), PredictOptions(threads=before[0] + 1)), image_of((8, 10, 10)), lattice_of((8, 10, 10)))
    assert (torch.get_num_threads(), torch.is_inference_mode_enabled()) == before


def test_bfloat16_is_close_to_float32():
    lattice, image = lattice_of((8, 12, 12)), image_of((8, 12, 12))
    exact = whole(CONVOLUTIONAL, image, lattice).astype(int)
    coarse = whole(Predictor(convolutional(), PredictOptions(precision="bfloat16")), image, lattice)
    assert 0 < np.abs(coarse - exact).max() < 16


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_network_of_two_dimensions_sees_each_section_by_itself(channels_last):
    """A 2D network predicts each section by itself, and ignores `channels_last`, which only 3D kernels have."""
    torch.manual_seed(0)
    network = GammaNet2D(widths=(3, 4), horizontal=(3, 3), steps=2, out_channels=3)
    predictor = Predictor(Loaded(Card(), network), PredictOptions(channels_last=channels_last))
    image = image_of((8, 10, 10))
    result = whole(predictor, image, lattice_of(image.shape))
    with torch.inference_mode():
        alone = torch.stack([network(torch.from_numpy(section)[None, None] / 255.0)[0] for section in image], dim=1)
    assert np.abs(result - 255.0 * torch.sigmoid(alone).numpy()).max() < 0.51


def test_an_image_of_another_box_is_refused():
    lattice = lattice_of((16, 20, 20))
    core = BoundingBox.from_shape((4, 4, 4))
    with pytest.raises(ConfigError, match=r"read lattice\.support"):
        CONVOLUTIONAL.predict(np.zeros((4, 4, 4), np.uint8), core=core, lattice=lattice)


def test_a_network_that_breaks_its_card_is_refused():
    broken = Loaded(Card(offsets=[*NEAREST, [-2, 0, 0]]), Copies())
    with pytest.raises(ModelError, match="its card promises"):
        whole(Predictor(broken, PredictOptions()), image_of((8, 10, 10)), lattice_of((8, 10, 10)))


def test_values_that_are_not_finite_are_an_error_and_not_a_zero():
    loaded = identity()
    loaded.card.normalisation.scale = 0.0
    with pytest.raises(ModelError, match="not finite"):
        whole(Predictor(loaded, PredictOptions()), image_of((8, 10, 10)), lattice_of((8, 10, 10)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"augmentation": "mirror"}, "augmentation is 'mirror'"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        PredictOptions(**wrong)


def test_more_channels_than_the_network_has_are_refused():
    with pytest.raises(ConfigError, match="channels is 4"):
        Predictor(identity(), PredictOptions(channels=4))


def test_the_digest_of_an_environment_is_the_same_whenever_it_is_measured():
    """Two predictors agree, other predictions between two measurements change nothing."""
    predictor, lattice = Predictor(convolutional(), PredictOptions()), lattice_of((11, 15, 17))
    first = predictor.digest(PATCH)
    whole(predictor, image_of((11, 15, 17)), lattice)
    assert predictor.digest(PATCH) == first == Predictor(convolutional(), PredictOptions()).digest(PATCH)
    assert Predictor(convolutional(), PredictOptions(augmentation="flips+transpose")).digest(PATCH)


def test_one_bit_of_one_voxel_changes_the_digest(monkeypatch):
    """A library that rounds one value otherwise is another environment, also where no byte of the patch shows it."""
    predictor = Predictor(convolutional(), PredictOptions())
    plain, sigmoid = predictor.digest(PATCH), torch.sigmoid

    def another(logits):
        values = sigmoid(logits)
        values[-1, 3, 4, 5] = torch.nextafter(values[-1, 3, 4, 5], torch.tensor(2.0))
        return values

    monkeypatch.setattr(torch, "sigmoid", another)
    assert predictor.digest(PATCH) != plain


def test_a_full_batch_is_measured():
    """Kernels are chosen by the shape of a batch; each of its patches is another one."""
    seen = []

    class Watching(Copies):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    _Batched(Loaded(Card(activation="none"), Watching()), PredictOptions()).digest(PATCH)
    assert [tuple(batch.shape) for batch in seen] == [(4, 1, *PATCH)]
    assert len({patch.numpy().tobytes() for patch in seen[0]}) == 4


def test_the_patches_of_the_probe_never_change():
    """A run may be continued years later, with another version of numpy: the patches are part of its record."""
    patches = probe_patches(2, (9, 11, 17))
    assert (patches.shape, patches.dtype) == ((2, 9, 11, 17), np.uint8)
    assert hashlib.sha256(patches.tobytes()).hexdigest()[:16] == "f412918be04b8743"


def test_measuring_gives_a_positive_time_per_patch():
    assert measure(convolutional(), PredictOptions(), repeats=1) > 0
