"""Convolutional long short-term memory (Shi et al. 2015) without peepholes, with an offset of the forget gate.

i = s(W_xi * x + W_hi * h + b_i)
f = s(W_xf * x + W_hf * h + b_f + offset)
g = tanh(W_xg * x + W_hg * h + b_g)
o = s(W_xo * x + W_ho * h + b_o)
c' = f . c + i . g
h' = o . tanh(c')
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.models.cells.blocks import one_of, same_conv

BIASES = ("input", "both", "none")


class ConvLSTM(nn.Module):
    """The unit; gates are stacked in the order i, f, g, o. The length of ``kernel`` gives the dimension.

    forget_offset: a constant added to b_f, so that memories are kept at first.
    bias: on the convolutions of x alone (enough, and what published codes do), of x and h, or nowhere.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: Sequence[int], forget_offset: float = 1.0, bias: str = "input"
    ) -> None:
        super().__init__()
        one_of("bias", bias, BIASES)
        self.channels, self.forget_offset = channels, forget_offset
        self.from_input = same_conv(inputs, 4 * channels, kernel, bias=bias != "none")  # W_x., b
        self.from_state = same_conv(channels, 4 * channels, kernel, bias=bias == "both")  # W_h.

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """h and c before the first step: zeros."""
        nothing = x.new_zeros(len(x), self.channels, *x.shape[2:])
        return nothing, nothing.clone()

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step of the recurrence."""
        return self(x, state)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Input x (b, inputs, n) and state (h, c) -> (h', c'), each (b, c, n)."""
        h, c = state
        i, f, g, o = (self.from_input(x) + self.from_state(h)).chunk(4, dim=1)  # (b, 4 c, n)
        c = torch.sigmoid(f + self.forget_offset) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
