"""Kernels that are symmetric in their channels, and stay so under any optimiser and weight decay.

    channel    W[d, i, j] = W[d, j, i]       as in the paper, at the same offset d
    adjoint    W[d, i, j] = W[-d, j, i]      makes the zero-padded convolution a symmetric operator: a real spectrum

The constraint is a parametrisation, W = (V + V^T) / 2 of a free V. Symmetrising only the gradients, as a published
port does, keeps W as asymmetric as it was drawn.
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.models.cells.blocks import PADDINGS, Kernel, convolve, half, one_of, orthogonal

SYMMETRIES = ("channel", "adjoint", "none")


class Symmetric(nn.Module):
    """V -> W = (V + V^T) / 2, for ``torch.nn.utils.parametrize`` and for ``SymmetricConv``."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = one_of("symmetry", kind, SYMMETRIES)

    def forward(self, free: Tensor) -> Tensor:
        """(c, c, k) -> (c, c, k)."""
        if self.kind == "none":
            return free
        transposed = free.transpose(0, 1)
        if self.kind == "adjoint":
            transposed = transposed.flip(*range(2, free.ndim))
        return (free + transposed) / 2

    def right_inverse(self, kernel: Tensor) -> Tensor:
        """A free V for a given kernel: W itself, of which the symmetric part is used."""
        return kernel

    def count(self, free: Tensor) -> int:
        """The number of elements of W that can be chosen freely."""
        channels, places = len(free), prod(free.shape[2:])
        if self.kind == "channel":
            return places * channels * (channels + 1) // 2
        if self.kind == "adjoint":  # only the middle of the kernel, i = j, is its own mirror image
            return (places * channels**2 + channels) // 2
        return free.numel()


class SymmetricConv(nn.Module):
    """Convolution c -> c without bias whose kernel is symmetric in its channels."""

    def __init__(self, channels: int, kernel: Kernel, symmetry: str, padding: str = "zeros") -> None:
        super().__init__()
        half(kernel)
        self.symmetric = Symmetric(symmetry)
        self.padding = one_of("padding", padding, PADDINGS)
        self.free = nn.Parameter(orthogonal(channels, channels, kernel))

    def kernel(self) -> Tensor:
        """W: (c, c, k)."""
        return self.symmetric(self.free)  # type: ignore[no-any-return]

    def forward(self, r: Tensor) -> Tensor:
        """(b, c, n) -> the same shape."""
        return convolve(r, self.kernel().to(r.dtype), self.padding)


def symmetrise(module: nn.Module, symmetry: str, name: str = "weight") -> nn.Module:
    """Make a kernel (c, c, k) of any module symmetric from now on; returns the module."""
    return parametrize.register_parametrization(module, name, Symmetric(symmetry))


def free_parameters(module: nn.Module) -> int:
    """The number of parameters of a module, where those that a symmetry makes equal count once."""
    count = sum(parameter.numel() for parameter in module.parameters())
    for part in module.modules():
        if isinstance(part, SymmetricConv):
            count -= part.free.numel() - part.symmetric.count(part.free)
        elif isinstance(part, parametrize.ParametrizationList):
            count -= sum(part.original.numel() - p.count(part.original) for p in part if isinstance(p, Symmetric))
    return count
