from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, ModelError, VolumeError
from pipeline.models.spec import ModelCard, build, load_card, load_model, save_model
from pipeline.synthetic.tissue import make_tissue
from pipeline.training.painted import closed, join, sections_config, stack_card
from pipeline.training.section_maps import MAPS
from pipeline.training.trainer import train
from tests.models.test_sections_to_volume import SMALL
from tests.runs import write_volume

NM = (40.0, 8.0, 8.0)
OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


@pytest.fixture(scope="module")
def tissue():
    return make_tissue((4, 96, 112), seed=2, resolution_nm=(40, 8, 8))


@pytest.fixture
def stored(tissue, tmp_path):
    """The stack, and labels of its sections 1 and 3."""
    painted = np.where((np.arange(4) % 2 == 1)[:, None, None], tissue.labels, 0)
    return (
        write_volume(tmp_path / "painted.zarr", painted, resolution_nm=NM),
        write_volume(tmp_path / "image.zarr", tissue.image, resolution_nm=NM),
    )


@pytest.fixture
def stack(tmp_path):
    """The card of a small network of stacks, with random weights."""
    arguments = SMALL["volume_arguments"] | {"out_channels": 3}
    torch.manual_seed(3)
    card = ModelCard(
        name="small-stack",
        architecture="plain_unet",
        arguments=arguments,
        patch_shape=(4, 32, 32),
        overlap=(1, 8, 8),
        offsets=OFFSETS,
        resolution_nm=NM,
        threshold=0.4,
    )
    save_model(tmp_path / "stack", build("plain_unet", arguments), card)
    return str(tmp_path / "stack")


def test_painted_sections_are_found_and_a_strip_of_the_last_one_is_held_back(stored, tmp_path):
    """All painted sections are trained on but for a strip of the last one; ``at`` chooses among them."""
    config = sections_config(*stored, str(tmp_path / "model"))
    assert [(part.start, part.stop) for part in config.volumes] == [((1, 0, 0), (2, 96, 112)), ((3, 0, 0), (4, 96, 84))]
    assert (config.validation.start, config.validation.stop) == ((3, 0, 84), (4, 96, 112))
    assert config.patch_shape == (1, 96, 80)
    assert [target.what for target in config.channels] == ["membranes", "shape_descriptors"]
    one = sections_config(*stored, str(tmp_path / "model"), at=[1], overrides=["steps=7"])
    assert [part.start for part in (*one.volumes, one.validation)] == [(1, 0, 0), (1, 0, 84)]
    assert one.steps == 7


def test_the_model_of_both_networks_is_the_second_of_the_first(stored, stack, tmp_path):
    """A training of two updates gives a card of both networks, and its logits are those of the one after the other."""
    output = str(tmp_path / "model")
    few = ["steps=2", "warmup_steps=1", "validate_every=2", "batch_size=1", "arguments.widths=[32,32,32,32]"]
    config = sections_config(*stored, output, overrides=few)
    train(config)
    card = join(config, output, stack)
    assert (card.architecture, card.resolution_nm, card.threshold) == ("sections_to_volume", NM, 0.4)
    assert (card.patch_shape, card.overlap, card.offsets) == ((4, 32, 32), (1, 8, 8), OFFSETS)
    image = torch.rand(1, 1, 4, 32, 32)
    first, second = (load_model(load_card(name)).module for name in (config.output, stack))
    with torch.inference_mode():
        assert torch.equal(load_model(card).module(image), second(first(image).sigmoid()))
    assert sections_config(*stored, output, overrides=few) == config
    assert join(config, output, stack).sha256 == card.sha256


def test_gaps_between_cells_close_and_wide_ones_stay_unknown():
    """0 in a gap between cells belongs to the nearest cell; a wide gap, and what is around all cells, stays 0."""
    labels = np.zeros((40, 60), np.int64)
    labels[8:32, 6:20], labels[8:32, 24:30], labels[8:32, 48:54] = 70, 50, 90
    found = closed(labels, 6)
    assert (found[10:30, 6:22] == 2).all()
    assert (found[10:30, 22:30] == 1).all()
    assert not found[:, 31:47].any()
    assert not found[:7].any()
    assert not found[:, :5].any()
    assert np.array_equal(closed(labels, 0) > 0, labels > 0)


def test_what_cannot_be_trained_on_is_refused(stored, stack, tissue, tmp_path):
    """Each message gives the value, the rule and the remedy, and comes before anything is written."""
    labels, image = stored
    output = str(tmp_path / "model")
    for at, words in (([0], "no label in all of the sections 0; paint"), ([9], "--at names section 9; .* 0 to 3")):
        with pytest.raises(ConfigError, match=words):
            sections_config(labels, image, output, at=at)
    with pytest.raises(ConfigError, match=r"output=elsewhere is given.*--output"):
        sections_config(labels, image, output, overrides=["output=elsewhere"])
    small, apart = np.zeros_like(tissue.labels), np.zeros_like(tissue.labels)
    small[1, :20, :20], apart[1, :70, 2:20], apart[1, :70, 60:80] = 3, 4, 5
    with pytest.raises(ConfigError, match=r"painted on \[20, 20\] voxels \(y, x\); at least 64 .*paint more"):
        sections_config(write_volume(tmp_path / "small.zarr", small, resolution_nm=NM), image, output)
    with pytest.raises(ConfigError, match=r"no two cells touch.*raise --gap"):
        sections_config(write_volume(tmp_path / "apart.zarr", apart, resolution_nm=NM), image, output)
    cubes = write_volume(tmp_path / "cubes.zarr", tissue.image)
    with pytest.raises(ConfigError, match=r"2 times as thick .*train in 3D"):
        sections_config(write_volume(tmp_path / "of-cubes.zarr", tissue.labels), cubes, output)
    floats = write_volume(tmp_path / "floats.zarr", tissue.labels.astype(np.float32), resolution_nm=NM)
    with pytest.raises(VolumeError, match=r"labels must be integers"):
        sections_config(floats, image, output)
    assert not Path(output).exists()
    with pytest.raises(ModelError, match=rf"reads {MAPS} maps.*reads 1 and has 3 offsets"):
        stack_card("identity")
    save_model(Path(output), load_model(load_card(stack)).module, load_card(stack))
    with pytest.raises(ConfigError, match=r"a model is there that no training on sections has written"):
        sections_config(labels, image, output)
