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


class TestWithGRUs(ModelContract):
    architecture = "gamma_net_2d"
    arguments: ClassVar = {**MINI, "cell": "gru"}
    patches = ((3, 8, 12), (2, 6, 4))
    refused = ((3, 8, 11),)


class TestWithLSTMs(ModelContract):
    architecture = "gamma_net_2d"
    arguments: ClassVar = {**MINI, "cell": "lstm", "norm": "rms", "skip": "all", "symmetry": "adjoint"}
    patches = ((3, 8, 12), (2, 6, 4))
    refused = ((3, 8, 11),)


class TestFeedforward(ModelContract):
    architecture = "gamma_net_2d"
    arguments: ClassVar = {**MINI, "cell": "feedforward", "steps": 1, "memory": "none"}
    patches = ((3, 8, 12), (2, 6, 4))
    refused = ((3, 8, 11),)


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
    """Each reading of the paper has its own count of parameters, and '450K' has the number that the paper gives."""
    network = GammaNet2D(**READINGS[reading])
    assert free_parameters(network) == free
    assert sum(parameter.numel() for parameter in network.parameters()) == stored


def test_a_readout_as_printed_would_have_more():
    """The 24 outputs that the table prints (a slip for one) raise its free parameters to 442,656."""
    assert free_parameters(GammaNet2D(**READINGS["table"], out_channels=24)) == 442_656


def test_one_step_is_what_the_table_says():
    """One step on two levels equals the table's equations, written out here with the cells alone."""
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
    """No level, the first one or all send H + X up, as ``skip`` says, and each choice gives other logits."""
    outputs = []
    for skip in ("none", "first", "all"):
        network = seeded("gamma_net_2d", {**MINI, "widths": (3, 4, 5), "horizontal": (3, 3, 3), "skip": skip})
        outputs.append(network(images(1, (1, 8, 12))))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


def test_sections_of_a_volume_do_not_meet():
    """Each section of a volume gives what it gives alone."""
    network, volume = seeded("gamma_net_2d", MINI), images(1, (3, 8, 12))
    with torch.inference_mode():
        whole = network(volume)
        alone = torch.stack([network(volume[:, :, z]) for z in range(3)], dim=2)
    torch.testing.assert_close(whole, alone)


def test_every_step_can_be_read():
    """The network can return the logits of every step, and step t of a longer run is the end of a shorter one."""
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
    """The transposed convolution doubles both sides of an image exactly, for odd kernels too."""
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
    """Arguments that make no network are refused when it is built, and the message says what is wrong."""
    with pytest.raises(ModelError, match=message):
        build("gamma_net_2d", {**MINI, **wrong})


def test_refuses_images_without_batch_or_channels():
    """An image without axes for batch and channels is refused."""
    with pytest.raises(ModelError, match="takes 4 axes"):
        seeded("gamma_net_2d", MINI)(torch.rand(8, 12))


@pytest.mark.parametrize(("cell", "share"), [("gru", 0.05), ("lstm", 0.11), ("feedforward", 0.05)])
def test_controls_have_nearly_as_many_parameters(cell, share):
    """With GRU, LSTM or feedforward units in the fGRU's place, the paper's network has nearly as many parameters."""
    found = free_parameters(GammaNet2D(cell=cell, steps=1))
    assert abs(found / 449_602 - 1) < share


def test_a_feedforward_network_has_one_step():
    """Feedforward units with several steps are refused, and unknown units too."""
    with pytest.raises(ModelError, match="say steps: 1"):
        GammaNet2D(cell="feedforward", steps=8)
    with pytest.raises(ModelError, match="'fgru', 'gru', 'lstm' or 'feedforward'"):
        GammaNet2D(cell="rnn")


def test_the_memory_of_an_lstm_goes_through_the_steps_unseen():
    """An LSTM's memory is a part of the level's state, and neither the levels beside it nor the readout see it."""
    torch.manual_seed(0)
    network = GammaNet2D(**MINI, cell="lstm")
    x = network.drive(torch.rand(1, 1, 8, 8))
    with torch.no_grad():
        state = network.step(x, ())
        assert [h.shape[1] for h in state[:2]] == [8, 12]
        h, c = state[0].chunk(2, dim=1)
        other = torch.cat([h, c + 1], dim=1)
        assert torch.equal(network.read(state, x, x), network.read((other, *state[1:]), x, x))
        assert not torch.equal(network.step(x, state)[0], network.step(x, (other, *state[1:]))[0])
