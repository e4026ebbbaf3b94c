"""A plain residual U-Net, shaped to what processors compute fastest.

Convolutions of 32, 64 or 128 channels, in bfloat16 and with the channels last in memory, run several times faster
than others of the same number of multiply-adds (``benchmarks/network.py`` measures it). So this network consists of
little else:

    image -> space to channels -> entry -> M0 ---------------------- + -> M0' -> exit -> channels to space -> logits
             (stride)                      | pool                    | up         (stride)
                                           M1 --------------- + -> M1'
                                           | pool             | up
                                           M2 ------> ...

    M   y = f(N C1 x),   f(N C3 f(N C2 y) + y)         C  convolution, N  batch norm, f  ReLU
    up  skip + N T x, T a transposed convolution whose kernel and stride are the pool

The body works at a resolution lower by ``stride``. Widths are multiples of 32; each norm stands directly behind a
convolution, so it folds into its weights (``folding.py``), and what runs has no norm at all.

Shapes: b = batch, c = channels of a level; z, y, x are those of the level.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.axes import as_vec, total_stride
from pipeline.models.cells.blocks import half
from pipeline.models.folding import ConvNorm, first_outputs
from pipeline.models.staged import Stage, SymmetricUNet

FLAT, CUBE = (1, 3, 3), (3, 3, 3)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "base": {"widths": (64, 128, 256, 256)},
    "tiny_thick": {
        "kernels": (FLAT, CUBE, CUBE, CUBE),
        "pools": ((1, 2, 2), (1, 2, 2), (2, 2, 2)),
        "stride": (1, 2, 2),
    },
    "base_thick": {
        "widths": (64, 128, 256, 256),
        "kernels": (FLAT, CUBE, CUBE, CUBE),
        "pools": ((1, 2, 2), (1, 2, 2), (2, 2, 2)),
        "stride": (1, 2, 2),
    },
}
"""Arguments of named sizes: tiny for a CPU, base for a GPU; for isotropic voxels, and for thick sections."""


def conv_norm(inside: int, outside: int, kernel: Triple) -> ConvNorm:
    """A convolution that keeps the shape, without a bias, and its norm."""
    return ConvNorm(nn.Conv3d(inside, outside, kernel, padding=as_vec(half(kernel)), bias=False))


class Module(nn.Module):
    """Three convolutions, with a residual sum around the last two."""

    layers = 3

    def __init__(self, inside: int, outside: int, kernel: Triple) -> None:
        super().__init__()
        self.first = conv_norm(inside, outside, kernel)
        self.second = conv_norm(outside, outside, kernel)
        self.third = conv_norm(outside, outside, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, z, y, x) -> (b, c', z, y, x)."""
        y = relu(self.first(x))
        return relu(self.third(relu(self.second(y))) + y)


class Up(nn.Module):
    """One level up: enlarge, add the skip connection, and a module."""

    def __init__(self, inside: int, outside: int, pool: Triple, kernel: Triple) -> None:
        super().__init__()
        self.enlarge = ConvNorm(nn.ConvTranspose3d(inside, outside, pool, stride=pool, bias=False))
        self.module = Module(outside, outside, kernel)

    def forward(self, x: Tensor, skip: Tensor, _lowest: Tensor) -> Tensor:
        """(b, c, z, y, x) of the level below, skip (b, c', z', y', x') -> (b, c', z', y', x')."""
        return self.module(skip + self.enlarge(x))  # type: ignore[no-any-return]  # in the memory format of the first


class PlainUNet(SymmetricUNet):
    """The network; its arguments stand in a model card.

    widths: channels of each level, multiples of 32.    kernels: of the convolutions of each level.
    pools: max pools between levels.                    in_channels, out_channels: of the image, and affinities.
    stride: the body works at a resolution lower by this factor; space becomes channels and back, nothing is dropped.
    """

    exit: nn.Conv3d
    whole_in_bfloat16 = True
    """With precision bfloat16 its weights are bfloat16 too; autocast would convert them in every pass."""

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 128),
        kernels: Sequence[Sequence[int]] = (CUBE,) * 4,
        pools: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
        stride: Sequence[int] = (2, 2, 2),
        in_channels: int = 1,
        out_channels: int = 9,
    ) -> None:
        super().__init__(out_channels, 3, stride)
        check_levels(widths, kernels, pools)
        self.widths, self.pools = tuple(widths), [as_vec(pool) for pool in pools]
        sizes = [as_vec(kernel) for kernel in kernels]
        block = self.stride[0] * self.stride[1] * self.stride[2]
        self.image_channels = in_channels
        self.in_channels, self.last_channels = in_channels * block, out_channels * block
        first = widths[0]
        self.entry = nn.Sequential(conv_norm(self.in_channels, first, sizes[0]), nn.ReLU(inplace=True))
        self.down = nn.ModuleList([Module(first, first, sizes[0])])
        for (a, b), pool, size in zip(pairwise(widths), self.pools, sizes[1:], strict=True):
            self.down.append(nn.Sequential(nn.MaxPool3d(pool), Module(a, b, size)))
        gaps = zip(pairwise(widths), self.pools, sizes[:-1], strict=True)
        self.up = nn.ModuleList(Up(b, a, pool, size) for (a, b), pool, size in reversed(list(gaps)))
        self.exit = nn.Conv3d(first, self.last_channels, 1)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        return total_stride(self.pools, self.stride)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Levels down, levels up, exit; the entry belongs to the first."""
        w, n = self.widths, Module.layers
        down = [Stage(self.in_channels, w[0], 1 + n), *(Stage(a, b, n) for a, b in pairwise(w))]
        up = [Stage(b, a, 1 + n) for a, b in reversed(list(pairwise(w)))]
        return (*down, *up, Stage(w[0], self.last_channels, 1))

    def prepare(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) -> (b, c, z, y, x) of level 0, channels last in memory, in the precision of weights."""
        x = super().prepare(image.to(self.exit.weight.dtype))
        return x.contiguous(memory_format=torch.channels_last_3d)

    def narrowed(self, channels: int) -> PlainUNet:
        """A copy that computes only the first channels; a run writes three of those that were trained."""
        result, kept = copy.deepcopy(self), channels * (self.last_channels // self.out_channels)
        result.exit, result.out_channels, result.last_channels = first_outputs(self.exit, kept), channels, kept
        return result


def relu(x: Tensor) -> Tensor:
    """ReLU; in place, since nothing else reads what a convolution or a sum has just written."""
    return F.relu(x, inplace=True)


def check_levels(widths: Sequence[int], kernels: Sequence[Any], pools: Sequence[Any]) -> None:
    """Refuse lists of other lengths, and widths that are no multiples of 32."""
    if len(widths) < 2 or (len(kernels), len(pools)) != (len(widths), len(widths) - 1):
        raise ModelError(
            f"{len(widths)} widths, {len(kernels)} kernels and {len(pools)} pools; at least two levels are needed, "
            "a kernel for each, and a pool for each gap between levels"
        )
    if wrong := [width for width in widths if width < 1 or width % 32]:
        raise ModelError(
            f"widths are {list(widths)}; {wrong[0]} is no multiple of 32, and other widths waste most of what a "
            "processor can do: choose multiples of 32"
        )
