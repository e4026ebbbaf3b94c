"""The GRU, LSTM and feedforward units that stand in the place of an fGRU compute their equations."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.models.cells.controls import CONTROLS


def unit(name):
    """Return a unit of three channels whose norms have a gain of 1, and X and H."""
    torch.manual_seed(0)
    cell = CONTROLS[name](3, (3, 3), "channel", steps=8)
    for norm in cell.norms:
        torch.nn.init.ones_(norm.gain)
    return cell, torch.randn(2, 3, 5, 4), torch.rand(2, 3, 5, 4)


def test_the_gru_takes_a_share_of_its_candidate():
    """H' = (1 - G) H + G tanh(W_X X + W_H (R H)), with R and G from one pixel of X and H."""
    cell, x, h = unit("gru")
    r, g = cell.opened(x, h).chunk(2, dim=1)
    pre = cell.gate_norm(cell.from_drive(x) + cell.from_state(h)) + cell.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(torch.cat([r, g], 1), torch.sigmoid(pre))
    candidate = torch.tanh(cell.norms[0](cell.first(x)) + cell.norms[1](cell.second(r * h)))
    torch.testing.assert_close(cell(x, h), h + g * (candidate - h))


def test_the_lstm_keeps_its_memory_where_the_forget_gate_is_open():
    """With an open forget gate and a closed input gate the memory stays, and H' is the output gate times its tanh."""
    cell, x, h = unit("lstm")
    with torch.no_grad():
        cell.bias.copy_(torch.tensor([-1e4] * 3 + [1e4] * 3 + [0.0] * 3))
    c = torch.randn_like(h)
    new, kept = cell(x, torch.cat([h, c], 1)).chunk(2, dim=1)
    torch.testing.assert_close(kept, c)
    torch.testing.assert_close(new, cell.opened(x, h)[:, 6:] * torch.tanh(c))
    lower = torch.cat([x, c], 1)
    torch.testing.assert_close(cell.between(lower, h), cell(x, torch.cat([h, c], 1)))


def test_the_feedforward_unit_is_two_convolutions_around_a_shortcut():
    """With zero kernels the feedforward unit is the rectified sum of X and H, each through its matrix."""
    cell, x, h = unit("feedforward")
    with torch.no_grad():
        cell.second.free.zero_()
    torch.testing.assert_close(cell(x, h), F.relu(cell.from_drive(x) + cell.from_state(h)))
    assert cell.bias is None


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_gates_begin_slow(name):
    """The first biases let a state last: the update or input gate begins at most half open."""
    cell, _, _ = unit(name)
    first = cell.bias.chunk(cell.gates)
    fast = first[1] if name == "gru" else first[0]
    assert (fast <= 0).all()
    assert torch.equal(first[0] if name == "gru" else first[1], -fast)
