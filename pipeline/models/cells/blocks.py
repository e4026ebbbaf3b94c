"""Convolutions that keep the shape, norms, and other parts shared by cells of any dimension."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError

Kernel = tuple[int, ...]
"""Sides of a kernel, (ky, kx) or (kz, ky, kx)."""

NORMS = {"instance": 1e-5, "rms": 1e-3, "channel": 1e-5, "batch": 1e-3, "group": 1e-5}
"""Kind of norm -> the constant that is added to the variance."""

GROUPS = 32
"""Groups of the group norm, if this number divides the channels."""

PADDINGS = ("zeros", "reflect", "partial")


class Norm(nn.Module):
    """nu + delta (.) normalised(r), with a gain delta and a bias nu for each channel; computed in float32 or float64.

    ``instance``: over the voxels of a patch (gamma-Net). ``batch``: over the voxels of all patches, always those of
    this batch (C-RBP). ``rms``, ``channel``: over the channels of a voxel, without and with subtracting their mean, so
    that a patch's result does not depend on its extent. ``group``: over voxels and groups of channels.
    """

    def __init__(self, channels: int, kind: str, gain: float, epsilon: float | None = None) -> None:
        super().__init__()
        self.kind = one_of("norm", kind, NORMS)
        self.epsilon = NORMS[kind] if epsilon is None else epsilon
        self.gain = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, r: Tensor) -> Tensor:
        """(b, c, n) -> the same shape, float32 or float64."""
        r = wide(r)
        if self.kind == "group":
            normalised = F.group_norm(r, gcd(GROUPS, r.shape[1]), eps=self.epsilon)
            return normalised * per_channel(self.gain, r) + per_channel(self.bias, r)
        axes = {"instance": self._voxels(r), "batch": (0, *self._voxels(r))}.get(self.kind, (1,))
        if self.kind != "rms":
            r = r - r.mean(axes, keepdim=True)
        r = r * torch.rsqrt(r.square().mean(axes, keepdim=True) + self.epsilon)
        return r * per_channel(self.gain, r) + per_channel(self.bias, r)

    @staticmethod
    def _voxels(r: Tensor) -> tuple[int, ...]:
        return tuple(range(2, r.ndim))


def optional_norm(channels: int, kind: str | None, gain: float, epsilon: float | None = None) -> nn.Module:
    """A norm; the identity if ``kind`` is None."""
    return nn.Identity() if kind is None else Norm(channels, kind, gain, epsilon)


def wide(r: Tensor) -> Tensor:
    """The same numbers with at least 32 bits."""
    return r if r.dtype == torch.float64 else r.float()


def per_channel(p: Tensor, r: Tensor) -> Tensor:
    """(c,) -> (1, c, 1, 1) or (1, c, 1, 1, 1), so that it broadcasts with r."""
    return p.view(1, -1, *[1] * (r.ndim - 2))


def convolve(r: Tensor, kernel: Tensor, padding: str = "zeros") -> Tensor:
    """Cross-correlation that keeps the shape: (b, i, n) with (o, i, k) -> (b, o, n).

    padding: ``zeros``; ``reflect``, at the border; ``partial``, zeros, and the result times the share of the kernel
    that lies inside, inverted (Liu et al. 2018, "Partial convolution based padding").
    """
    sides = half(tuple(kernel.shape[2:]))
    operation = F.conv2d if len(sides) == 2 else F.conv3d
    if padding == "reflect":
        return operation(F.pad(r, [side for side in reversed(sides) for _ in range(2)], mode=padding), kernel)
    result = operation(r, kernel, padding=sides)
    if padding == "partial":
        inside = operation(torch.ones_like(r[:1, :1]), torch.ones_like(kernel[:1, :1]), padding=sides)  # (1, 1, n)
        result = result * (prod(kernel.shape[2:]) / inside)
    return result


def same_conv(inside: int, outside: int, kernel: Sequence[int], bias: bool = True) -> nn.Conv2d | nn.Conv3d:
    """A convolution of the kernel's dimension that keeps the shape."""
    sides = as_kernel(kernel)
    if len(sides) == 2:
        return nn.Conv2d(inside, outside, sides, padding=half(sides), bias=bias)  # type: ignore[arg-type]
    return nn.Conv3d(inside, outside, sides, padding=half(sides), bias=bias)  # type: ignore[arg-type]


def point_conv(inside: int, outside: int, dimension: int, bias: bool = True) -> nn.Conv2d | nn.Conv3d:
    """A convolution of one voxel: a matrix over channels."""
    return same_conv(inside, outside, (1,) * dimension, bias=bias)


def orthogonal(outside: int, inside: int, kernel: Kernel) -> Tensor:
    """A random kernel (o, i, k) whose rows are orthonormal, or whose columns are if it has fewer of them."""
    return nn.init.orthogonal_(torch.empty(outside, inside, *kernel))


def chronos(channels: int, steps: int) -> Tensor:
    """log U(1, T - 1), (c,): biases of gates that remember for up to T steps (Tallec and Ollivier 2018)."""
    return torch.empty(channels).uniform_(1, max(steps - 1, 1) + 1e-3).log()


def half(kernel: Kernel) -> Kernel:
    """The padding that keeps the shape under an odd kernel."""
    if any(k % 2 == 0 for k in kernel) or prod(kernel) < 1:
        raise ModelError(f"kernel {kernel} has an even side; kernels need a middle: use odd sides")
    return tuple(k // 2 for k in kernel)


def as_kernel(values: Sequence[int], dimension: int | None = None) -> Kernel:
    """Two or three integers as a tuple; cards hold lists. ``dimension`` is the required number of them."""
    wanted = {2: "two: y, x", 3: "three: z, y, x"}
    if len(values) not in wanted or dimension not in (None, len(values)):
        need = wanted.get(dimension or 0, "two or three: (z,) y, x")
        raise ModelError(f"{tuple(values)} has {len(values)} numbers; strides, pools and kernels need {need}")
    return tuple(int(value) for value in values)


def one_of(what: str, value: str, choices: Sequence[str] | dict[str, float]) -> str:
    """The value, if it is among the choices; else ``ModelError``."""
    if value not in choices:
        names = [repr(choice) for choice in choices]
        raise ModelError(f"{what} is {value!r}; it must be {', '.join(names[:-1])} or {names[-1]}")
    return value
