import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import Vec
from pipeline.training.config import TrainConfig
from pipeline.training.made_stacks import make_stack
from pipeline.training.section_maps import MAPS, map_targets, true_maps
from pipeline.training.sources import made_sources, open_sources
from tests.training.trainings import settings

SHAPE = Vec(4, 48, 56)


def test_a_stack_is_that_of_its_seed():
    """Equal seeds give equal maps and labels, other seeds others; maps have a channel each, and no voxel is unknown."""
    maps, labels = make_stack(SHAPE, 3)
    again, other = make_stack(SHAPE, 3), make_stack(SHAPE, 4)
    assert maps.shape == (MAPS, *SHAPE)
    assert maps.dtype == np.uint8
    assert labels.shape == SHAPE
    assert labels.all()
    assert np.array_equal(maps, again[0])
    assert np.array_equal(labels, again[1])
    assert not np.array_equal(maps, other[0])


def test_maps_say_more_of_their_labels_than_of_others():
    """Membranes of the maps are brighter where the labels have a border than elsewhere, in every section."""
    for seed in range(3):
        maps, labels = make_stack(SHAPE, seed)
        for z in range(SHAPE[0]):
            border = true_maps(labels[z])[0] > 0
            if border.any():
                assert maps[0, z][border].mean() > maps[0, z][~border].mean() + 50


def test_maps_are_defined_in_voxels():
    """The targets of the first network give the same maps for sections of any voxel size."""
    labels = np.repeat(np.repeat(np.arange(1, 13).reshape(3, 4), 9, 0), 7, 1)
    for width in (4.0, 10.0):
        found = [target.make(labels, (width, width))[0] for target in map_targets((40.0, width, width))]
        np.testing.assert_allclose(np.concatenate(found), true_maps(labels), atol=1e-6)


def test_a_training_on_stacks_has_images_of_seven_maps(tmp_path):
    """``synthetic: {what: section_maps}`` makes sources of seven channels, one more to validate on."""
    made = {"what": "section_maps", "volumes": 2, "shape": SHAPE, "seed": 5}
    network = {"architecture": "plain_unet", "arguments": {"in_channels": 7}}
    config = settings(tmp_path, synthetic=made, volumes=(), validation=None, **network, patch_shape=(4, 16, 16))
    sources, held_back = open_sources(config)
    assert [source.image.spec.channels for source in (*sources, held_back)] == [MAPS] * 3
    assert np.array_equal(held_back.image.read(held_back.box), make_stack(SHAPE, 7)[0])


def test_a_network_of_grey_images_is_refused():
    """The message names the channels that the network must take."""
    config = TrainConfig.model_validate({"output": "x", "name": "x", "synthetic": {"what": "section_maps"}})
    with pytest.raises(ConfigError, match=r"in_channels is 1 .* stacks of maps have 7 .*write in_channels: 7"):
        made_sources(config.synthetic, 1, "plain_unet")
