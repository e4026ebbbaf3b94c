"""A network as it runs in inference: its norms folded into the weights of its convolutions.

``ConvNorm``: in inference a batch norm multiplies each channel by a constant and adds another, so it goes into the
weights of the convolution before it:

    N(C x) = g (C x - m) / sqrt(v + e) + b      ->      C' x + c,   C' = s C,  c = b - s m,  s = g / sqrt(v + e)

``ScaledConv``: its weights are normalised, and nothing else; folded, they are numbers:

    W = g (V - mean V) / sqrt(sum (V - mean V)^2 + e)      mean and sum over all weights of an output channel

Both are computed in float64 by sums in a fixed order, products, quotients and square roots alone, which IEEE 754
rounds alike on every machine, and rounded once to float32: equal weights give equal bytes everywhere.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.geometry import Triple
from pipeline.models.axes import as_vec
from pipeline.models.cells.blocks import half

Conv = nn.Conv3d | nn.ConvTranspose3d
LEAST = 1e-8
"""e of a ``ScaledConv``."""


class ConvNorm(nn.Sequential):
    """A convolution without a bias, and its batch norm; He's initial weights."""

    def __init__(self, conv: Conv) -> None:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm3d(conv.out_channels))

    def folded(self) -> Conv:
        """One convolution with a bias that computes what both parts do in evaluation mode."""
        conv, norm = self
        assert isinstance(conv, nn.Conv3d | nn.ConvTranspose3d)
        gain, bias, mean, variance = (norm.state_dict()[name].double() for name in NORM)
        scale = gain / (variance + norm.eps).sqrt()  # (c,)
        output = 1 if isinstance(conv, nn.ConvTranspose3d) else 0  # the axis of the output channels
        weight = conv.weight.detach().double() * scale.view([-1 if axis == output else 1 for axis in range(5)])
        result = copy.deepcopy(conv)
        result.weight.data = weight.to(conv.weight)
        result.bias = nn.Parameter((bias - scale * mean).to(conv.weight))
        return result


NORM = ("weight", "bias", "running_mean", "running_var")


class ScaledConv(nn.Conv3d):
    """A convolution that keeps the shape, with normalised weights, a gain and a bias for each output channel."""

    def __init__(self, inside: int, outside: int, kernel: Triple) -> None:
        super().__init__(inside, outside, kernel, padding=as_vec(half(kernel)))
        self.gain = nn.Parameter(torch.ones(outside))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> (b, c', z, y, x)."""
        centred = self.weight - self.weight.mean((1, 2, 3, 4), keepdim=True)
        size = (centred.square().sum((1, 2, 3, 4), keepdim=True) + LEAST).sqrt()
        return F.conv3d(x, centred * (self.gain.view(-1, 1, 1, 1, 1) / size), self.bias, padding=self.padding)

    def folded(self) -> nn.Conv3d:
        """A plain convolution that computes the same."""
        rows = self.weight.detach().double().flatten(1)  # (c', c k)
        centred = rows - _sums(rows) / rows.shape[1]
        scaled = centred * (self.gain.detach().double()[:, None] / (_sums(centred * centred) + LEAST).sqrt())
        result = nn.utils.skip_init(
            nn.Conv3d, self.in_channels, self.out_channels, self.kernel_size, padding=self.padding
        )
        result.weight.data = scaled.view(self.weight.shape).to(self.weight)
        result.bias = copy.deepcopy(self.bias)
        return result


def folded(network: nn.Module) -> nn.Module:
    """A copy with a plain convolution in the place of each that has a norm; the given network if none has one."""
    if isinstance(network, ConvNorm | ScaledConv):
        return network.folded()
    if not any(isinstance(part, ConvNorm | ScaledConv) for part in network.modules()):
        return network
    result = copy.deepcopy(network)
    for parent in list(result.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, ConvNorm | ScaledConv):
                setattr(parent, name, part.folded())
    return result


def first_outputs(conv: nn.Conv3d, channels: int) -> nn.Conv3d:
    """A copy that computes the first channels only."""
    result = copy.deepcopy(conv)
    result.out_channels = channels
    for parameter in result.parameters():
        parameter.data = parameter.data[:channels].clone(memory_format=torch.preserve_format)
    return result


def _sums(rows: Tensor) -> Tensor:
    """(c, n) -> (c, 1): each row added from left to right, whatever vectors a processor has."""
    return rows.cumsum(1)[:, -1:]
