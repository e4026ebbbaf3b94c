import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.models.spec import Normalisation
from pipeline.training.config import Augmentation, LabelledVolume, Synthetic, TrainConfig
from pipeline.training.sampler import Sampler
from pipeline.training.sources import one_channel, open_source, open_sources
from pipeline.training.trainer import identity, without_later
from tests.training.volumes import OFF, store

PATCH = (6, 8, 8)


def test_an_image_with_an_axis_of_one_channel_is_read_without_it():
    assert one_channel(np.zeros((1, 2, 3, 4))).shape == (2, 3, 4) == one_channel(np.zeros((2, 3, 4))).shape


def config(*volumes, **changes):
    """A training on volumes, validated on the first."""
    values = {"output": "unused", "name": "unused", "volumes": volumes, "validation": volumes[0]}
    return TrainConfig(**values | {"patch_shape": PATCH, "augmentation": OFF} | changes)


def sampler(*volumes, **changes):
    settings = config(*volumes, **changes)
    return Sampler(open_sources(settings)[0], settings)


def noise(shape, seed=0):
    """A random image and labels that have no unknown voxels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, np.uint8), rng.integers(1, 4, shape).astype(np.uint32)


def same(one, other):
    return all((a == b).all() for a, b in zip(one, other, strict=True))


def test_a_patch_is_a_function_of_seed_and_number_alone():
    """A patch depends on the seed and on its number, and not on what was drawn before."""
    volume = store("pure", *noise((20, 24, 28)))
    everything = Augmentation(misalignment=0.5)
    used, fresh = (sampler(volume, augmentation=everything, seed=3) for _ in range(2))
    drawn = {number: used.draw(number) for number in (7, 0, 5, 1)}
    for number in (1, 5, 7):
        assert same(fresh.draw(number), drawn[number])
    assert not same(drawn[0], drawn[1])
    assert not same(sampler(volume, augmentation=everything, seed=4).draw(0), drawn[0])


@pytest.mark.parametrize("rescale", [0, 0.6])
def test_no_voxel_comes_from_outside_of_the_box(rescale):
    """No voxel of a patch comes from outside of the box, where this image is white and has another object."""
    box = BoundingBox((5, -3, 12), (15, 11, 23))
    image, labels = np.full((24, 30, 40), 255, np.uint8), np.full((24, 30, 40), 2, np.uint32)
    inside = box.slices((-1, -10, 0))
    image[inside] = np.random.default_rng(0).integers(0, 101, box.shape)
    labels[inside] = 1
    drawer = sampler(
        store("outside", image, labels, box, offset=(-1, -10, 0)),
        augmentation=OFF.model_copy(update={"rescale": rescale}),
    )
    brightest = 0.0
    for number in range(150):
        seen, targets, mask = drawer.draw(number)
        brightest = max(brightest, float(seen.max()))
        assert (targets == mask).all()
    assert brightest == pytest.approx(100 / 255)


def test_patches_come_from_everywhere_in_the_box():
    """Patches reach every voxel of the box; each voxel of this image has a brightness of its own."""
    image = np.arange(1, 251, dtype=np.uint8).reshape(5, 5, 10)
    volume = store("everywhere", image, np.ones_like(image, np.uint32))
    drawer = sampler(volume, patch_shape=(4, 3, 8), normalisation=Normalisation(scale=1.0))
    seen = np.unique([np.rint(drawer.draw(number)[0]).astype(int) for number in range(150)])
    assert seen.tolist() == list(range(1, 251))


def test_a_patch_has_the_shapes_that_the_network_needs():
    """A patch has an image (1, z, y, x), and targets and mask (c, z, y, x), all of them float32."""
    drawer = sampler(store("shapes", *noise((20, 24, 28))), offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -40)))
    image, targets, mask = drawer.draw(0)
    assert image.shape == (1, *PATCH)
    assert targets.shape == mask.shape == (4, *PATCH)
    assert {array.dtype for array in (image, targets, mask)} == {np.dtype(np.float32)}
    assert not mask[3].any()


def test_the_image_is_normalised_by_the_constants_of_the_card():
    """A drawn image is normalised with the offset and scale of the configuration."""
    volume = store("normalised", *noise((6, 8, 8)))
    plain, scaled = (
        sampler(volume, normalisation=n).draw(2)[0] for n in (Normalisation(), Normalisation(offset=100.0, scale=20.0))
    )
    assert scaled == pytest.approx((plain * 255 - 100) / 20, abs=1e-4)


def test_volumes_are_drawn_by_their_number_of_voxels():
    """A volume is drawn in proportion to its number of voxels."""
    flat = [
        (np.full(shape, value, np.uint8), np.ones(shape, np.uint32))
        for shape, value in (((8, 8, 8), 0), ((16, 16, 16), 255))
    ]
    drawer = sampler(store("small", *flat[0]), store("large", *flat[1]))
    share = np.mean([drawer.draw(number)[0].mean() for number in range(300)])
    assert share == pytest.approx(8 / 9, abs=0.06)


def test_a_volume_that_is_oversampled_is_drawn_as_if_it_were_larger():
    """With eight times its voxels, the small volume is drawn as often as the large one."""
    small = store("few", np.zeros((8, 8, 8), np.uint8), np.ones((8, 8, 8), np.uint32))
    large = store("many", np.full((16, 16, 16), 255, np.uint8), np.ones((16, 16, 16), np.uint32))
    drawer = sampler(small.model_copy(update={"oversampling": 8.0}), large)
    assert np.mean([drawer.draw(number)[0].mean() for number in range(300)]) == pytest.approx(0.5, abs=0.09)


def test_a_training_without_oversampling_is_the_training_that_it_was(tmp_path):
    """A checkpoint from before the key goes on; another factor is another training."""
    volume = store("whole", np.zeros((8, 8, 8), np.uint8), np.ones((8, 8, 8), np.uint32))
    before = without_later(config(volume).model_dump(mode="json"))
    assert "oversampling" not in before["volumes"][0]
    more = volume.model_copy(update={"oversampling": 2.0})
    assert identity(config(more)) != identity(config(volume))


def test_patches_with_hardly_a_label_are_drawn_again():
    """Where labels are sparse, every drawn patch has known affinities at a fifth of its voxels or more."""
    image, labels = noise((8, 8, 80))
    labels[..., 12:] = 0
    drawer = sampler(store("sparse", image, labels))
    known = [drawer.draw(number)[2][0, 1:].mean() for number in range(40)]
    assert min(known) >= 0.2


def test_a_volume_without_labels_is_refused():
    """A volume without any labelled voxel is refused."""
    image, labels = noise((8, 8, 8))
    with pytest.raises(VolumeError, match="labelled voxels"):
        sampler(store("unlabelled", image, labels * 0)).draw(0)


def test_a_patch_that_does_not_fit_is_refused_with_both_shapes():
    """A patch that is larger than the volume is refused with both shapes."""
    volume = store("thin", *noise((5, 20, 20)))
    with pytest.raises(ConfigError, match=r"patch_shape is \[6, 8, 8\].*offers \[5, 20, 20\]"):
        open_sources(config(volume))


def test_a_box_outside_of_the_volume_is_refused():
    """A box that reaches beyond the volume is refused."""
    image, labels = noise((8, 8, 8))
    with pytest.raises(VolumeError, match="correct start and stop"):
        open_source(store("beyond", image, labels, BoundingBox((0, 0, 0), (8, 8, 9))))


@pytest.mark.parametrize(
    ("image_type", "label_type"), [("uint16", "uint32"), ("float32", "uint32"), ("uint8", "float32")]
)
def test_images_of_other_types_than_uint8_and_labels_that_are_no_integers_are_refused(image_type, label_type):
    """Images that are not uint8 and labels that are not integers must be converted by the user."""
    image, labels = noise((8, 8, 8))
    with pytest.raises(VolumeError, match="convert"):
        open_source(store(f"types-{image_type}-{label_type}", image.astype(image_type), labels.astype(label_type)))


@pytest.mark.parametrize(
    ("resolution_nm", "axes"),
    [((8.0, 8.0, 8.0), {0, 1, 2}), ((40.0, 4.0, 4.0), {1, 2}), ((4.0, 4.0, 8.0), {2})],
)
def test_axes_of_different_voxel_size_are_never_swapped(resolution_nm, axes):
    """Only axes of equal voxel size are swapped; this image rises along x alone."""
    image = np.broadcast_to(np.arange(8, dtype=np.uint8) * 30, (8, 8, 8)).copy()
    volume = store("sides", image, np.ones_like(image, np.uint32), resolution_nm=resolution_nm)
    drawer = sampler(volume, patch_shape=(8, 8, 8), augmentation=OFF.model_copy(update={"transpose": True}))
    found = {
        int(np.argmax([abs(np.diff(drawer.draw(n)[0][0], axis=axis)).max() for axis in range(3)])) for n in range(60)
    }
    assert found == axes


def test_made_up_tissue_is_other_tissue_for_validation():
    """Every synthetic volume, the one for validation included, has other tissue."""
    settings = TrainConfig(
        output="unused", name="unused", patch_shape=PATCH, synthetic=Synthetic(volumes=2, shape=(12, 24, 24))
    )
    sources, validation = open_sources(settings)
    images = [source.read(source.box)[0] for source in (*sources, validation)]
    assert len(images) == 3
    assert all((a != b).any() for i, a in enumerate(images) for b in images[:i])
    assert all(source.isotropic for source in sources)


def test_trainings_without_data_or_validation_are_refused():
    """A configuration without volumes, or without a validation part, is refused when it is read."""
    volume = LabelledVolume(image="a", labels="b")
    with pytest.raises(ValidationError, match="nothing to train on"):
        TrainConfig(output="o", name="n")
    with pytest.raises(ValidationError, match="no validation"):
        TrainConfig(output="o", name="n", volumes=(volume,))


@pytest.mark.parametrize(("kind", "mark"), [("int32", -1), ("uint64", 2**64 - 1)])
def test_labels_that_are_marked_as_not_to_be_scored_are_not_known(kind, mark):
    """-1, with or without a sign, is read like 0."""
    image, labels = noise((8, 8, 8))
    labels = labels.astype(kind)
    labels[:4] = np.array(mark, object).astype(kind)
    found = open_source(store(f"marked-{kind}", image, labels)).read_labels(BoundingBox.from_shape((8, 8, 8)))
    assert not found[:4].any()
    assert (found[4:] == labels[4:]).all()


@pytest.mark.parametrize("chunk", [None, (8, 10, 12)])
def test_processes_that_draw_apart_share_no_voxel(chunk):
    """With ``apart`` each process draws from its own slab of every volume, all of which is drawn; without, from all."""
    z, _, x = np.indices((40, 24, 28))
    image = (z + 40 * (x % 5)).astype(np.uint8)  # neighbours differ, as in an image
    volume = store("apart", image, np.ones(image.shape, np.uint32))
    chosen = {"sampling": {"apart": True, "chunk_shape": chunk, "patches_per_chunk": 6}, "batch_size": 2, "nodes": 2}
    used, others = (sampler(volume, **{**chosen, **change}) for change in ({}, {"sampling": {}}))
    seen: list[set[int]] = [set(), set()]
    for number in range(240):
        seen[number // 2 % 2] |= set(np.unique((used.draw(number)[0] * 255).round().astype(int) % 40).tolist())
    assert max(seen[0]) == 19
    assert min(seen[1]) == 20
    assert seen[0] | seen[1] == set(range(40))
    together = np.concatenate([others.draw(n)[0].ravel() for n in range(0, 160, 4)]) * 255
    assert (together.round().astype(int) % 40).max() > 30


def test_slabs_that_hold_no_patch_are_refused():
    """More processes than slabs that hold a patch are refused with the slab, the patch and the remedies."""
    volume = store("thin slabs", *noise((20, 24, 28)))
    with pytest.raises(ConfigError, match=r"into 4 slabs of \[20, 24, 7\] voxels; each must hold a patch"):
        sampler(volume, sampling={"apart": True}, devices=4)
