"""Patches are drawn from chunks in memory, weighted by masks, rejected, and mixed as the settings say."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.training.config import TrainConfig
from pipeline.training.data import ValidationPatches
from pipeline.training.preview import CHANGES, PATCHES, preview, rows_of
from pipeline.training.sampler import Sampler
from pipeline.training.sources import open_source, open_sources
from pipeline.volumes import create_volume
from pipeline.volumes.base import VolumeSpec
from tests.training.volumes import OFF, store

PATCH = (4, 8, 8)
FOREGROUND = [{"what": "foreground", "losses": [{"kind": "bce"}]}]
QUIET = OFF.model_dump()


def config(*volumes, **changes):
    """A training on volumes, validated on the first, that changes nothing but flips."""
    data = {"output": "unused", "name": "unused", "volumes": [v.model_dump(mode="json") for v in volumes]}
    data["validation"] = data["volumes"][0]
    return parse_config(data | {"patch_shape": PATCH, "augmentation": QUIET} | changes, TrainConfig)


def sampler(*volumes, **changes):
    settings = config(*volumes, **changes)
    return Sampler(open_sources(settings)[0], settings)


def masked(name, image, labels, mask):
    """Volumes with a mask."""
    volume, only = store(name, image, labels), store(f"{name}-mask", mask.astype(np.uint8), labels)
    return volume.model_copy(update={"mask": only.image})


def dots(shape, where):
    """An image of noise, and labels with one voxel of its own number at some places."""
    image, labels = np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.zeros(shape, np.uint32)
    for number, place in enumerate(where, 1):
        labels[place] = number
    return image, labels


@pytest.mark.parametrize("targets", [None, FOREGROUND])
def test_outside_of_the_mask_nothing_is_asked(targets):
    """Voxels outside of the mask have weight zero; in this test, the image is white inside of the mask."""
    image = np.zeros((8, 16, 48), np.uint8)
    image[..., :24] = 255
    volume = masked("mask", image, np.ones(image.shape, np.uint32), image > 0)
    given = {"targets": targets} if targets else {}
    drawer, shares = sampler(volume, **given), []
    for number in range(60):
        seen, _, weights = drawer.draw(number)
        asked = np.broadcast_to(seen > 0.5, weights.shape)
        assert not weights[~asked].any()
        shares.append((seen > 0.5).mean())
        if targets:
            assert weights[asked].all()
    assert 0.5 <= min(shares) < 1, "half of a patch must be valid: the mask is cropped where the image is"
    inside = [weights.any() for _, _, weights in ValidationPatches(open_source(volume), drawer.config)]
    assert 0 < sum(inside) < len(inside)


def test_a_mask_of_other_voxels_is_refused():
    """A mask that covers only a part of the image is refused."""
    image, labels = dots((8, 8, 8), [])
    volume = store("small-mask", image, labels).model_copy(update={"mask": store("half", image[:4], labels[:4]).image})
    with pytest.raises(VolumeError, match="must cover the same voxels as the input"):
        open_source(volume)


def test_patches_of_sparse_objects_are_drawn_whatever_they_hold_and_rejected_on_demand():
    """Patches with too little foreground or too few objects are rejected only with probability `reject`."""
    volume = store("sparse-dots", *dots((8, 40, 40), [(4, 20, 20), (4, 21, 20), (4, 20, 22)]))
    found = {}
    for name, sampling in {
        "all": {},
        "some": {"foreground": 2, "reject": 0.8},
        "only": {"foreground": 2, "reject": 1.0},
        "three": {"objects": 3, "reject": 1.0},
    }.items():
        drawer = sampler(volume, targets=FOREGROUND, sampling=sampling)
        found[name] = np.array([drawer.draw(number)[1].sum() for number in range(60)])
    assert (found["all"] == 0).any()
    assert (found["all"] > 1).mean() < (found["some"] > 1).mean() < 1
    assert found["only"].min() >= 2
    assert found["three"].min() == 3


def test_what_cannot_be_drawn_is_said():
    volume = store("poor", *dots((8, 16, 16), [(0, 0, 0)]))
    with pytest.raises(VolumeError, match=r"1000 patches in a row had .*fewer than 2 objects; give a box with more"):
        sampler(volume, targets=FOREGROUND, sampling={"objects": 2, "reject": 1.0}).draw(0)


def test_a_volume_far_larger_than_memory_is_read_patch_by_patch(tmp_path):
    """A patch is drawn from a volume of 10^15 voxels, because only one chunk of it is read."""
    bounds = BoundingBox.from_shape((100_000, 100_000, 100_000))
    urls = {}
    for name, dtype in (("image", np.uint8), ("labels", np.uint64)):
        spec = VolumeSpec(bounds, (8.0, 8.0, 8.0), np.dtype(dtype), storage_chunk=(64, 64, 64))
        urls[name] = str(tmp_path / f"{name}.zarr")
        create_volume(urls[name], spec)
    part = {**urls, "start": [0, 0, 0], "stop": [4, 8, 8]}
    data = {"output": "unused", "name": "unused", "volumes": [urls], "validation": part, "targets": FOREGROUND}
    settings = parse_config(data | {"patch_shape": PATCH, "sampling": {"chunk_shape": [32, 64, 64]}}, TrainConfig)
    image, _, weights = Sampler(open_sources(settings)[0], settings).draw(5)
    assert image.shape == (1, *PATCH)
    assert weights.all()


@dataclass
class Counted:
    """A volume that counts what is read."""

    volume: object
    reads: list = field(default_factory=list)

    @property
    def spec(self):
        return self.volume.spec

    def read(self, box):
        self.reads.append(box)
        return self.volume.read(box)


def test_patches_of_a_chunk_are_drawn_from_memory():
    """Each chunk is read once for ten patches, and a patch is the same whatever was drawn before it."""
    rng = np.random.default_rng(0)
    volume = store("chunks", rng.integers(0, 256, (16, 48, 48), np.uint8), np.ones((16, 48, 48), np.uint32))
    settings = config(volume, sampling={"chunk_shape": [8, 16, 16], "patches_per_chunk": 10})
    [source], _ = open_sources(settings)
    counted = Counted(source.image)
    object.__setattr__(source, "image", counted)
    drawer = Sampler([source], settings)
    patches = [drawer.draw(number) for number in range(30)]
    assert [box.shape for box in counted.reads] == [(8, 16, 16)] * 3
    assert len({box.start for box in counted.reads}) == 3
    again = sampler(volume, sampling={"chunk_shape": [8, 16, 16], "patches_per_chunk": 10})
    for number in (25, 3):
        assert all((a == b).all() for a, b in zip(again.draw(number), patches[number], strict=True))


def test_a_chunk_that_holds_no_patch_is_refused():
    """A chunk shape that is smaller than the patch is refused."""
    volume = store("no-chunk", *dots((8, 16, 16), []))
    with pytest.raises(ConfigError, match=r"chunk_shape is \(4, 8, 7\); it must hold a patch of \(4, 8, 8\)"):
        config(volume, sampling={"chunk_shape": [4, 8, 7]})


def test_a_margin_keeps_shifted_patches_known():
    """With a margin as wide as the largest shift, misaligned patches have no unknown voxel."""
    rng = np.random.default_rng(0)
    volume = store("margins", rng.integers(0, 256, (12, 40, 40), np.uint8), np.ones((12, 40, 40), np.uint32))
    shifted = QUIET | {"misalignment": 1.0, "misalignment_voxels": 5}
    known = {}
    for margin in (0, 5):
        drawer = sampler(volume, targets=FOREGROUND, augmentation=shifted | {"margin": margin})
        known[margin] = [drawer.draw(number)[2].mean() for number in range(30)]
        assert drawer.draw(0)[0].shape == (1, *PATCH)
    assert min(known[0]) < 1
    assert min(known[5]) == 1


def test_another_patch_may_shine_through_or_lend_an_object():
    """Mixup blends in 10 to 30 % of another patch; copy-paste takes only grey values and labels of both patches."""
    dark, bright = (
        store(name, np.full((8, 16, 16), value, np.uint8), np.full((8, 16, 16), label, np.uint32))
        for name, value, label in (("dark", 0, 1), ("bright", 255, 7))
    )
    mixed = sampler(dark, bright, targets=FOREGROUND, augmentation=QUIET | {"mixup": 1.0})
    values = np.array([float(mixed.draw(number)[0].mean()) for number in range(60)])
    assert all(v < 1e-6 or v > 1 - 1e-6 or 0.1 <= v <= 0.3 or 0.7 <= v <= 0.9 for v in values)
    assert ((values > 0.05) & (values < 0.95)).any()
    lent = sampler(dark, bright, targets=FOREGROUND, augmentation=QUIET | {"copy_paste": 1.0})
    for number in range(10):
        image, moved, _ = lent.changed(number)
        assert set(np.unique(moved.labels)) <= {2, 8}
        assert set(np.unique(image)) <= {0.0, 1.0}


def test_only_the_plane_is_rescaled_where_sections_are_thick():
    plane = QUIET | {"rescale": 0.8, "rescale_in_plane": True}
    rng = np.random.default_rng(0)
    volume = store("plane", rng.integers(0, 256, (12, 40, 40), np.uint8), np.ones((12, 40, 40), np.uint32))
    drawer = sampler(volume, augmentation=plane)
    boxes = [drawer._box(drawer.sources[0], np.random.default_rng(seed))[0].shape for seed in range(40)]
    assert {shape[0] for shape in boxes} == {4}
    assert len({shape[1] for shape in boxes}) > 3


def test_a_preview_shows_every_change_and_every_target(tmp_path):
    """A preview has a row for the plain patch, for each active change, for a whole patch and for each target."""
    data = {
        "output": str(tmp_path / "look"),
        "name": "look",
        "synthetic": {"volumes": 1, "shape": [8, 64, 64]},
        "patch_shape": [6, 24, 24],
        "targets": [{"what": "affinities", "offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}, {"what": "contours"}],
        "augmentation": {"preset": "pytc", "warp": 0.1, "blurred_sections": 0.1, "mixup": 0.1},
    }
    settings = parse_config(data, TrainConfig)
    rows = list(rows_of(settings))
    assert all(len(row) == PATCHES for row in rows)
    on = [name for name in CHANGES if getattr(settings.augmentation, name)]
    assert [row[0][0] for row in rows] == ["as it is", *on, "patch 0", "affinities", "contours"]
    assert {"warp", "mixup", "missing_parts", "elastic"} < set(on)
    assert preview(settings).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "look").iterdir()] == ["preview.png"]
