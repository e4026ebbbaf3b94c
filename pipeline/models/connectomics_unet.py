"""The customisable U-Net of PyTorch Connectomics (Lin et al. 2021, arXiv:2112.05754): 2D, 3D, and mixed.

An isotropic level has kernels of 3 x 3 x 3, and the step down to it halves z, y and x; the others have kernels of 1 x 3
x 3, and the step halves y and x alone. With all levels anisotropic and ``dimensions`` 2, sections are computed apart.
All levels are isotropic for isotropic voxels. The default is mixed: for thick sections, whose voxels become cubes after
two levels.

    image -> f N C -> L0 ----------------- + -> R -> C + b -> logits       C convolution    N norm    f ELU
                      | halve              | up f N C                      L = R f N C: a level on the way down
                      L1 --------- + -> R -'                               R  residual block:
                      | halve      | up f N C                                R(x) = f(x + N C f N C x)
                      L2 ----------'                                         R(x) = f(x + SE(N C f N C x)) "residual_se"

    SE(x) = x . s(W2 f(W1 mean(x)))                    squeeze and excitation: one factor for each channel of a patch
    plus:  a non-local block at the lowest level, whose output is added to every level on the way up:
           x + N W softmax(theta(x)^T phi(x)) g(x);    a level's sum gets up f N C lowest as well

The published code (2021) has these quirks, which are not here; ``published=True`` brings back all but 4, so that
parameters can be counted and weights compared (``pytc.py``):

1. Residual blocks ignore that their level is isotropic: all their kernels are 1 x 3 x 3. Here they follow the level.
2. The squeeze divides the channels by 16 in two dimensions, by 4 in three. Here it is always 4.
3. Strided convolutions need sides of 2 n + 1 (17 x 257 x 257). Here a plane is repeated at the end of even sides and
   cut off again, so that patches are multiples as everywhere; sides of 2 n + 1 still go through as they are.
4. Its instance norm has no gain and bias, its group norm 8 groups in 3D and 16 in 2D. Here ``instance`` has them;
   ``plain_instance``, ``group8`` and ``group16`` are theirs.
5. The key of the non-local block has a bias, which has no effect before the softmax. Here it has none.

6. The output of the lowest level that plus adds is padded by a voxel to every side before its 1 x 1 x 1 convolution and
   then resized to the level, so its voxels are displaced. Here it is not padded.

Heads B, BC and BCD (foreground, contour, signed distance): ``heads`` names the output channels, ``activate`` gives
each its activation. Without heads, the outputs are affinities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.axes import as_vec, total_stride
from pipeline.models.cells.blocks import half
from pipeline.models.residual_unet import norm_layer
from pipeline.models.staged import Stage, SymmetricUNet
from pipeline.models.staged import activation as activation_of

HEADS: dict[str, tuple[str, ...]] = {
    "B": ("foreground",),
    "BC": ("foreground", "contour"),
    "BCD": ("foreground", "contour", "distance"),
}
"""Names of the output channels of the U3D-B, -BC and -BCD models."""

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (24, 32, 48, 64), "isotropy": (True,) * 4, "stride": (2, 2, 2), "io_kernel": (3, 3, 3)},
    "base": {},
    "paper": {"widths": (32, 64, 96, 128, 160)},
    "paper_plus": {"widths": (32, 64, 96, 128, 160), "block": "residual_se", "plus": True},
    "isotropic": {"isotropy": (True,) * 5},
    "2d": {"isotropy": (False,) * 5, "dimensions": 2},
}
"""Arguments of named sizes: tiny for a CPU and isotropic voxels; base with the code's widths, paper with those of
the paper's experiments, for thick sections; isotropic for cubic voxels; 2d for each section by itself."""

BLOCKS = ("residual", "residual_se", "residual_pa", "residual_se_pa")
PADDINGS = ("replicate", "zeros", "reflect", "circular")


class Parts:
    """Makes the layers of one network: padding, norm, f, orthogonal initial weights."""

    def __init__(self, padding: Any, norm: str, rise: Callable[[], nn.Module]) -> None:
        self.padding, self.kind, self.rise = padding, norm, rise

    def conv(
        self, inside: int, outside: int, kernel: Triple, stride: Triple = (1, 1, 1), bias: bool = False, wide: int = 0
    ) -> nn.Conv3d:
        """C: a convolution that keeps the shape, adds ``wide`` voxels to each side, or divides it by the stride."""
        sides = [side + wide for side in half(kernel)]
        layer = nn.Conv3d(inside, outside, kernel, stride, as_vec(sides), bias=bias, padding_mode=self.padding)
        nn.init.orthogonal_(layer.weight)
        return layer

    def norm(self, channels: int) -> nn.Module:
        """N."""
        return norm_layer(self.kind, channels, 0.1)

    def unit(
        self, inside: int, outside: int, kernel: Triple, stride: Triple = (1, 1, 1), wide: int = 0
    ) -> nn.Sequential:
        """C, N and f."""
        return nn.Sequential(self.conv(inside, outside, kernel, stride, wide=wide), self.norm(outside), self.rise())


class SqueezeExcitation(nn.Module):
    """SE(x) = x . s(W2 f(W1 mean(x))): the channels' means decide the factor of each channel."""

    def __init__(self, channels: int, reduction: int, rise: Callable[[], nn.Module] = nn.ELU) -> None:
        super().__init__()
        self.f = rise()
        few = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, few, bias=False)  # W1
        self.excite = nn.Linear(few, channels, bias=False)  # W2
        for layer in (self.squeeze, self.excite):
            nn.init.orthogonal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape."""
        factor = torch.sigmoid(self.excite(self.f(self.squeeze(x.mean((2, 3, 4))))))  # (b, c)
        return x * factor[:, :, None, None, None]


class ResidualBlock(nn.Module):
    """R(x) = f(x + N C f(N C x)), or, with ``pre``, x + C f(N C f(N x)); with or without SE before the sum."""

    def __init__(self, channels: int, kernel: Triple, reduction: int | None, parts: Parts, pre: bool) -> None:
        super().__init__()
        conv, norm = (lambda: parts.conv(channels, channels, kernel)), (lambda: parts.norm(channels))
        if pre:
            self.conv1 = nn.Sequential(norm(), parts.rise(), conv())
            self.conv2 = nn.Sequential(norm(), parts.rise(), conv())
        else:
            self.conv1 = parts.unit(channels, channels, kernel)
            self.conv2 = nn.Sequential(conv(), norm())
        self.gate = nn.Identity() if reduction is None else SqueezeExcitation(channels, reduction, parts.rise)
        self.f = nn.Identity() if pre else parts.rise()

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape."""
        return self.f(x + self.gate(self.conv2(self.conv1(x))))  # type: ignore[no-any-return]


class NonLocal(nn.Module):
    """x + N W softmax(theta(x)^T phi(x)) g(x): each voxel sees all others (Wang et al. 2018).

    The gain of the norm begins at 0, so the block begins as the identity.
    """

    def __init__(self, channels: int, norm: str, key_bias: bool) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.g = nn.Conv3d(channels, inner, 1)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1, bias=key_bias)
        self.w = nn.Conv3d(inner, channels, 1)
        self.norm = norm_layer(norm, channels, 0.1)
        for name, parameter in self.norm.named_parameters():
            if name in ("weight", "gain"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape; memory grows with the square of the voxels."""
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))  # (b, c / 2, voxels)
        share = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)  # (b, voxels, voxels)
        seen = (share @ g.transpose(1, 2)).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])  # (b, c / 2, z, y, x)
        return self.norm(self.w(seen)) + x  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """One level up: narrow, enlarge, add the skip connection (and the lowest level for plus), residual block."""

    def __init__(self, narrow: nn.Module, plus: nn.Module | None, block: nn.Module, aligned: bool) -> None:
        super().__init__()
        self.narrow, self.plus, self.block, self.aligned = narrow, plus, block, aligned

    def forward(self, x: Tensor, skip: Tensor, lowest: Tensor) -> Tensor:
        """(b, c, z, y, x), skip (b, c', z', y', x'), output of the lowest level -> (b, c', z', y', x')."""
        total = self._enlarged(self.narrow(x), skip) + skip
        if self.plus is not None:
            total = self._enlarged(self.plus(lowest), skip) + total
        return self.block(total)  # type: ignore[no-any-return]

    def _enlarged(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=self.aligned)


class ConnectomicsUNet(SymmetricUNet):
    """The network; its arguments stand in a model card.

    widths: channels of each level.              isotropy: whether each level is isotropic.
    block: "residual", "residual_se", or with norm and f before each convolution "residual_pa", "residual_se_pa".
    plus: non-local block and the lowest level sent to all others.
    pooling: max pools halve; else strided convolutions do, whose outputs lie on every second voxel.
    norm: see ``norm_layer``.                    activation: f, a name of ``ACTIVATIONS``.
    padding: "replicate" (the paper), "zeros", "reflect" or "circular".
    io_kernel: of first and last convolution; 5 x 5 x 5 if all levels are isotropic, else 1 x 5 x 5.
    stride: the levels work at a resolution lower by this factor; space becomes channels and back, nothing is dropped.
    dimensions: 3, or 2 for sections apart.      heads: "B", "BC" or "BCD" instead of ``out_channels``.
    published: with the quirks 1, 2, 3, 5 and 6 of the published code.
    """

    def __init__(
        self,
        widths: Sequence[int] = (28, 36, 48, 64, 80),
        isotropy: Sequence[bool] = (False, False, False, True, True),
        block: str = "residual",
        plus: bool = False,
        pooling: bool = False,
        norm: str = "batch",
        activation: str = "elu",
        padding: str = "replicate",
        io_kernel: Sequence[int] | None = None,
        stride: Sequence[int] = (1, 1, 1),
        dimensions: int = 3,
        in_channels: int = 1,
        out_channels: int = 12,
        heads: str | None = None,
        published: bool = False,
    ) -> None:
        super().__init__(out_channels if heads is None else len(_head(heads)), dimensions, stride)
        _check(widths, isotropy, block, padding, dimensions)
        self.widths, self.pooling, self.heads, self.published = tuple(widths), pooling, heads, published
        self.halvings: list[Triple] = [(2, 2, 2) if cubic else (1, 2, 2) for cubic in isotropy[1:]]
        inside = self.stride[0] * self.stride[1] * self.stride[2]
        self.image_channels, self.padding = in_channels, padding
        self.in_channels, self.last_channels = in_channels * inside, self.out_channels * inside
        parts, kernels = Parts(padding, norm, activation_of(activation)), [_kernel(cubic) for cubic in isotropy]
        reduction = (16 if published and dimensions == 2 else 4) if "se" in block else None
        blocks = [_kernel(cubic and not published) for cubic in isotropy]
        ends = _io_kernel(io_kernel, all(isotropy))
        self.reach = [max(sides) for sides in zip(half(ends), half(kernels[0]), strict=True)]

        def residual(level: int) -> ResidualBlock:
            return ResidualBlock(widths[level], blocks[level], reduction, parts, block.endswith("_pa"))

        self.entry = parts.unit(self.in_channels, widths[0], ends)
        self.down = nn.ModuleList([nn.Sequential(parts.unit(widths[0], widths[0], kernels[0]), residual(0))])
        for i, (a, b) in enumerate(pairwise(widths), start=1):
            pool = [nn.MaxPool3d(self.halvings[i - 1])] if pooling else []
            step = (1, 1, 1) if pooling else self.halvings[i - 1]
            self.down.append(nn.Sequential(*pool, parts.unit(a, b, kernels[i], step), residual(i)))
        if plus:
            self.down[-1].append(NonLocal(widths[-1], norm, key_bias=published))  # type: ignore[union-attr, operator]
        self.up = nn.ModuleList()
        for i in reversed(range(len(widths) - 1)):
            sent = parts.unit(widths[-1], widths[i], (1, 1, 1), wide=int(published)) if plus else None
            narrow = parts.unit(widths[i + 1], widths[i], kernels[i + 1])
            self.up.append(UpBlock(narrow, sent, residual(i), aligned=not pooling))
        self.exit = parts.conv(widths[0], self.last_channels, ends, bias=True)

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        return total_stride(self.halvings, self.stride)

    @property
    def remainders(self) -> tuple[int, ...]:
        """Sides of multiples plus one go through strided levels as they are; the published code takes no others."""
        if self.pooling:
            return (0,)
        if self.published:
            return (1,)
        return (0, 1) if self.stride == (1, 1, 1) else (0,)

    @property
    def minimum(self) -> Triple:
        """Reflected and circular borders are copied out of the patch, which must be as large at every level."""
        if self.padding not in ("reflect", "circular"):
            return 1, 1, 1
        mirror = int(self.padding == "reflect")  # the plane at the border itself is not copied
        lowest = 1 + mirror if self.pooling else mirror  # strided levels have one plane more
        first = [side + mirror for side in self.reach]
        axes = zip(first, self.stride, total_stride(self.halvings), strict=True)
        z, y, x = (s * max(1, side, lowest * m if m > 1 else 1) for side, s, m in axes)
        return z, y, x

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Levels down, levels up, exit; the entry belongs to the first."""
        w = self.widths
        down = [Stage(self.in_channels, w[0], 4), *(Stage(a, b, 3) for a, b in pairwise(w))]
        return (*down, *(Stage(b, a, 3) for a, b in reversed(list(pairwise(w)))), Stage(w[0], self.last_channels, 1))

    def check(self, patch: Triple) -> None:
        """Refuse a patch that the levels cannot halve; strided levels also accept multiples plus one."""
        if self.published:
            return
        if 1 in self.remainders:
            z, y, x = (n - 1 if n % m == 1 else n for n, m in zip(patch, self.multiple, strict=True))
            patch = z, y, x
        super().check(patch)

    def prepare(self, image: Tensor) -> Tensor:
        """Image -> input of level 0, with a plane repeated at the end of even sides for strided levels (quirk 3)."""
        x = super().prepare(image)
        return x if self.pooling or self.published else F.pad(x, self._missing(x), mode="replicate")

    def finish(self, x: Tensor, image: Tensor) -> Tensor:
        """Output of the last stage, without the planes that ``prepare`` added -> logits."""
        z, y, x_ = (n // s for n, s in zip(image.shape[2:], self.stride, strict=True))
        return super().finish(x[:, :, : 1 if self.dimensions == 2 else z, :y, :x_], image)

    def _missing(self, x: Tensor) -> list[int]:
        """Planes to add before and behind x, y, z."""
        halved = total_stride(self.halvings)
        behind = [int(m > 1 and n % m == 0) for n, m in zip(x.shape[2:], halved, strict=True)]
        return [0, behind[2], 0, behind[1], 0, behind[0]]

    def activate(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits (b, heads, z, y, x) -> name of a head: foreground and contour from 0 to 1, distance from -1 to 1."""
        if self.heads is None:
            raise ModelError("this network has no heads, its outputs are affinities; give heads 'B', 'BC' or 'BCD'")
        channels = zip(HEADS[self.heads], logits.unbind(1), strict=True)
        return {name: torch.tanh(r) if name == "distance" else torch.sigmoid(r) for name, r in channels}


def _kernel(cubic: bool) -> Triple:
    return (3, 3, 3) if cubic else (1, 3, 3)


def _io_kernel(given: Sequence[int] | None, cubic: bool) -> Triple:
    z, y, x = given or ((5, 5, 5) if cubic else (1, 5, 5))
    return z, y, x


def _head(name: str) -> tuple[str, ...]:
    if name not in HEADS:
        raise ModelError(f"heads is {name!r}; it must be one of {', '.join(HEADS)}")
    return HEADS[name]


def _check(widths: Sequence[int], isotropy: Sequence[bool], block: str, padding: str, dimensions: int) -> None:
    if len(widths) != len(isotropy) or len(widths) < 2:
        raise ModelError(
            f"{len(widths)} widths and {len(isotropy)} entries of isotropy; each level needs one of each, and there "
            "must be at least two levels"
        )
    if block not in BLOCKS or padding not in PADDINGS:
        raise ModelError(
            f"block is {block!r}, padding {padding!r}; block must be one of {', '.join(BLOCKS)}, "
            f"padding one of {', '.join(PADDINGS)}"
        )
    if dimensions == 2 and any(isotropy):
        raise ModelError("dimensions is 2 and a level isotropic; in sections apart, all levels must be anisotropic")
