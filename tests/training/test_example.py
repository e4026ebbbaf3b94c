import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.config.reading import load_config
from pipeline.errors import ConfigError, VolumeError
from pipeline.training.config import TrainConfig
from pipeline.training.example import example
from pipeline.training.module import TrainingModule
from tests.runs import write_volume
from workflows.app import app


def volumes(folder, shape, resolution_nm=(8, 8, 8), labels_shape=None):
    """An image and its labels on disk; the labels may cover less."""
    inner = labels_shape or shape
    write_volume(folder / "image.zarr", np.zeros(shape, np.uint8), resolution_nm=resolution_nm)
    write_volume(folder / "labels.zarr", np.ones(inner, np.uint32), resolution_nm=resolution_nm)
    return str(folder / "image.zarr"), str(folder / "labels.zarr")


def parsed(folder, *args, **kwargs):
    return TrainConfig.model_validate(yaml.safe_load(example(*volumes(folder, *args, **kwargs))), strict=False)


@pytest.mark.parametrize(
    ("shape", "resolution_nm", "patch", "split"),
    [
        ((96, 80, 70), (8, 8, 8), (64, 64, 64), 80),
        ((40, 64, 48), (8, 8, 8), (16, 64, 48), 24),
        ((200, 64, 64), (8, 8, 8), (64, 64, 64), 175),
        ((20, 192, 170), (40, 4, 4), (15, 160, 160), 15),
    ],
)
def test_parts_and_patches_fit_the_volume(tmp_path, shape, resolution_nm, patch, split):
    """The written file has parts and a patch shape that fit the volume, and the network accepts it unchanged."""
    config = parsed(tmp_path, shape, resolution_nm)
    assert config.patch_shape == patch
    assert config.volumes[0].stop == (split, *shape[1:])
    assert (config.validation.start, config.validation.stop) == ((split, 0, 0), shape)
    TrainingModule(config)  # checks everything that is checked before the first step


def test_thick_sections_have_short_offsets_along_z(tmp_path):
    """For thick sections, the file has short offsets along z, and the network and augmentation of Lee et al."""
    config = parsed(tmp_path, (20, 192, 192), (40, 4, 4))
    assert min(z for z, _, _ in config.offsets) == -3
    assert config.arguments == "lee"
    assert config.augmentation.misalignment_voxels == 17


@pytest.mark.parametrize("resolution_nm", [(8, 8, 8), (40, 4, 4)])
def test_an_image_in_colours_gets_a_network_that_takes_it(tmp_path, resolution_nm):
    """The arguments are written out with `in_channels: 3`, and every check of a training passes."""
    image = write_volume(tmp_path / "image.zarr", np.zeros((3, 64, 176, 176), np.uint8), resolution_nm=resolution_nm)
    labels = write_volume(tmp_path / "labels.zarr", np.ones((64, 176, 176), np.uint32), resolution_nm=resolution_nm)
    config = TrainConfig.model_validate(yaml.safe_load(example(image, labels)), strict=False)
    assert config.image_channels == 3
    assert TrainingModule(config).network.image_channels == 3


def test_what_has_no_labels_is_left_out(tmp_path):
    config = parsed(tmp_path, (96, 80, 70), labels_shape=(64, 48, 48))
    assert config.validation.stop == (64, 48, 48)


def test_volumes_that_cannot_be_trained_on_are_refused(tmp_path):
    """A volume that is smaller than any patch, or whose image is not uint8, is refused."""
    with pytest.raises(ConfigError, match=r"share \[12, 64, 64\] voxels.*label more"):
        example(*volumes(tmp_path, (12, 64, 64)))
    write_volume(tmp_path / "float.zarr", np.zeros((64, 64, 64), np.float32))
    with pytest.raises(VolumeError, match="must be uint8"):
        example(str(tmp_path / "float.zarr"), str(tmp_path / "float.zarr"))


def test_the_command_writes_a_file_that_trains(tmp_path, monkeypatch):
    """`petaseg init` writes a file that `petaseg train --preview` accepts, and never overwrites it."""
    monkeypatch.chdir(tmp_path)
    image, labels = volumes(tmp_path, (40, 32, 32))
    arguments = ["init", "train.yaml", "--image", image, "--labels", labels]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "next: petaseg train train.yaml --preview" in done.output
    assert (tmp_path / "train.schema.json").exists()
    assert load_config("train.yaml", (), TrainConfig).architecture == "residual_unet"
    looked = CliRunner().invoke(app, ["train", "train.yaml", "--preview"])
    assert looked.exit_code == 0, looked.output
    assert (tmp_path / "models" / "first" / "preview.png").exists()
    assert isinstance(CliRunner().invoke(app, arguments).exception, ConfigError), "it is there already"
