"""The horizontal gated recurrent unit, in the four forms that papers and codes give that name.

``crbp``: Linsley, Ashok, Govindarajan, Liu and Serre 2020 (NeurIPS, "Stable and expressive recurrent vision models"),
as their code computes it. It is smooth everywhere, since implicit gradients and the penalty on the Jacobian need second
derivatives. With * a convolution, . the elementwise product, s the sigmoid, sp the softplus, N a norm:

    g1 = s(u1 * h + b1)
    c1 = N(W_inh * (h . g1))
    z  = sp(x - sp(c1 . (alpha h + mu)))
    g2 = s(u2 * z + b2)
    c2 = N(W_exc * z)
    h~ = sp(kappa z + gamma c2 + omega z . c2)
    h' = sp((1 - g2) . h + g2 . h~)

``panoptic``: the same paper's unit for segmenting scenes: kappa weighs c2 too, the outer softplus is missing, norms are
over groups of channels, and the first gate is ``Attention``.

``paper``: equation 1 of Linsley, Kim, Ashok and Serre 2020 (ICLR): kappa weighs c2 too, the outer nonlinearity is
missing, ReLUs in the place of softplus, no norms and no biases.

``relu``: the torch code of 2019 that the C-RBP code grew from: ReLUs, no outer nonlinearity, and all four norms at work
(``normalise_gates=True``). There, each step has norms of its own; here, all steps share them, as in the later codes.

The hGRU of 2018 (one kernel for both directions, tanh, a gain of its own for each step) is none of these, and is not
here: with other numbers at each step it has no steady state, and is no ``Recurrence``.

The outer softplus lifts every state: with a closed gate, n steps from 0 give log(n + 1), which has no limit.
``outer=False`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.cells.blocks import Kernel, chronos, one_of, optional_norm, per_channel, point_conv, same_conv
from pipeline.models.cells.symmetry import SymmetricConv


@dataclass(frozen=True)
class Form:
    """The choices in which the forms differ."""

    rise: Callable[[Tensor], Tensor]
    norm: str | None
    attention: bool
    outer: bool
    vectors: dict[str, float]
    """Initial values; without gamma, kappa is used in its place."""


FORMS = {
    "crbp": Form(F.softplus, "batch", False, True, {"alpha": 0.1, "mu": 1.0, "gamma": 1.0, "kappa": 0.5, "omega": 0.5}),
    "panoptic": Form(F.softplus, "group", True, False, {"alpha": 0.1, "mu": 1.0, "kappa": 0.5, "omega": 0.5}),
    "relu": Form(F.relu, "batch", False, False, {"alpha": 0.1, "mu": 1.0, "gamma": 0.5, "kappa": 0.5, "omega": 0.5}),
    "paper": Form(F.relu, None, False, False, {"alpha": 0.1, "mu": 0.0, "kappa": 0.0, "omega": 0.1}),
}
"""Name -> form. The ICLR paper gives no initial values for its equation 1; these are those of its fGRU."""


class HGRU(nn.Module):
    """The unit. The length of ``kernel`` gives the dimension.

    norm: kind of the norms, if it is not the form's. The code of ``crbp`` holds four of them and uses two: those of the
        gates
    (0 and 2) count as parameters, and are used if ``normalise_gates`` is true.
    attention: whether the first gate is ``Attention``; as in the form if None. epsilon: of the norms; the kind's if
        None.
    chronos: ``log``, biases +-log U(1, T - 1); ``unlogged``, +-U(1, 7), as the codes do by a slip.
    """

    alpha: nn.Parameter
    mu: nn.Parameter
    gamma: nn.Parameter
    kappa: nn.Parameter
    omega: nn.Parameter

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        norm: str | None = None,
        form: str = "crbp",
        outer: bool | None = None,
        symmetry: str = "none",
        steps: int = 8,
        chronos: str = "log",
        normalise_gates: bool = False,
        attention: bool | None = None,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        self.form, dimension, biased = FORMS[one_of("form", form, list(FORMS))], len(kernel), form != "paper"
        self.outer = self.form.outer if outer is None else outer
        self.normalise_gates = normalise_gates
        self.inhibition_gate = (  # u1, b1
            Attention(channels, kernel)
            if (self.form.attention if attention is None else attention)
            else point_conv(channels, channels, dimension, biased)
        )
        self.excitation_gate = point_conv(channels, channels, dimension, biased)  # u2, b2
        for layer in self.inhibition_gate, self.excitation_gate:
            if not isinstance(layer, Attention):
                nn.init.orthogonal_(layer.weight)
        self.inhibition = SymmetricConv(channels, kernel, symmetry)  # W_inh
        self.excitation = SymmetricConv(channels, kernel, symmetry)  # W_exc
        if biased:
            self._set_biases(channels, steps, one_of("chronos", chronos, ("log", "unlogged")))
        self.norms = self._norms(channels, norm or self.form.norm, form == "crbp" or normalise_gates, epsilon)
        for name, value in self.form.vectors.items():
            setattr(self, name, nn.Parameter(torch.full((channels,), value)))

    def _norms(self, channels: int, kind: str | None, all_four: bool, epsilon: float | None) -> nn.ModuleList:
        kinds = [kind if all_four or which in (1, 3) else None for which in range(4)]
        norms = nn.ModuleList(optional_norm(channels, each, 0.1, epsilon) for each in kinds)
        if not self.normalise_gates:
            norms[0:3:2].requires_grad_(False)
        return norms

    def _set_biases(self, channels: int, steps: int, kind: str) -> None:
        slow = chronos(channels, steps) if kind == "log" else torch.empty(channels).uniform_(1, 7)
        with torch.no_grad():
            self.inhibition_gate.bias.copy_(slow)  # type: ignore[union-attr, operator]
            self.excitation_gate.bias.copy_(-slow)  # type: ignore[union-attr]

    def initial(self, x: Tensor) -> Tensor:
        """The state before the first step: zeros."""
        return torch.zeros_like(x)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One step of the recurrence."""
        return self(x, state)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Drive x and state h -> new state h', all (b, c, n)."""
        return self.excite(self.inhibit(x, h), h)

    def inhibit(self, x: Tensor, h: Tensor) -> Tensor:
        """z: the drive after inhibition, (b, c, n)."""
        rise = self.form.rise
        c1 = self.norms[1](self.inhibition(h * self.gate(h, 0)))
        return rise(x - rise(c1 * (per_channel(self.alpha, h) * h + per_channel(self.mu, h))))

    def excite(self, z: Tensor, h: Tensor) -> Tensor:
        """h': (b, c, n)."""
        rise = self.form.rise
        kappa, omega = per_channel(self.kappa, z), per_channel(self.omega, z)
        gamma = per_channel(self.gamma, z) if "gamma" in self.form.vectors else kappa
        g2 = self.gate(z, 2)
        c2 = self.norms[3](self.excitation(z))
        candidate = rise(kappa * z + gamma * c2 + omega * z * c2)  # h~
        mixed = (1 - g2) * h + g2 * candidate
        return rise(mixed) if self.outer else mixed

    def gate(self, r: Tensor, which: int) -> Tensor:
        """g1 of h (``which`` 0), or g2 of z (2): (b, c, n)."""
        pre = (self.excitation_gate if which else self.inhibition_gate)(r)
        return torch.sigmoid(self.norms[which](pre) if self.normalise_gates else pre)


class Attention(nn.Module):
    """A gate's pre-activation from channels and places: U_2 * sp(U_1 * h) . V_2 * sp(V_1 * h) + b."""

    def __init__(self, channels: int, kernel: Kernel) -> None:
        super().__init__()
        dimension, few, half = len(kernel), max(1, channels // 4), max(1, channels // 2)
        self.channels = nn.Sequential(
            point_conv(channels, few, dimension), nn.Softplus(), point_conv(few, channels, dimension, bias=False)
        )
        self.places = nn.Sequential(
            same_conv(channels, half, kernel), nn.Softplus(), same_conv(half, 1, kernel, bias=False)
        )
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        """(b, c, n) -> the same shape."""
        return self.channels(h) * self.places(h) + per_channel(self.bias, h)
