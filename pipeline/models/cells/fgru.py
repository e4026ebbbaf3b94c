"""The feedback gated recurrent unit of gamma-Net: Linsley, Kim, Ashok and Serre 2020 (ICLR), SI equation 3.

With * a convolution, . the elementwise product, s the sigmoid, N a norm:

    G_I = s(N(U_IG * H . U_IS * H) + b_I)          share of the state that inhibition sees
    C_I = N(W_I * (H . G_I))
    Z   = relu(relu(X) - relu((alpha H + mu) . C_I))
    G_E = s(N(U_E * Z) + b_E)                      share of the state that is replaced
    C_E = N(W_E * Z)
    H~  = relu(kappa (C_E + Z) + omega C_E . Z)
    H'  = (1 - G_E) . H + G_E . H~

Within a level X is the drive from below and H the level's own state. Between levels X is the state of the lower level
and H the input from the higher one; H', with the lower state added to it, becomes the lower level's state.

Paper and published codes differ; ``Variant`` holds the choices, and its defaults are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.cells.blocks import Kernel, chronos, one_of, optional_norm, per_channel, point_conv, same_conv
from pipeline.models.cells.symmetry import SymmetricConv


@dataclass(frozen=True)
class Variant:
    """The choices that the paper leaves open, or that its codes make otherwise."""

    rectify_drive: bool = True
    """relu(X): the paper calls X non-negative; after an ELU it is not."""
    bias_before_norm: bool = False
    """Gate biases before the norm, as in the torch port: an instance norm then removes them."""
    rectify_gates: bool = False
    """A ReLU after U_IG and after U_IS, as in the torch port; the paper's are linear."""
    gate_layers: int = 1
    """Layers of U_IG and U_IS, which narrow in between; see ``gate``."""
    global_gate: Literal["voxel", "maxpool"] = "voxel"
    """U_IG sees H, as in the paper, or the maximum of H over all voxels, as in the TensorFlow code."""
    local_gate: bool = True
    """Whether there is a U_IS; without one, the gate is U_IG alone."""
    padding: Literal["zeros", "reflect", "partial"] = "zeros"
    """Padding of W_I and W_E; the torch port reflects, the TensorFlow code rescales. Gates are padded with zeros.
    """
    top_down_keeps: Literal["state", "drive"] = "state"
    """What a closed gate keeps between levels: H (paper and TensorFlow code), or X (torch port)."""
    begins_as: Literal["drive", "zero"] = "drive"
    """H[0]: the drive, as in both codes, or zeros."""
    chronos: Literal["slow", "fast"] = "slow"
    """b_E = -log U(1, T - 1) and b_I = +log U(1, T - 1), or the opposite signs, as in the TensorFlow code."""
    divisive_alpha: bool = False
    """s(alpha) in the place of alpha, an option of the torch port's first cell."""
    alpha: float = 0.1
    mu: float = 0.0
    kappa: float = 0.0
    omega: float = 0.1


PAPER = Variant()
TORCH_PORT = Variant(
    rectify_drive=False,
    bias_before_norm=True,
    rectify_gates=True,
    padding="reflect",
    top_down_keeps="drive",
    mu=1.0,
    kappa=0.5,
    omega=0.5,
)
TENSORFLOW = Variant(global_gate="maxpool", padding="partial", chronos="fast", kappa=0.1)

VARIANTS = {"paper": PAPER, "torch_port": TORCH_PORT, "tensorflow": TENSORFLOW}
"""Name, as it stands in model cards, -> variant."""


def variant_of(name: str | Variant) -> Variant:
    """The variant of a name (a ``Variant`` is returned unchanged); ``ModelError`` if there is none."""
    return name if isinstance(name, Variant) else VARIANTS[one_of("variant", name, list(VARIANTS))]


class FGRU(nn.Module):
    """The unit within a level. The length of ``kernel`` gives the dimension; ``local`` is the kernel of U_IS.

    norm, epsilon: kind of the four norms (None leaves them out), and the constant added to the variance, if another.
    """

    alpha: nn.Parameter
    mu: nn.Parameter
    kappa: nn.Parameter
    omega: nn.Parameter

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        norm: str | None = "instance",
        symmetry: str = "channel",
        steps: int = 8,
        local: Kernel | None = None,
        gate_bias: bool = False,
        variant: Variant = PAPER,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        dimension, layers = len(kernel), variant.gate_layers
        local = (3,) * dimension if local is None else local
        self.variant = variant
        self.global_gate = gate(channels, channels, (1,) * dimension, gate_bias, layers)  # U_IG
        self.local_gate = gate(channels, 1, local, gate_bias, layers) if variant.local_gate else None  # U_IS
        self.excitation_gate = point_conv(channels, channels, dimension, bias=False)  # U_E
        self.inhibition = SymmetricConv(channels, kernel, symmetry, variant.padding)  # W_I
        self.excitation = SymmetricConv(channels, kernel, symmetry, variant.padding)  # W_E
        self.norms = nn.ModuleList(optional_norm(channels, norm, 0.1, epsilon) for _ in range(4))  # delta 0.1, nu 0
        slow = chronos(channels, steps) * (1 if variant.chronos == "slow" else -1)
        self.bias_inhibition = nn.Parameter(slow.clone())  # b_I = +log U(1, T - 1)
        self.bias_excitation = nn.Parameter(-slow)  # b_E = -log U(1, T - 1): the state starts slow
        for name in ("alpha", "mu", "kappa", "omega"):
            setattr(self, name, nn.Parameter(torch.full((channels,), getattr(variant, name))))

    def initial(self, x: Tensor) -> Tensor:
        """The state before the first step: the drive itself ("identity"), or zeros."""
        if self.variant.begins_as == "zero":
            return torch.zeros_like(x)
        return F.relu(x) if self.variant.rectify_drive else x

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One step of the recurrence."""
        return self(x, state)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Drive X and state H -> new state H', all (b, c, n)."""
        return self.excite(self.inhibit(x, h), x, h)

    def inhibit(self, x: Tensor, h: Tensor) -> Tensor:
        """Z: the drive after inhibition, (b, c, n)."""
        gate = self._open(self._gate(h), self.norms[0], self.bias_inhibition)  # G_I
        c_i = self.norms[1](self.inhibition(h * gate))  # C_I
        drive = F.relu(x) if self.variant.rectify_drive else x
        alpha = torch.sigmoid(self.alpha) if self.variant.divisive_alpha else self.alpha
        return F.relu(drive - F.relu((per_channel(alpha, h) * h + per_channel(self.mu, h)) * c_i))

    def excite(self, z: Tensor, x: Tensor, h: Tensor) -> Tensor:
        """H': (b, c, n)."""
        g_e = self._open(self.excitation_gate(z), self.norms[2], self.bias_excitation)  # G_E
        c_e = self.norms[3](self.excitation(z))  # C_E
        candidate = F.relu(per_channel(self.kappa, z) * (c_e + z) + per_channel(self.omega, z) * c_e * z)  # H~
        return (1 - g_e) * self._kept(x, h) + g_e * candidate

    def _kept(self, x: Tensor, h: Tensor) -> Tensor:
        return h

    def _gate(self, h: Tensor) -> Tensor:
        seen = h.amax(tuple(range(2, h.ndim)), keepdim=True) if self.variant.global_gate == "maxpool" else h
        rise = F.relu if self.variant.rectify_gates else nn.Identity()
        u_g = rise(self.global_gate(seen)).expand_as(h)  # (b, c, n)
        return u_g if self.local_gate is None else u_g * rise(self.local_gate(h))  # (b, c, n) . (b, 1, n)

    def _open(self, pre: Tensor, norm: Callable[[Tensor], Tensor], bias: Tensor) -> Tensor:
        b = per_channel(bias, pre)
        return torch.sigmoid(norm(pre + b) if self.variant.bias_before_norm else norm(pre) + b)


class TopDownFGRU(FGRU):
    """The unit between two levels: X is the lower level's state, H the input from the higher level."""

    def _kept(self, x: Tensor, h: Tensor) -> Tensor:
        return h if self.variant.top_down_keeps == "state" else x


def gate(channels: int, outside: int, kernel: Kernel, bias: bool, layers: int) -> nn.Module:
    """U_IG (as many channels outside) or U_IS (one): convolutions with a ReLU between two of them.

    Each layer but the last halves the channels; those of the second half of U_IG double them again, as in the port.
    """
    if layers < 1:
        raise ModelError(f"gate_layers is {layers}; a gate needs at least one layer")
    widths = [channels]
    for layer in range(layers - 1):
        narrows = outside == 1 or layer < layers // 2
        widths.append(max(1, widths[-1] // 2) if narrows else widths[-1] * 2)
    first, *others = [same_conv(a, b, kernel, bias) for a, b in pairwise([*widths, outside])]
    if not others:
        return first
    return nn.Sequential(first, *[part for layer in others for part in (nn.ReLU(), layer)])
