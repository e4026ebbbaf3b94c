"""The residual symmetric U-Net of Lee, Zung, Li, Jain and Seung 2017, in three and two dimensions.

"Superhuman Accuracy on the SNEMI3D Connectomics Challenge" (arXiv:1706.00120); its successor by the same group, the
RSUNet of DeepEM, is the same network with norm and activation before each convolution. Other networks are compared with
it.

    image -> entry -> M0 --------------------- + -> M0' -> exit -> logits      M  module of three or four convolutions
                      | pool                   | up                            +  sum with the skip connection
                      M1 ------------- + -> M1'
                      | pool           | up
                      M2 ------> ...

order "post" (Lee et al.)                              order "pre" (DeepEM)
    y  = f(N1 C1 x)               first kernel              y  = C1 f(N1 x)
    M  = f(N3 (C3 f(N2 C2 y) + y))                          r  = y + C3 f(N3 C2 f(N2 y))
                                                            M  = C4 f(N4 r)
    f = ELU; after the sum with the skip: f(N .)            f = ReLU; nothing after the sum with the skip
    entry  f(C x + b), 1 x 5 x 5                            entry  C x, 1 x 5 x 5
    exit   C' f(C x + b) + b', 1 x 5 x 5 and 1 x 1 x 1      exit   C f(N x) + b, 1 x 5 x 5

The paper leaves three points open, in which its readings differ; all are arguments: the first kernel of a module
(1 x 3 x 3, or 3 x 3 x 3), how it goes up (``UPSAMPLING``), and the widths. ``SIZES`` names the readings.

Shapes: b = batch, c = channels of a level; z, y, x are those of the level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.axes import as_vec, total_stride
from pipeline.models.cells.blocks import Norm, half
from pipeline.models.staged import Stage, SymmetricUNet
from pipeline.models.staged import activation as activation_of

UPSAMPLING = ("transposed", "linear", "fixed", "published")
"""transposed: each channel by itself, kernel = pool, then 1 x 1 x 1. linear: interpolated, then 1 x 1 x 1. fixed: by a
transposed convolution with constant (bi)linear weights that sees zeros beyond the border, then 1 x 1 x 1 (no bias).
published: the same with DeepEM's weights, which do not fall along z: where z is pooled, they are twice too large."""

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "widths": (24, 32, 48, 64),
        "pools": ((2, 2, 2),) * 3,
        "first_kernel": (3, 3, 3),
        "embedding": (3, 3, 3),
        "stride": (2, 2, 2),
    },
    "lee": {},
    "superhuman": {"widths": (24, 32, 48, 72, 104), "first_kernel": (3, 3, 3), "upsample": "linear"},
    "rsunet": {"widths": (16, 32, 64, 128), "order": "pre", "first_kernel": (3, 3, 3), "upsample": "fixed"},
    "2d": {"dimensions": 2},
}
"""Arguments of named sizes: tiny for a CPU and isotropic voxels; the others for thick sections. lee is the usual
reading of the paper (1,479,060 parameters with 12 outputs), superhuman that of the authors' own later code
(2,216,052), rsunet DeepEM's (2,658,972), 2d the first in each section by itself."""


def norm_layer(kind: str, channels: int, momentum: float) -> nn.Module:
    """``batch`` (the papers), ``instance`` over the voxels of a patch, or ``rms`` over the channels of a voxel.

    Options of the published codes: ``plain_instance`` without gain and bias, ``group8`` and ``group16`` over voxels and
    so many groups of channels, ``none``.
    """
    if kind in ("instance", "rms"):
        return Norm(channels, kind, gain=1.0)
    published: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm3d(channels, momentum=momentum),
        "plain_instance": lambda: nn.InstanceNorm3d(channels),
        "group8": lambda: nn.GroupNorm(8, channels),
        "group16": lambda: nn.GroupNorm(16, channels),
        "none": nn.Identity,
    }
    if kind not in published:
        names = "'batch', 'instance', 'rms', 'plain_instance', 'group8', 'group16' or 'none'"
        raise ModelError(f"norm is {kind!r}; it must be {names}")
    return published[kind]()


class Parts:
    """Makes the layers of one network: kernels flattened in two dimensions, the norm, initial weights."""

    def __init__(self, dimensions: int, norm: str, momentum: float, rise: Callable[[], nn.Module] = nn.ELU) -> None:
        self.dimensions, self.kind, self.momentum, self.rise = dimensions, norm, momentum, rise

    def flat(self, kernel: Sequence[int]) -> Triple:
        """The kernel, one voxel thick if sections are computed apart."""
        z, y, x = as_vec(kernel)
        return (z, y, x) if self.dimensions == 3 else (1, y, x)

    def conv(self, inside: int, outside: int, kernel: Sequence[int], bias: bool = False) -> nn.Conv3d:
        """A convolution that keeps the shape, with He's initial weights (as both codes)."""
        size = self.flat(kernel)
        layer = nn.Conv3d(inside, outside, size, padding=as_vec(half(size)), bias=bias)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer

    def norm(self, channels: int) -> nn.Module:
        """The norm of this network."""
        return norm_layer(self.kind, channels, self.momentum)


class PostModule(nn.Module):
    """Lee et al.: a convolution, then two with a residual sum; norm and ELU after each."""

    layers = 3

    def __init__(self, inside: int, outside: int, first: Triple, parts: Parts) -> None:
        super().__init__()
        self.f = parts.rise()
        self.conv1, self.norm1 = parts.conv(inside, outside, first), parts.norm(outside)
        self.conv2, self.norm2 = parts.conv(outside, outside, (3, 3, 3)), parts.norm(outside)
        self.conv3, self.norm3 = parts.conv(outside, outside, (3, 3, 3)), parts.norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> (b, c', z, y, x)."""
        y = self.f(self.norm1(self.conv1(x)))
        residual = self.conv3(self.f(self.norm2(self.conv2(y))))
        return self.f(self.norm3(residual + y))  # type: ignore[no-any-return]


class PreModule(nn.Module):
    """DeepEM: four times norm, ReLU, convolution; the middle two are a residual."""

    layers = 4

    def __init__(self, inside: int, outside: int, first: Triple, parts: Parts) -> None:
        super().__init__()
        self.f = parts.rise()
        self.norm1, self.conv1 = parts.norm(inside), parts.conv(inside, outside, first)
        self.norm2, self.conv2 = parts.norm(outside), parts.conv(outside, outside, (3, 3, 3))
        self.norm3, self.conv3 = parts.norm(outside), parts.conv(outside, outside, (3, 3, 3))
        self.norm4, self.conv4 = parts.norm(outside), parts.conv(outside, outside, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> (b, c', z, y, x)."""
        y = self.conv1(self.f(self.norm1(x)))
        r = y + self.conv3(self.f(self.norm3(self.conv2(self.f(self.norm2(y))))))
        return self.conv4(self.f(self.norm4(r)))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """(b, c, z, y, x) -> (b, c', z pz, y py, x px), in one of the ways of ``UPSAMPLING``."""

    kernel: Tensor

    def __init__(self, inside: int, outside: int, pool: Triple, how: str, parts: Parts) -> None:
        super().__init__()
        if how not in UPSAMPLING:
            raise ModelError(f"upsample is {how!r}; it must be one of {', '.join(UPSAMPLING)}")
        self.how, self.pool = how, pool
        self.project = parts.conv(inside, outside, (1, 1, 1), bias=how in ("transposed", "linear"))
        if how == "transposed":
            self.grow = nn.ConvTranspose3d(inside, inside, pool, stride=pool, groups=inside)
        if how in ("fixed", "published"):
            self.register_buffer("kernel", linear_kernel(inside, pool, flat=how == "published"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge each channel, then mix channels."""
        if self.how == "transposed":
            x = self.grow(x)
        elif self.how == "linear":
            scale = [float(p) for p in self.pool]
            x = F.interpolate(x, scale_factor=scale, mode="trilinear", align_corners=False)
        else:
            margin = [p // 2 for p in self.pool]
            x = F.conv_transpose3d(x, self.kernel.to(x.dtype), None, self.pool, margin, groups=x.shape[1])
        return self.project(x)  # type: ignore[no-any-return]


def linear_kernel(channels: int, pool: Triple, flat: bool = False) -> Tensor:
    """Weights (c, 1, kz, ky, kx) of a transposed convolution that interpolates linearly, as in Caffe.

    Along an axis with factor p the kernel has 2 p - (p mod 2) weights, 1 - |k / f - c|. DeepEM's own weights are
    constant along z (``flat``), which is the same where z is not pooled and twice too large where it is.
    """
    kernel = torch.ones(1)
    for axis, p in enumerate(pool):
        size = 2 * p - p % 2
        f = (size + 1) // 2
        line = 1 - (torch.arange(size) / f - (size - 1) / (2 * f)).abs()
        if flat and axis == 0:
            line = torch.ones(size)
        kernel = kernel[..., None] * line
    return kernel.expand(channels, 1, *kernel.shape[1:]).contiguous()


class Up(nn.Module):
    """One level up: enlarge, add the skip connection (then norm and f in order "post"), and a module."""

    def __init__(self, enlarge: Upsample, norm: nn.Module | None, module: nn.Module, rise: nn.Module) -> None:
        super().__init__()
        self.enlarge, self.norm, self.module, self.f = enlarge, norm, module, rise

    def forward(self, x: Tensor, skip: Tensor, _lowest: Tensor) -> Tensor:
        """(b, c, z, y, x) of the level below, skip (b, c', z', y', x') -> (b, c', z', y', x')."""
        x = self.enlarge(x) + skip
        return self.module(x if self.norm is None else self.f(self.norm(x)))  # type: ignore[no-any-return]


class ResidualUNet(SymmetricUNet):
    """The network; its arguments stand in a model card.

    widths: channels of each level.              pools: max pools between levels; one vector stands for all.
    order: "post" (Lee et al.) or "pre" (DeepEM).
    upsample: see ``UPSAMPLING``.                first_kernel: of the first convolution of each module.
    embedding: kernel of entry and exit.         norm: see ``norm_layer``.
    momentum: of the running statistics of a batch norm.
    activation: f, a name of ``ACTIVATIONS``; "elu" in the order "post" and "relu" in "pre", if left out.
    stride: the levels work at a resolution lower by this factor; space becomes channels and back, nothing is dropped.
    dimensions: 3, or 2 for sections apart (every kernel and pool then is one voxel thick).
    """

    def __init__(
        self,
        widths: Sequence[int] = (28, 36, 48, 64, 80),
        pools: Sequence[Sequence[int]] = ((1, 2, 2),),
        order: Literal["post", "pre"] = "post",
        upsample: str = "transposed",
        first_kernel: Sequence[int] = (1, 3, 3),
        embedding: Sequence[int] = (1, 5, 5),
        norm: str = "batch",
        momentum: float = 0.1,
        activation: str | None = None,
        stride: Sequence[int] = (1, 1, 1),
        dimensions: int = 3,
        in_channels: int = 1,
        out_channels: int = 12,
    ) -> None:
        super().__init__(out_channels, dimensions, stride)
        if order not in ("post", "pre"):
            raise ModelError(f"order is {order!r}; it must be 'post' (Lee et al.) or 'pre' (DeepEM)")
        rise = activation_of(activation or ("elu" if order == "post" else "relu"))
        parts = Parts(dimensions, norm, momentum, rise)
        self.widths, self.pools = tuple(widths), _pools(pools, len(widths), parts)
        inside = self.stride[0] * self.stride[1] * self.stride[2]
        self.image_channels = in_channels
        self.in_channels, self.last_channels = in_channels * inside, out_channels * inside
        module = PostModule if order == "post" else PreModule
        kernel, first, last = parts.flat(first_kernel), widths[0], self.last_channels
        self.module_layers = module.layers

        self.down = nn.ModuleList([module(first, first, kernel, parts)])
        for (a, b), pool in zip(pairwise(widths), self.pools, strict=True):
            self.down.append(nn.Sequential(nn.MaxPool3d(pool), module(a, b, kernel, parts)))
        self.up = nn.ModuleList()
        for (a, b), pool in reversed(list(zip(pairwise(widths), self.pools, strict=True))):
            after_sum = parts.norm(a) if order == "post" else None
            enlarge = Upsample(b, a, pool, upsample, parts)
            self.up.append(Up(enlarge, after_sum, module(a, a, kernel, parts), rise()))
        if order == "post":
            self.entry = nn.Sequential(parts.conv(self.in_channels, first, embedding, bias=True), rise())
            embed = parts.conv(first, first, embedding, bias=True)
            self.exit = nn.Sequential(embed, rise(), parts.conv(first, last, (1, 1, 1), bias=True))
        else:
            self.entry = parts.conv(self.in_channels, first, embedding)
            self.exit = nn.Sequential(parts.norm(first), rise(), parts.conv(first, last, embedding, bias=True))

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        return total_stride(self.pools, self.stride)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Levels down, levels up, exit; the entry belongs to the first."""
        w, n = self.widths, self.module_layers
        down = [Stage(self.in_channels, w[0], 1 + n), *(Stage(a, b, n) for a, b in pairwise(w))]
        enlarge = 2 if isinstance(getattr(self.up[0].enlarge, "grow", None), nn.Module) else 1
        up = [Stage(b, a, enlarge + n) for a, b in reversed(list(pairwise(w)))]
        exit_layers = sum(isinstance(layer, nn.Conv3d) for layer in self.exit.children())
        return (*down, *up, Stage(w[0], self.last_channels, exit_layers))


def _pools(pools: Sequence[Sequence[int]], levels: int, parts: Parts) -> list[Triple]:
    given = [parts.flat(pool) for pool in pools]
    if len(given) == 1:
        given = given * (levels - 1)
    if levels < 2 or len(given) != levels - 1:
        raise ModelError(
            f"{levels} widths and {len(pools)} pools; at least two levels are needed, and a pool for each gap between "
            "levels, or one pool for all gaps"
        )
    return given
