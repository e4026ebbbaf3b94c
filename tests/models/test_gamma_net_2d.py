from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.cells.symmetry import free_parameters
from pipeline.models.gamma_net_2d import READINGS, GammaNet2D, unpool
from pipeline.models.spec import build
from tests.contracts.model import ModelContract, images, seeded

MINI = {"widths": (4, 6), "horizontal": (5, 3), "steps": 3, "out_channels": 3}


class TestTheDefaultReading(ModelContract):
    architecture = "gamma_net_2d"
    arguments = MINI
    patches = ((3, 8, 12), (2, 6, 4))
    refused = ((3, 8, 11), (3, 7, 12))


class TestTheTableToTheLetter(ModelContract):
    architecture = "gamma_net_2d"
    arguments: ClassVar = {**READINGS["table"], **MINI, "norm": "rms", "symmetry": "adjoint", "skip": "all"}
    patches = ((2, 8, 12), (3, 4, 6))
    refused = ((2, 5, 12),)


class TestTheCodesKernels(ModelContract):
    architecture = "gamma_net_2d"
    arguments: ClassVar = {
        **MINI,
        **READINGS["code"],
        "widths": (3, 4, 5),
        "horizontal": (5, 3, 1),
        "variant": "tensorflow",
        "skip": "first",
    }
    patches = ((2, 16, 24), (1, 8, 16))
    refused = ((2, 18, 24),)


@pytest.mark.parametrize(
    ("reading", "free", "stored"),
    [
        ("450K", 449_602, 592_018),
        ("450K_without_table_norms", 449_330, 591_746),
        ("table", 428_833, 571_249),
        ("table_with_three_kernels", 441_961, 584_377),
        ("table_without_memory", 401_329, 543_745),
        ("code", 483_602, 626_018),
    ],
)
def test_each_reading_of_the_paper_has_its_count(reading, free, stored):
    """Would lose the reading that gives the paper's 450K, or the others that it was chosen from."""
    network = GammaNet2D(**READINGS[reading])
    assert free_parameters(network) == free
    assert sum(parameter.numel() for parameter in network.parameters()) == stored


def test_a_readout_as_printed_would_have_more():
    """Would miscount the table's slip: 24 outputs for one."""
    assert free_parameters(GammaNet2D(**READINGS["table"], out_channels=24)) == 442_656


def test_one_step_is_what_the_table_says():
    """Would break the order of things: written out for two levels, one step, from the cells alone."""
    torch.manual_seed(0)
    network = GammaNet2D(**{**READINGS["table"], **MINI, "steps": 1}).double()
    image = torch.rand(1, 1, 8, 12, dtype=torch.float64)
    x = F.elu(network.stem[2](F.elu(network.stem[0](image))))
    h0 = network.horizontal[0](x, F.relu(x))
    sent, _ = network.down[0](F.max_pool2d(h0, 2), None)
    h1 = network.horizontal[1](sent, F.relu(sent))
    down, _ = network.up[0](h1, None)
    h0 = network.top_down[0](h0, network.up_norms[0](down)) + h0
    torch.testing.assert_close(network(image), network.readout(h0))


def test_the_image_can_be_sent_up_too():
    """Would break the option: nothing, level 0, or all levels send H + X."""
    outputs = []
    for skip in ("none", "first", "all"):
        network = seeded("gamma_net_2d", {**MINI, "widths": (3, 4, 5), "horizontal": (3, 3, 3), "skip": skip})
        outputs.append(network(images(1, (1, 8, 12))))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


def test_sections_of_a_volume_do_not_meet():
    """Would break 2D: each section of a volume must give what it gives alone."""
    network, volume = seeded("gamma_net_2d", MINI), images(1, (3, 8, 12))
    with torch.inference_mode():
        whole = network(volume)
        alone = torch.stack([network(volume[:, :, z]) for z in range(3)], dim=2)
    torch.testing.assert_close(whole, alone)


def test_every_step_can_be_read():
    """Would break auxiliary losses: step t of a longer run is the end of a shorter one."""
    network, image = seeded("gamma_net_2d", MINI), images(1, (2, 8, 12))
    with torch.inference_mode():
        every = network(image, every_step=True)
        assert [tuple(output.shape) for output in every] == [(1, 3, 2, 8, 12)] * 3
        assert torch.equal(every[-1], network(image))
        short = seeded("gamma_net_2d", {**MINI, "steps": 2})
        short.load_state_dict(network.state_dict())
        assert torch.equal(every[1], short(image))


@pytest.mark.parametrize("side", [2, 3, 4])
def test_the_transposed_convolution_doubles(side):
    """Would lose a row at the border of odd kernels."""
    assert unpool(2, 3, side, 3, None)(torch.rand(1, 2, 5, 6)).shape == (1, 3, 10, 12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"horizontal": (3,)}, "2 widths, 1 horizontal"),
        ({"steps": 0}, "at least one step"),
        ({"norm": "batch"}, "'channel', 'instance' or 'rms'"),
        ({"memory": "lstm"}, "'paper', 'code' or 'none'"),
        ({"up_norm": "before"}, "'between', 'after' or 'none'"),
        ({"skip": "last"}, "'none', 'first' or 'all'"),
        ({"variant": "keras"}, "variant"),
        ({"transposed": 5}, "2, 3 and 4"),
        ({"horizontal": (4, 3)}, "odd sides"),
        ({"depth": 3}, "depth"),
    ],
)
def test_refuses_arguments_that_make_no_network(wrong, message):
    """Would break a card only when its network is run, with an error of the library underneath."""
    with pytest.raises(ModelError, match=message):
        build("gamma_net_2d", {**MINI, **wrong})


def test_refuses_images_without_batch_or_channels():
    """Would take an axis for another."""
    with pytest.raises(ModelError, match="takes 4 axes"):
        seeded("gamma_net_2d", MINI)(torch.rand(8, 12))
