from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.inference.options import PredictOptions
from pipeline.inference.runtime import forward_state
from pipeline.models.facts import parameters
from pipeline.models.folding import folded
from pipeline.models.plain_gamma import SIZES, PlainGamma
from tests.contracts.model import BatchNormContract, images, seeded
from tests.models.plain import CUBIC, THICK, trained


class TestThickSections(BatchNormContract):
    architecture = "plain_gamma"
    arguments: ClassVar = {**THICK, "steps": 3}
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8), (3, 8, 7))


class TestCubicVoxels(BatchNormContract):
    architecture = "plain_gamma"
    arguments: ClassVar = {**CUBIC, "steps": 2}
    patches = ((4, 8, 12), (8, 4, 8))
    refused = ((3, 8, 8), (4, 6, 8))


def test_two_steps_are_what_the_file_says():
    """Two steps on two levels equal the equations in the module's docstring, written out here with the parts alone."""
    network = trained("plain_gamma", {**THICK, "steps": 2}).double()
    image = torch.rand(1, 1, 3, 8, 12, dtype=torch.float64)
    x = network.drive(image)
    h0, h1 = x, None
    for _ in range(2):
        h0 = network.horizontal[0](x, h0)
        drive = F.relu(network.down[0](F.max_pool3d(h0 + x, (1, 2, 2))))
        h1 = network.horizontal[1](drive, drive if h1 is None else h1)
        h0 = (h0 + network.top_down[0](h0, F.relu(network.up[0](h1)))) / 2
    torch.testing.assert_close(network(image), network.read((h0, h1), x, image))


def test_a_cell_is_what_the_file_says():
    """A cell equals the two lines of the module's docstring, with all constants other than at the start."""
    cell = trained("plain_gamma", THICK).double().horizontal[0]
    for parameter in cell._constants():
        nn.init.uniform_(parameter, -1, 1)
    x, h = torch.rand(2, 1, 32, 3, 4, 6, dtype=torch.float64)
    alpha, mu, kappa, omega = (parameter.view(1, -1, 1, 1, 1) for parameter in cell._constants())
    inhibition = cell.inhibition(h * torch.sigmoid(cell.inhibition_gate(h)))
    z = F.relu(x - F.relu((alpha * h + mu) * inhibition))
    c, g = cell.excitation(z), torch.sigmoid(cell.excitation_gate(z))
    excited = F.relu(kappa * (c + z) + omega * c * z).clamp(max=6)
    torch.testing.assert_close(cell(x, h), (1 - g) * h + g * excited)


def test_states_stay_bounded_over_many_steps():
    """A hundred steps with weights that excite ten times too much leave a state of at most 6."""
    cell = trained("plain_gamma", THICK).horizontal[0]
    nn.init.constant_(cell.kappa, 10)
    nn.init.constant_(cell.omega, 10)
    x = torch.rand(1, 32, 3, 4, 6)
    h = x
    with torch.no_grad():
        for _ in range(100):
            h = cell(x, h)
    assert 1 < h.max() <= 6


@pytest.mark.parametrize("size", ["tiny", "tiny_thick"])
def test_channels_stay_last_from_the_first_convolution_to_the_last(size):
    """As inference runs it, every convolution gets its input with the channels last in memory."""
    network, seen = folded(PlainGamma(**SIZES[size]).eval()), set()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_pre_hook(
                lambda _, given, name=name: seen.add(
                    (name, given[0].is_contiguous(memory_format=torch.channels_last_3d))
                )
            )
    with forward_state(PredictOptions(device="cpu")):
        network(images(1, tuple(2 * side for side in network.multiple)))
    assert len(seen) > 30
    assert all(last for _, last in seen), [name for name, last in seen if not last]


@pytest.mark.parametrize("steps", [3, 12])
def test_the_scale_of_the_state_does_not_grow_with_the_steps(steps):
    """With the weights of the start, the state stays within twice the drive over any number of steps."""
    network = seeded("plain_gamma", {**CUBIC, "steps": steps})
    with torch.inference_mode():
        x = network.drive(images(1, (8, 16, 16)))
        state = network.initial(x)
        for _ in range(steps):
            state = network.step(x, state)
    assert state[0].abs().max() < 2 * x.abs().max()


def test_the_tiny_size_has_these_parameters():
    """The parameters of ``tiny`` with nine outputs are those of the widths 32, 64, 128, 128."""
    with torch.device("meta"):
        assert parameters(PlainGamma(**SIZES["tiny"], out_channels=9)) == 3_238_632


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"widths": (24, 64)}, "24 is no multiple of 32"), ({"steps": 0}, "steps is 0"), ({"pools": ()}, "0 pools")],
)
def test_arguments_that_do_not_fit_are_refused(wrong, message):
    """Widths that are no multiples of 32, no step, and lists of unequal lengths are refused."""
    with pytest.raises(ModelError, match=message):
        PlainGamma(**{**CUBIC, **wrong})
