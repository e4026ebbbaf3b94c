"""A network as it runs in inference: batch norms folded into the convolutions before them.

In inference a batch norm multiplies each channel by a constant and adds another, so it goes into the weights:

    N(C x) = g (C x - m) / sqrt(v + e) + b      ->      C' x + c,   C' = s C,  c = b - s m,  s = g / sqrt(v + e)

The constants are computed in float64 by sums, products, quotients and square roots alone, which IEEE 754 rounds alike
on every machine, and rounded once to float32: equal weights give equal bytes everywhere.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

Conv = nn.Conv3d | nn.ConvTranspose3d


class ConvNorm(nn.Sequential):
    """A convolution without a bias, and its batch norm; He's initial weights."""

    def __init__(self, conv: Conv) -> None:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm3d(conv.out_channels))


def folded(network: nn.Module) -> nn.Module:
    """The network with a convolution in the place of each ``ConvNorm``; the given one if it has none, else a copy."""
    if not any(isinstance(part, ConvNorm) for part in network.modules()):
        return network
    if isinstance(network, ConvNorm):
        return folded_pair(network)
    result = copy.deepcopy(network)
    for parent in list(result.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, ConvNorm):
                setattr(parent, name, folded_pair(part))
    return result


def folded_pair(pair: ConvNorm) -> Conv:
    """One convolution with a bias that computes what both parts of the pair do in evaluation mode."""
    conv, norm = pair
    assert isinstance(conv, nn.Conv3d | nn.ConvTranspose3d)
    assert isinstance(norm, nn.BatchNorm3d)
    gain, bias, mean, variance = (part.detach().double() for part in _constants(norm))
    scale = gain / (variance + norm.eps).sqrt()  # (c,)
    output = 1 if isinstance(conv, nn.ConvTranspose3d) else 0  # the axis of the output channels
    shape = [-1 if axis == output else 1 for axis in range(5)]
    result = copy.deepcopy(conv)
    result.weight.data = (conv.weight.detach().double() * scale.view(shape)).to(conv.weight)
    result.bias = nn.Parameter((bias - scale * mean).to(conv.weight))
    return result.requires_grad_(conv.weight.requires_grad)


def _constants(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gain, bias, running mean and running variance, (c,) each."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    return norm.weight, norm.bias, mean, variance
