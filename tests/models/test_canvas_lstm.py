from typing import ClassVar

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError, ModelError
from pipeline.models.canvas_lstm import CanvasHead, CanvasLSTM
from pipeline.models.facts import parameters
from pipeline.training.learning import check_rule
from pipeline.training.rules import (
    Backpropagation,
    CheckpointedBackpropagation,
    Recurrent,
    TruncatedBackpropagation,
)
from tests.contracts.model import BatchNormContract, images, seeded

MINI = {
    "embedding_size": 4,
    "widths": (8, 12, 16, 20),
    "depths": (1, 1, 1, 2),
    "dilations": (2, 4),
    "hidden": (6, 5),
    "steps": 3,
    "out_channels": 3,
}


class TestCanvas(BatchNormContract):
    architecture = "canvas_lstm"
    arguments: ClassVar = MINI
    patches = ((2, 40, 70), (1, 33, 64))


@pytest.mark.parametrize(("classes", "count"), [(21, 6_055_736), (19, 6_053_360)])
def test_parameters_of_the_head_are_those_of_the_paper(classes, count):
    """The head has the paper's parameter counts, which allow one bias for each gate and no peepholes."""
    with torch.device("meta"):
        assert parameters(CanvasHead(2048, (512, 256), classes)) == count


def test_the_features_have_the_size_of_the_paper():
    """Features have an output stride of 16, as in the paper: 513 x 513 -> 33 x 33, 1025 x 2049 -> 65 x 129."""
    with torch.device("meta"):
        network = CanvasLSTM(in_channels=3)
    for image, size in (((513, 513), (33, 33)), ((1025, 2049), (65, 129))):
        assert network.drive(torch.empty(1, 3, *image, device="meta")).shape == (1, 2048, *size)


def test_the_canvas_lies_on_the_image():
    """A pixel of the canvas is painted around the pixel of the image that its feature sees: 16 of 513 for the first."""
    network, canvas = CanvasLSTM(**MINI), torch.zeros(1, 3, 33, 33)
    canvas[0, 0, :, 1] = 1
    row = network.read((canvas,), canvas, torch.empty(1, 1, 513, 513))[0, 0, 0]
    assert row.argmax().item() == 16
    assert row[:33].tolist() == pytest.approx([1 - abs(x - 16) / 16 for x in range(33)], abs=1e-5)


def head(scale=1.0, dtype=torch.float32):
    torch.manual_seed(0)
    found = CanvasHead(7, (6, 5), 4).to(dtype)
    for parameter in found.parameters():
        parameter.data.mul_(scale)
    return found


def canvases(found, features, steps):
    """Return the canvas after each step."""
    with torch.inference_mode():
        return [state[-1] for state in Backpropagation()(found, features, steps, keep=True).states]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_logits_are_less_than_the_number_of_steps(steps):
    """After T steps |canvas| < T, however large the weights are, since each step adds an h with |h| < 1.

    The test uses float64: the bound would be reached where tanh and sigmoid round to 1.
    """
    features = torch.randn(2, 7, 5, 6, generator=torch.Generator().manual_seed(1)).double()
    painted = canvases(head(scale=10.0, dtype=torch.float64), features, steps)
    for step, canvas in enumerate(painted, start=1):
        assert canvas.abs().max() < step
    assert painted[-1].abs().max() > 0.6 * steps


def test_pixels_may_change_places_before_or_after_the_head():
    """With kernel 1 the head treats each pixel by itself, so a permutation of pixels commutes with it."""
    features = torch.randn(2, 7, 4, 6, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))

    def mixed(r):
        return r.flatten(2)[:, :, order].reshape(r.shape)

    torch.testing.assert_close(canvases(head(), mixed(features), 3)[-1], mixed(canvases(head(), features, 3)[-1]))


def test_each_step_adds_the_state_of_the_last_lstm():
    """Each step adds the h of the last LSTM to the canvas."""
    found, features = head(), torch.randn(1, 7, 2, 2)
    with torch.inference_mode():
        states = [cell.initial(features) for cell in found.cells]
        canvas = torch.zeros(1, 4, 2, 2)
        for expected in canvases(found, features, 3):
            x = features
            for i, cell in enumerate(found.cells):
                states[i] = cell(x, states[i])
                x = states[i][0]
            canvas = canvas + x
            assert torch.equal(expected, canvas)


@pytest.mark.parametrize("rule", [CheckpointedBackpropagation(), TruncatedBackpropagation(window=3)])
def test_it_is_trained_by_the_rules_of_recurrences(rule):
    """Checkpointed and truncated back-propagation (with a window of all steps) give the plain one's gradients."""
    network, image = seeded("canvas_lstm", MINI), images(1, (1, 40, 50))[:, :, 0]
    network(image).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    x = network.drive(image)
    network.read(rule(network, x, network.steps).state, x, image).square().sum().backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_recurrent_back_propagation_is_refused():
    """Recurrent back-propagation is refused, since the canvas grows with every step and has no steady state."""
    with pytest.raises(ConfigError, match="grows with every step"):
        check_rule(seeded("canvas_lstm", MINI), Recurrent(), "canvas_lstm", (1, 32, 32))


def test_every_step_can_be_shown():
    """The network can return the logits of every step, of which the last are its output."""
    network, image = seeded("canvas_lstm", MINI), images(1, (2, 40, 50))
    with torch.inference_mode():
        steps = network(image, every_step=True)
        assert [tuple(step.shape) for step in steps] == [(1, 3, 2, 40, 50)] * 3
        assert torch.equal(steps[-1], network(image))
        torch.testing.assert_close(network(image[:, :, 0]), steps[-1][:, :, 0])


def test_initial_weights_are_normal_with_glorots_deviation():
    """Initial weights have the standard deviation of Glorot's rule, and biases begin at zero."""
    torch.manual_seed(0)
    layer = CanvasHead(600, (300,), 5).cells[0].from_input
    wanted = (2 / (600 + 4 * 300)) ** 0.5
    assert layer.weight.std().item() == pytest.approx(wanted, rel=0.01)
    assert not layer.bias.any()
    assert nn.init.calculate_gain("linear") == 1


def test_no_step_is_refused():
    """A network with zero steps is refused, since its canvas would stay empty."""
    with pytest.raises(ModelError, match="at least one"):
        CanvasLSTM(**{**MINI, "steps": 0})
