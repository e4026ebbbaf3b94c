"""Minimal gated units between two levels: a convolution whose output is remembered.

``MGU``: SI equation 2 of Linsley, Kim, Ashok and Serre 2020 (ICLR), with A = conv(input) and B the memory:

    F  = s(A + W_F * B + b_F)
    B' = F . B + (1 - F) . ELU(A + W_H * (F . B) + b_H)

``MGU3``: the unit of their code, with a third kernel, norms in the gate, and no b_H; its output is N(ELU(B')):

    F  = s(N(W_P * B) + N(W_C * A) + b)
    B' = F . B + (1 - F) . ELU(A + W_H * (F . B))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.cells.blocks import optional_norm, per_channel, point_conv


class MGU(nn.Module):
    """The paper's unit, with two kernels. ``norm`` (None leaves it out) is the norm of the output to the next level."""

    def __init__(self, convolution: nn.Module, channels: int, norm: str | None, dimension: int = 3) -> None:
        super().__init__()
        self.convolution = convolution
        self.forget = point_conv(channels, channels, dimension)  # W_F, b_F
        self.candidate = point_conv(channels, channels, dimension)  # W_H, b_H
        nn.init.constant_(self.forget.bias, 1.0)  # type: ignore[arg-type]
        self.norm = optional_norm(channels, norm, gain=1.0)

    def forward(self, x: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
        """Input from the other level and memory B -> output and B'; both (b, c, n) of the new level."""
        a = self.convolution(x)  # A
        b = torch.zeros_like(a) if b is None else b
        f = torch.sigmoid(a + self.forget(b))  # F
        b = f * b + (1 - f) * F.elu(a + self.candidate(f * b))  # B'
        return self.norm(b), b

    def initial(self, x: Tensor) -> Tensor:
        """The memory before the first step: zeros."""
        return torch.zeros_like(self.convolution(x))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One step of the memory, for a given input."""
        return self(x, state)[1]  # type: ignore[no-any-return]


class MGU3(MGU):
    """The unit of the code, with three kernels. ``norm`` None leaves out all three norms."""

    def __init__(self, convolution: nn.Module, channels: int, norm: str | None, dimension: int = 3) -> None:
        nn.Module.__init__(self)
        self.convolution = convolution
        self.previous = point_conv(channels, channels, dimension, bias=False)  # W_P
        self.current = point_conv(channels, channels, dimension, bias=False)  # W_C
        self.candidate = point_conv(channels, channels, dimension, bias=False)  # W_H
        self.bias = nn.Parameter(torch.ones(channels))  # b
        self.gate_norms = nn.ModuleList(optional_norm(channels, norm, gain=0.1) for _ in range(2))
        self.norm = optional_norm(channels, norm, gain=0.1)

    def forward(self, x: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
        """Input from the other level and memory B -> output and B'; both (b, c, n) of the new level."""
        a = self.convolution(x)  # A
        b = torch.zeros_like(a) if b is None else b
        gate = self.gate_norms[0](self.previous(b)) + self.gate_norms[1](self.current(a))
        f = torch.sigmoid(gate + per_channel(self.bias, gate))  # F
        b = f * b + (1 - f) * F.elu(a + self.candidate(f * b))  # B'
        return self.norm(F.elu(b)), b


class NoMemory(MGU):
    """The control: the convolution and its nonlinearity alone, B' = ELU(A)."""

    def __init__(self, convolution: nn.Module, channels: int, norm: str | None, dimension: int = 3) -> None:
        nn.Module.__init__(self)
        self.convolution = convolution
        self.norm = optional_norm(channels, norm, gain=1.0)

    def forward(self, x: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
        """Input from the other level -> output, and ELU(A) in place of a memory, which is not used."""
        b = F.elu(self.convolution(x))
        return self.norm(b), b


MEMORIES: dict[str, type[MGU]] = {"paper": MGU, "code": MGU3, "none": NoMemory}
"""Name, as it stands in model cards, -> unit between levels."""
