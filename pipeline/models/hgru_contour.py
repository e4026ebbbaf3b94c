"""The contour network of C-RBP and its two controls: Linsley, Ashok, Govindarajan, Liu and Serre 2020 (NeurIPS).

    x      = (Gabor bank * image + b)^2             25 channels, 7x7, trained like the rest
    T times: h = hGRU(x, h), from h = 0             kernel 15x15
    logits = 1x1 convolution of BN(h)               two classes: not on the contour, on it

    HGRUContour          284,227 parameters at S = 15 (104,227 at 9, 34,227 at 5, 14,227 at 3)
    ConvLSTMContour      the same around a ConvLSTM: 1,126,452
    FeedforwardContour   six convolutions 15x15 with batch norm and ReLU in its place: 845,527

Norms are batch statistics of the batch at hand, in evaluation too, as in the published code; the feedforward control
has running ones. ``norm="instance"`` takes each image by itself. Volumes are taken section by section.

Shapes: b = batch, c = channels.
"""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.axes import as_dimension
from pipeline.models.cells import State
from pipeline.models.cells.blocks import Norm, one_of, point_conv, same_conv
from pipeline.models.cells.convlstm import ConvLSTM
from pipeline.models.cells.hgru import HGRU
from pipeline.models.recurrent import RecurrentNetwork

SIDE = 7
WAVELENGTH, SIGMA, ASPECT = 3.5, 2.8, 0.3
"""Parameters of the Gabor bank: pixels, pixels, and the width of the envelope over its length."""
PHASES = (0.0, 90.0)
"""The even phase, and one meant to be odd: the published filters took 90 for radians, which is 116.6 degrees.
"""
RARE = 0.01
"""The first estimate of the share of a class; the published code uses it for both classes."""

NORMS = ("batch", "instance")

SIZES: dict[str, dict[str, Any]] = {"tiny": {"kernel": 5}, "paper": {}}
"""Arguments of named sizes, the same for all three networks: kernels of 5, and the paper's of 15."""


def gabor_bank(orientations: int = 12) -> Tensor:
    """The published filters by formula: (2 x orientations + 1, 1, 7, 7).

    With u across the stripes and v along them, exp(-(u^2 + 0.09 v^2) / (2 sigma^2)) cos(2 pi u / wavelength + phase)
    within radius 3, minus its mean, of unit length; orientations from 90 degrees downward, all of the even phase first.
    The last filter was meant as a difference of Gaussians, but is a flat disk that sums to 49.
    """
    y, x = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float64) - SIDE // 2] * 2, indexing="ij")
    disk = (x**2 + y**2 <= (SIDE // 2) ** 2).double()  # (7, 7)
    filters = []
    for phase in PHASES:
        for angle in (pi / 2 - k * pi / orientations for k in range(orientations)):
            direction = torch.tensor(angle, dtype=torch.float64)
            u = x * direction.cos() + y * direction.sin()
            v = y * direction.cos() - x * direction.sin()
            envelope = torch.exp(-(u**2 + (ASPECT * v) ** 2) / (2 * SIGMA**2)) * disk
            wave = envelope * torch.cos(2 * pi * u / WAVELENGTH + phase)
            filters.append((wave - wave.mean()) / (wave - wave.mean()).norm())
    filters.append(disk / disk.mean())
    return torch.stack(filters)[:, None].to(torch.get_default_dtype())


class Contour(RecurrentNetwork):
    """The layers around the cell: the squared Gabor bank and the readout."""

    dimensions = 2
    multiple = (1, 1, 1)

    def __init__(self, steps: int, out_channels: int, norm: str, orientations: int) -> None:
        super().__init__()
        if steps < 1:
            raise ModelError(f"steps is {steps}; at least one is needed")
        bank = gabor_bank(orientations)
        self.steps, self.out_channels, self.width = steps, out_channels, len(bank)
        self.bank = same_conv(1, self.width, (SIDE, SIDE))
        with torch.no_grad():
            self.bank.weight.copy_(bank)
        self.readout_norm = Norm(self.width, one_of("norm", norm, NORMS), gain=1.0, epsilon=1e-3)
        self.readout = readout(self.width, out_channels)

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, 1, y, x) -> the energy of each filter, (b, c, y, x)."""
        return self.bank(image) ** 2  # type: ignore[no-any-return]

    def initial(self, x: Tensor) -> State:
        """The cell's state before the first step."""
        return self.cell.initial(x)  # type: ignore[no-any-return, operator, union-attr]

    def step(self, x: Tensor, state: State) -> State:
        """One step of the cell."""
        return self.cell(x, state)  # type: ignore[no-any-return, operator]

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """h -> logits (b, out_channels, y, x)."""
        h = state if isinstance(state, Tensor) else state[0]
        return self.readout(self.readout_norm(h))  # type: ignore[no-any-return]


class HGRUContour(Contour):
    """The network around an hGRU of the C-RBP form. kernel: S. For the other arguments see ``HGRU``."""

    def __init__(
        self,
        kernel: int = 15,
        steps: int = 6,
        out_channels: int = 2,
        norm: str = "batch",
        outer: bool = True,
        symmetry: str = "none",
        chronos: str = "log",
        normalise_gates: bool = False,
        orientations: int = 12,
    ) -> None:
        super().__init__(steps, out_channels, norm, orientations)
        self.cell = HGRU(
            *(self.width, (kernel, kernel), norm),
            outer=outer,
            symmetry=symmetry,
            steps=steps,
            chronos=chronos,
            normalise_gates=normalise_gates,
        )


class ConvLSTMContour(Contour):
    """The recurrent control. Its published form has no forget offset."""

    def __init__(
        self,
        kernel: int = 15,
        steps: int = 6,
        out_channels: int = 2,
        norm: str = "batch",
        forget_offset: float = 0.0,
        orientations: int = 12,
    ) -> None:
        super().__init__(steps, out_channels, norm, orientations)
        self.cell = ConvLSTM(self.width, self.width, (kernel, kernel), forget_offset)


class FeedforwardContour(nn.Module):
    """The feedforward control: a first convolution 7x7, then ``depth`` of side ``kernel``; no Gabor bank, no square."""

    dimensions = 2
    multiple = (1, 1, 1)

    def __init__(
        self, kernel: int = 15, depth: int = 6, width: int = 25, out_channels: int = 2, norm: str = "batch"
    ) -> None:
        super().__init__()
        one_of("norm", norm, NORMS)
        self.out_channels = out_channels
        sides = [(1, SIDE), *((width, kernel) for _ in range(depth))]
        self.convolutions = nn.ModuleList(
            same_conv(inside, width, (side, side), bias=number > 0) for number, (inside, side) in enumerate(sides)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if norm == "batch" else Norm(width, norm, gain=1.0) for _ in sides
        )
        self.readout = point_conv(width, out_channels, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, 1, z, y, x), or (b, 1, y, x) -> logits of that shape."""
        r, restored = as_dimension(image, 2)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            r = norm(convolution(r))  # (b, c, y, x)
            r = F.relu(r) if number else r  # the first convolution has no nonlinearity
        return restored(self.readout(r))


def readout(inside: int, outside: int) -> nn.Conv2d | nn.Conv3d:
    """A 1x1 convolution whose biases begin at log((1 - RARE) / RARE)."""
    layer = point_conv(inside, outside, 2)
    nn.init.xavier_normal_(layer.weight)
    nn.init.constant_(layer.bias, log((1 - RARE) / RARE))  # type: ignore[arg-type]
    return layer
