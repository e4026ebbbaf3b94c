"""Units that stand in the place of a feedback gated recurrent unit, as controls: GRU, LSTM and feedforward.

Each has what an ``FGRU`` has: two convolutions of the same side c -> c, symmetric in the same way, and gates of one
pixel; each norm has a gain of 0.1 as there. So their parameters are nearly equal, and what differs is the circuit. With
* a convolution, . the elementwise product, s the sigmoid, N a norm, and W of the unit's side, U and V of one pixel:

    GRU           R, G = s(N(U * X + V * H) + b) of each
                  H' = (1 - G) . H + G . tanh(N(W_X * X) + N(W_H * (R . H)))
    LSTM          I, F, O = s(N(U * X + V * H) + b) of each;   C' = F . C + I . tanh(N(W_X * X) + N(W_H * H))
                  H' = O . tanh(C')
    feedforward   A = U * X + V * H;   H' = relu(A + N(W_2 * relu(N(W_1 * A))))

X and H are those of the fGRU: within a level the drive and the level's state, between levels the lower state and the
input from above. The state of a level with LSTMs is H and C side by side, (b, 2 c, n). A feedforward network has one
step, in which H within a level is the drive again.

Shapes: b = batch, c = channels, n = voxels of any dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.cells.blocks import Kernel, Norm, chronos, per_channel, point_conv
from pipeline.models.cells.symmetry import SymmetricConv


class Control(nn.Module):
    """The layers of all three; subclasses name their gates of one pixel."""

    gates: int
    """The number of gates."""
    remembers = False
    """Whether the state of a level holds a memory beside H."""

    def __init__(
        self, channels: int, kernel: Kernel, norm: str = "instance", symmetry: str = "channel", steps: int = 8
    ):
        super().__init__()
        self.channels, outside, dimension = channels, max(self.gates, 1) * channels, len(kernel)
        self.from_drive = point_conv(channels, outside, dimension, bias=False)  # U
        self.from_state = point_conv(channels, outside, dimension, bias=False)  # V
        self.first = SymmetricConv(channels, kernel, symmetry)  # W_X, W_1
        self.second = SymmetricConv(channels, kernel, symmetry)  # W_H, W_2
        self.norms = nn.ModuleList(Norm(width, norm, gain=0.1) for width in (channels, channels))
        self.gate_norm = Norm(outside, norm, gain=0.1) if self.gates else nn.Identity()
        self.bias = nn.Parameter(self._bias(chronos(channels, steps))) if self.gates else None  # b

    def _bias(self, slow: Tensor) -> Tensor:
        """First biases of the gates, (gates c,), from log U(1, T - 1)."""
        raise NotImplementedError

    def initial(self, x: Tensor) -> Tensor:
        """The state before the first step: the rectified drive, as in the fGRU."""
        return F.relu(x)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One step of the recurrence."""
        return self(x, state)  # type: ignore[no-any-return]

    def between(self, lower: Tensor, top: Tensor) -> Tensor:
        """State of the lower level and input from above -> what is added to the lower level's H."""
        return self(lower, top)  # type: ignore[no-any-return]

    def opened(self, x: Tensor, h: Tensor) -> Tensor:
        """All gates: (b, gates c, n)."""
        pre = self.gate_norm(self.from_drive(x) + self.from_state(h))
        return torch.sigmoid(pre + per_channel(self.bias, pre))  # type: ignore[arg-type]


class GRU(Control):
    """The gated recurrent unit of Cho et al. 2014."""

    gates = 2

    def _bias(self, slow: Tensor) -> Tensor:
        return torch.cat([slow, -slow])  # of R and G: the state starts slow

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Drive X and state H -> H', all (b, c, n)."""
        r, g = self.opened(x, h).chunk(2, dim=1)
        candidate = torch.tanh(self.norms[0](self.first(x)) + self.norms[1](self.second(r * h)))
        return (1 - g) * h + g * candidate


class LSTM(Control):
    """The unit of Hochreiter and Schmidhuber 1997 with a forget gate; its states are H and C side by side."""

    gates = 3
    remembers = True

    def _bias(self, slow: Tensor) -> Tensor:
        return torch.cat([-slow, slow, torch.zeros_like(slow)])  # of I, F, O

    def initial(self, x: Tensor) -> Tensor:
        """The rectified drive as H, and a memory of zeros: (b, 2 c, n)."""
        return torch.cat([F.relu(x), torch.zeros_like(x)], dim=1)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Drive X (b, c, n), and H and C -> H' and C', both (b, 2 c, n)."""
        h, c = state.chunk(2, dim=1)
        i, f, o = self.opened(x, h).chunk(3, dim=1)
        c = f * c + i * torch.tanh(self.norms[0](self.first(x)) + self.norms[1](self.second(h)))
        return torch.cat([o * torch.tanh(c), c], dim=1)

    def between(self, lower: Tensor, top: Tensor) -> Tensor:
        """The memory is that of the lower level, and goes through both of its units: (b, 2 c, n)."""
        x, c = lower.chunk(2, dim=1)
        return self(x, torch.cat([top, c], dim=1))  # type: ignore[no-any-return]


class Feedforward(Control):
    """Two convolutions around a shortcut, without a gate."""

    gates = 0

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """X and H -> H', all (b, c, n)."""
        a = self.from_drive(x) + self.from_state(h)
        return F.relu(a + self.norms[1](self.second(F.relu(self.norms[0](self.first(a))))))


CONTROLS: dict[str, type[Control]] = {"gru": GRU, "lstm": LSTM, "feedforward": Feedforward}
"""Name, as it stands in model cards, -> unit."""
