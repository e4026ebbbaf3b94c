"""The horizontal gated recurrent unit, in the two forms that papers call so.

``crbp``: Linsley, Ashok, Govindarajan, Liu and Serre 2020 (NeurIPS, "Stable and expressive recurrent vision models"),
as published in their code. Smooth everywhere, since implicit gradients and the penalty on the Jacobian want second
derivatives. With * a convolution, . the elementwise product, s the sigmoid, sp the softplus, BN batch statistics:

    g1 = s(u1 * h + b1)
    c1 = BN(W_inh * (h . g1))
    z  = sp(x - sp(c1 . (alpha h + mu)))
    g2 = s(u2 * z + b2)
    c2 = BN(W_exc * z)
    h~ = sp(kappa z + gamma c2 + omega z . c2)
    h' = sp((1 - g2) . h + g2 . h~)

``paper``: equation 1 of Linsley, Kim, Ashok and Serre 2020 (ICLR), with ReLUs, without norms and biases; kappa weighs
c2 too, and the outer nonlinearity is missing.

The outer softplus lifts every state: with a closed gate, n steps from 0 give log(n + 1), which has no limit.
``outer=False`` leaves it out, as a later code of the same authors does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.cells.blocks import Kernel, Norm, chronos, one_of, per_channel, point_conv
from pipeline.models.cells.symmetry import SymmetricConv

INITIAL = {
    "crbp": {"alpha": 0.1, "mu": 1.0, "gamma": 1.0, "kappa": 0.5, "omega": 0.5},
    "paper": {"alpha": 0.1, "mu": 0.0, "kappa": 0.0, "omega": 0.1},
}
"""First values of the vectors of each form; the paper gives none for equation 1, so they are those of its fGRU."""


class HGRU(nn.Module):
    """The unit. The length of ``kernel`` says the dimension.

    norm: kind of the norms of the ``crbp`` form. Its code holds four, and uses two: those of the gates (0 and 2) count
    as parameters, and take part if ``normalise_gates`` says so.
    chronos: ``log``, biases +-log U(1, T - 1); ``unlogged``, +-U(1, T - 1), as the code does by a slip, with T = 8.
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
        norm: str = "batch",
        form: str = "crbp",
        outer: bool = True,
        symmetry: str = "none",
        steps: int = 8,
        chronos: str = "log",
        normalise_gates: bool = False,
    ) -> None:
        super().__init__()
        self.form, dimension = one_of("form", form, list(INITIAL)), len(kernel)
        self.crbp, self.outer, self.normalise_gates = form == "crbp", outer and form == "crbp", normalise_gates
        self.inhibition_gate = point_conv(channels, channels, dimension, bias=self.crbp)  # u1, b1
        self.excitation_gate = point_conv(channels, channels, dimension, bias=self.crbp)  # u2, b2
        for layer in (self.inhibition_gate, self.excitation_gate):
            nn.init.orthogonal_(layer.weight)
        self.inhibition = SymmetricConv(channels, kernel, symmetry)  # W_inh
        self.excitation = SymmetricConv(channels, kernel, symmetry)  # W_exc
        if self.crbp:
            self._set_biases(steps, one_of("chronos", chronos, ("log", "unlogged")))
        self.norms = nn.ModuleList(Norm(channels, norm, gain=0.1) for _ in range(4 if self.crbp else 0))
        for idle in self.norms[0:3:2] if self.crbp and not normalise_gates else ():
            idle.requires_grad_(False)
        for name, value in INITIAL[form].items():
            setattr(self, name, nn.Parameter(torch.full((channels,), value)))

    def _set_biases(self, steps: int, kind: str) -> None:
        channels = len(self.inhibition_gate.weight)
        slow = chronos(channels, steps) if kind == "log" else torch.empty(channels).uniform_(1, 7)
        with torch.no_grad():
            self.inhibition_gate.bias.copy_(slow)  # type: ignore[union-attr]
            self.excitation_gate.bias.copy_(-slow)  # type: ignore[union-attr]

    def initial(self, x: Tensor) -> Tensor:
        """The state before the first step: nothing."""
        return torch.zeros_like(x)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One step of the recurrence."""
        return self(x, state)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Drive x and state h -> new state h', all (b, c, n)."""
        return self.excite(self.inhibit(x, h), h)

    def inhibit(self, x: Tensor, h: Tensor) -> Tensor:
        """z: what is left of the drive, (b, c, n)."""
        g1 = self.gate(h, 0)
        c1 = self._normalised(self.inhibition(h * g1), 1)
        return self._rise(x - self._rise(c1 * (per_channel(self.alpha, h) * h + per_channel(self.mu, h))))

    def excite(self, z: Tensor, h: Tensor) -> Tensor:
        """h': (b, c, n)."""
        kappa, omega = per_channel(self.kappa, z), per_channel(self.omega, z)
        gamma = per_channel(self.gamma, z) if self.crbp else kappa
        g2 = self.gate(z, 2)
        c2 = self._normalised(self.excitation(z), 3)
        candidate = self._rise(kappa * z + gamma * c2 + omega * z * c2)
        mixed = (1 - g2) * h + g2 * candidate
        return F.softplus(mixed) if self.outer else mixed

    def gate(self, r: Tensor, which: int) -> Tensor:
        """g1 of h (``which`` 0), or g2 of z (2): (b, c, n)."""
        pre = (self.excitation_gate if which else self.inhibition_gate)(r)
        return torch.sigmoid(self._normalised(pre, which) if self.normalise_gates else pre)

    def _normalised(self, r: Tensor, which: int) -> Tensor:
        return self.norms[which](r) if self.crbp else r  # type: ignore[no-any-return]

    def _rise(self, r: Tensor) -> Tensor:
        return F.softplus(r) if self.crbp else F.relu(r)
