"""Images, labels and masks of a training obey the rules of a run, and colour images reach the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import petaseg
from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.models.spec import load_card
from pipeline.runs.report import draw_run
from pipeline.runs.run import Run
from pipeline.training.config import LabelledVolume, Synthetic, TrainConfig
from pipeline.training.data import ValidationPatches
from pipeline.training.preview import preview
from pipeline.training.sampler import Sampler
from pipeline.training.sources import open_source, open_sources
from pipeline.training.trainer import train
from pipeline.volumes.ingest import ingest
from tests.runs import results, run, write_run, write_volume
from tests.training.trainings import settings
from tests.training.volumes import OFF, cubes

SHAPE = (12, 16, 20)
RNG = np.random.default_rng(0)
COLOUR = {"widths": [3, 4], "horizontal": [3, 1], "steps": 2, "in_channels": 3}


def labelled(folder: Path, image: np.ndarray, **more: str) -> LabelledVolume:
    labels = np.random.default_rng(1).integers(1, 4, image.shape[-3:]).astype(np.uint32)
    volumes = {
        "image": write_volume(folder / "image.zarr", image),
        "labels": write_volume(folder / "labels.zarr", labels),
    }
    return LabelledVolume(**volumes | more)


def sampler(volume: LabelledVolume) -> Sampler:
    values = {"volumes": (volume,), "validation": volume, "patch_shape": (6, 8, 8), "augmentation": OFF}
    config = TrainConfig(output="unused", name="unused", **values)
    return Sampler(open_sources(config)[0], config)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_an_image_of_another_type_is_refused_with_a_command_that_mends_it(dtype: str, tmp_path: Path) -> None:
    """Training and run refuse it in the same words, and take what the command writes."""
    data = (1000 * RNG.random(SHAPE)).astype(dtype)
    volume = labelled(tmp_path, data)
    file = write_run(tmp_path, input={"image": volume.image}, inference={"model": "fib25-tiny"})
    for use in (lambda: open_source(volume), lambda: Run.open(file)):
        with pytest.raises(VolumeError, match=rf"holds {dtype}; .* --to uint8 --percentiles 0\.1,99\.9`"):
            use()
    made = f"{tmp_path}/as_uint8.zarr"
    ingest(volume.image, made, to="uint8", percentiles=(0.1, 99.9))
    assert open_source(volume.model_copy(update={"image": made})).read_image(BoundingBox.from_shape(SHAPE)).max() == 255


def test_a_coarser_mask_masks_the_voxels_that_its_voxels_cover(tmp_path: Path) -> None:
    """A mask at a coarser mip gives the patches, in training and validation, of the same mask voxel by voxel."""
    coarse = (RNG.random((6, 4, 10)) < 0.8).astype(np.uint8)
    fine = coarse.repeat(2, 0).repeat(4, 1).repeat(2, 2)
    volume = labelled(tmp_path, RNG.integers(0, 256, SHAPE).astype(np.uint8))
    masks = {
        "coarse": write_volume(tmp_path / "coarse.zarr", coarse, (16, 32, 16)),
        "fine": write_volume(tmp_path / "fine.zarr", fine),
    }
    both = [volume.model_copy(update={"mask": url}) for url in masks.values()]
    boxes = [BoundingBox((1, 3, 5), (8, 15, 18)), BoundingBox.from_shape(SHAPE)]
    for box in boxes:
        found = [open_source(each).read_mask(box) for each in both]
        assert (found[0] == fine[box.slices()]).all()
        assert (found[1] == fine[box.slices()]).all()
        assert (open_source(both[0]).hold(box).read_mask(box) == fine[box.slices()]).all()
    one, other = map(sampler, both)
    for number in range(5):
        for a, b in zip(one.draw(number), other.draw(number), strict=True):
            assert (a == b).all()
    watched = [ValidationPatches(open_source(each), one.config)[0] for each in both]
    assert all((a == b).all() for a, b in zip(*watched, strict=True))
    assert not watched[0][2].all()


def test_masks_that_do_not_fit_are_refused_as_in_a_run(tmp_path: Path) -> None:
    volume = labelled(tmp_path, RNG.integers(0, 256, SHAPE).astype(np.uint8))
    for name, shape, size, message in (
        ("between", (8, 8, 8), (12, 8, 8), "each side must be a whole number of the input's"),
        ("stated", SHAPE, (16, 16, 16), "has as many voxels as the input"),
        ("small", (6, 8, 8), (16, 16, 16), "it must cover all of it"),
        ("colours", (3, *SHAPE), (8, 8, 8), "has 3 channels.*#channel=0"),
    ):
        mask = write_volume(tmp_path / f"{name}.zarr", np.ones(shape, np.uint8), size)
        with pytest.raises(VolumeError, match=message):
            open_source(volume.model_copy(update={"mask": mask}))


def test_channels_that_the_network_does_not_take_are_refused_with_the_remedy(tmp_path: Path) -> None:
    colour = labelled(tmp_path / "colour", RNG.integers(0, 256, (3, *SHAPE)).astype(np.uint8))
    grey = labelled(tmp_path / "grey", RNG.integers(0, 256, SHAPE).astype(np.uint8))
    with pytest.raises(VolumeError, match=r"has 3 channels; .* takes images of 1: .*#channel=0.*in_channels 3"):
        open_source(colour)
    with pytest.raises(VolumeError, match=r"has 1 channel; .* takes images of 3: name an image in colours"):
        open_source(grey, 3)
    taken = open_source(colour.model_copy(update={"image": f"{colour.image}#channel=1"}))
    assert taken.read_image(BoundingBox.from_shape(SHAPE)).shape == SHAPE
    made_up = settings(tmp_path / "unused", architecture="gamma_net_2d", arguments=COLOUR, synthetic=Synthetic())
    grey_volumes = made_up.model_copy(update={"volumes": (), "validation": None})
    with pytest.raises(ConfigError, match=r"in_channels is 3 .* made-up tissue has 1 .*in_channels: 1"):
        open_sources(grey_volumes)


def colour_stack(folder: Path) -> tuple[str, str]:
    """Cubes that are seen in the green alone, as a PNG stack, and their labels."""
    image, labels = cubes((24, 32, 32))
    noise = RNG.integers(0, 256, (2, *image.shape)).astype(np.uint8)
    (folder / "stack").mkdir()
    for number, section in enumerate(np.stack([noise[0], image, noise[1]], -1)):
        Image.fromarray(section).save(folder / "stack" / f"{number}.png")
    return f"{folder}/stack#resolution=8,8,8", write_volume(folder / "labels.zarr", labels)


def test_a_network_is_trained_on_colour_and_run_on_it(tmp_path: Path) -> None:
    """A PNG stack in colours goes through training, card and run; no byte depends on the chunks."""
    image, labels = colour_stack(tmp_path)
    part = {"image": image, "labels": labels}
    config = settings(
        tmp_path / "model",
        architecture="gamma_net_2d",
        arguments=COLOUR,
        volumes=[LabelledVolume(**part, start=(0, 0, 0), stop=(16, 32, 32))],
        validation=LabelledVolume(**part, start=(16, 0, 0), stop=(24, 32, 32)),
    )
    assert preview(config).stat().st_size > 1000
    train(config)
    assert load_card(tmp_path / "model").image_channels == 3
    tables = {"input": {"image": image}, "inference": {"model": f"{tmp_path}/model"}}
    whole, parts = (
        run(write_run(tmp_path / name, **tables, chunk_shape=shape, storage_chunk_shape=[8, 16, 16]))
        for name, shape in (("whole", [24, 32, 32]), ("parts", [8, 16, 16]))
    )
    assert results(whole)["labels"] == results(parts)["labels"]
    assert results(whole)["affinities"] == results(parts)["affinities"]
    array = np.asarray(petaseg.open(image))
    predicted = petaseg.predict(array, f"{tmp_path}/model", resolution=(8, 8, 8))
    assert predicted.tobytes() == results(whole)["affinities"]
    with pytest.raises(ConfigError, match=r"the model takes \(c, z, y, x\) with 3 channels: its channels come last"):
        petaseg.predict(np.moveaxis(array, 0, -1), f"{tmp_path}/model", resolution=(8, 8, 8))
    assert draw_run(whole, tmp_path / "picture.png").stat().st_size > 1000
    one = write_run(tmp_path / "one", **{**tables, "input": {"image": f"{image}&channel=1"}})
    with pytest.raises(VolumeError, match=r"has 1 channel; model mini takes images of 3"):
        Run.open(one)
    grey = write_run(tmp_path / "grey", input={"image": image}, inference={"model": "fib25-tiny"})
    with pytest.raises(VolumeError, match=r"has 3 channels; model fib25-tiny takes images of 1: .*#channel=0"):
        Run.open(grey)
    assert json.loads((tmp_path / "model" / "log.jsonl").read_text().splitlines()[-1])["step"] == config.steps
