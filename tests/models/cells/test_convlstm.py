import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models import reference
from pipeline.models.cells.convlstm import ConvLSTM
from tests.models.cells.units import ByHand, sigmoid, states

KERNELS = [(3, 5), (3, 1, 5)]


def by_the_paper(unit, x, h, c):
    """Compute the usual equations, with the forget offset; gates are stacked i, f, g, o."""
    p = ByHand(unit)
    i, f, g, o = np.split(p.convolved(x, "from_input.weight") + p.convolved(h, "from_state.weight"), 4, axis=1)
    c = sigmoid(f + unit.forget_offset) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bias", ["input", "both", "none"])
def test_a_cell_computes_its_equations(kernel, bias):
    """A ConvLSTM computes its equations, which are computed here again with scipy, with any choice of biases."""
    unit = ConvLSTM(2, 3, kernel, forget_offset=1.0, bias=bias).double()
    (x,), (h, c) = states(len(kernel), channels=2, count=1), states(len(kernel), channels=3, seed=1)
    for found, wanted in zip(unit(x, (h, c)), by_the_paper(unit, x.numpy(), h.numpy(), c.numpy()), strict=True):
        np.testing.assert_allclose(found.detach(), wanted, atol=1e-12)


def test_without_a_kernel_it_is_the_lstm_of_torch():
    """With kernel 1 each pixel is an LSTM by itself and equals torch's LSTMCell, gate by gate."""
    unit, cell = ConvLSTM(2, 3, (1, 1), forget_offset=0.0, bias="both"), torch.nn.LSTMCell(2, 3)
    with torch.no_grad():
        for ours, theirs in ((unit.from_input, "ih"), (unit.from_state, "hh")):
            ours.weight.copy_(getattr(cell, f"weight_{theirs}")[:, :, None, None])
            ours.bias.copy_(getattr(cell, f"bias_{theirs}"))
    x, h, c = torch.randn(4, 2), torch.randn(4, 3), torch.randn(4, 3)
    found = unit(x[..., None, None], (h[..., None, None], c[..., None, None]))
    for ours, theirs in zip(found, cell(x, (h, c)), strict=True):
        torch.testing.assert_close(ours[..., 0, 0], theirs)


def test_a_kernel_of_one_commutes_with_permutations_of_pixels():
    """With kernel 1, pixels are independent: a permutation of the drive permutes the states in the same way."""
    unit, (x,) = ConvLSTM(3, 3, (1, 1)).double(), states(2, count=1)
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))

    def permuted(r):
        return r.flatten(2)[..., order].unflatten(2, r.shape[2:])

    state, other = unit.initial(x), unit.initial(x)
    for _ in range(3):
        state, other = unit.step(x, state), unit.step(permuted(x), other)
    torch.testing.assert_close(permuted(state[0]), other[0])
    assert state[0].abs().max() < 1


def test_the_forget_offset_is_a_bias_of_that_gate():
    """The forget offset is a bias of the forget gate and of no other gate."""
    x, h, c = states(2, count=3)
    with_offset, with_bias = ConvLSTM(3, 3, (3, 3), 1.0).double(), ConvLSTM(3, 3, (3, 3), 0.0).double()
    with_bias.load_state_dict(with_offset.state_dict())
    with torch.no_grad():
        with_bias.from_input.bias[3:6] += 1.0
    torch.testing.assert_close(with_offset(x, (h, c)), with_bias(x, (h, c)))


def test_weights_of_the_published_cell_are_stacked():
    """The eight convolutions of the published cell are stacked into our two with each gate in its place."""
    torch.manual_seed(0)
    theirs = {f"W{side}{gate}.weight": torch.randn(3, 3, 3, 3).double() for side in "xh" for gate in "ifco"}
    theirs |= {f"Wx{gate}.bias": torch.randn(3).double() for gate in "ifco"}
    unit = ConvLSTM(3, 3, (3, 3), forget_offset=0.0).double()
    unit.load_state_dict(reference.convlstm(theirs))
    x, h, c = states(2, count=3)

    def gate(name):
        inside = torch.nn.functional.conv2d(x, theirs[f"Wx{name}.weight"], theirs[f"Wx{name}.bias"], padding=1)
        return inside + torch.nn.functional.conv2d(h, theirs[f"Wh{name}.weight"], padding=1)

    after = gate("f").sigmoid() * c + gate("i").sigmoid() * gate("c").tanh()
    torch.testing.assert_close(unit(x, (h, c)), (gate("o").sigmoid() * after.tanh(), after))


@pytest.mark.parametrize(
    ("inputs", "channels", "count"), [(2048, 512, 5_244_928), (512, 256, 787_456), (256, 21, 23_352)]
)
def test_layers_of_the_canvas_network_have_their_parameters(inputs, channels, count):
    """Layers of the canvas network have the parameters of one bias for each gate and no peepholes."""
    with torch.device("meta"):
        unit = ConvLSTM(inputs, channels, (1, 1))
    assert sum(parameter.numel() for parameter in unit.parameters()) == count


def test_refuses_biases_that_do_not_exist():
    """A choice of biases that does not exist is refused."""
    with pytest.raises(ModelError, match="'input', 'both' or 'none'"):
        ConvLSTM(1, 1, (1, 1), bias="state")
