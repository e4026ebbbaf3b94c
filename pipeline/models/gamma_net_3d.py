"""The 3D gamma-Net: recurrent cortical circuits at several scales, for affinities.

After Linsley, Kim, Ashok and Serre 2020 (ICLR, "Recurrent neural circuits for contour detection"; SI equations 2
and 3), carried to three dimensions with anisotropic kernels, and with affinities as output (Lee et al. 2017,
arXiv:1706.00120).

    image -> stem -> X(0)
    T times:   up the hierarchy     H(l) = fGRU(X = B(l), H = H(l)),   B(l+1) = MGU(pool H(l))
               down again           H(l) = fGRU(X = H(l), H = MGU(unpool H(l+1))) + H(l)
    readout of H(0) -> logits, one channel for each offset

Where the paper and the published code differ, or leave a point open, these choices are made: gates' biases come after
the norm (before an instance norm they would have no effect); Chronos signs are those that start the gate slow; X is
rectified; H[0] is the first drive; kernels are symmetric by parametrisation (W = (V + V^T) / 2), so they stay so under
any optimiser.

Shapes: b = batch, c = channels of a level, k = kernel; z, y, x are those of the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.axes import as_vec, channels_to_space, check_multiple, space_to_channels, total_stride
from pipeline.models.cells import State
from pipeline.models.cells.blocks import Norm, one_of, same_conv
from pipeline.models.cells.fgru import FGRU, TopDownFGRU
from pipeline.models.cells.mgu import MGU
from pipeline.models.gamma_net import NETWORK_NORMS, GammaNet

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "widths": (24, 32, 48, 64),
        "horizontal": ((3, 3, 3),) * 4,
        "pools": ((2, 2, 2),) * 3,
        "stride": (2, 2, 2),
        "steps": 3,
    },
    "base": {
        "widths": (24, 28, 36, 48, 64),
        "horizontal": ((1, 7, 7), (3, 5, 5), (3, 5, 5), (3, 3, 3), (3, 3, 3)),
        "pools": ((1, 2, 2),) * 4,
        "stem": (1, 3, 3),
        "down": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        "up": ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
        "local_gate": (1, 3, 3),
        "gate_bias": True,
        "readout": (1, 5, 5),
        "readout_sees_image": False,
        "steps": 8,
    },
}
"""Arguments of named sizes: tiny for a CPU and isotropic voxels, base (the paper's parts) for a GPU and thick sections.

tiny leaves out the convolutions on the way up, and its readout sees the image: cheaper, and as good on small volumes.
"""


class GammaNet3D(GammaNet):
    """The network; its arguments stand in a model card.

    widths: channels of each level.              horizontal: kernel of the fGRU at each level.
    pools: downsampling between levels.          steps: T.
    stride: the levels work at a resolution lower by this factor; space becomes channels and back, nothing is dropped.
    stem, down: kernels of the two convolutions before level 0, and of the one before each level above it.
    up: kernels of the convolutions after each transposed one, finest first; None leaves them out.
    local_gate, gate_bias: kernel of U_IS, and whether U_IG and U_IS have biases.
    readout, readout_sees_image: kernel of the last convolution, which sees H(0), and also X(0) if the second is true.
    out_channels: affinities.                    norm, symmetry: see ``Norm`` and ``SymmetricConv``.
    """

    dimensions = 3
    skip = "first"  # level 1 receives the image as well

    def __init__(
        self,
        widths: Sequence[int],
        horizontal: Sequence[Triple],
        pools: Sequence[Triple],
        stride: Triple = (1, 1, 1),
        stem: Triple = (3, 3, 3),
        down: Sequence[Triple] | None = None,
        up: Sequence[Triple] | None = None,
        local_gate: Triple = (3, 3, 3),
        gate_bias: bool = False,
        readout: Triple = (3, 3, 3),
        readout_sees_image: bool = True,
        steps: int = 4,
        out_channels: int = 12,
        norm: str = "instance",
        symmetry: str = "channel",
    ) -> None:
        super().__init__()
        gaps = len(widths) - 1
        down = [(3, 3, 3)] * gaps if down is None else down
        lengths = [len(widths), len(horizontal), len(pools) + 1, len(down) + 1, gaps + 1 if up is None else len(up) + 1]
        if len(set(lengths)) > 1 or steps < 1:
            raise ModelError(
                f"{len(widths)} widths, {len(horizontal)} horizontal kernels, {len(pools)} pools, {len(down)} kernels "
                f"down and {gaps if up is None else len(up)} up, {steps} steps; each level needs a horizontal kernel, "
                "each gap between levels a pool and kernels, and at least one step is needed"
            )
        one_of("norm", norm, NETWORK_NORMS)
        self.stride, self.steps, self.out_channels = as_vec(stride), steps, out_channels
        self.pools = [as_vec(pool) for pool in pools]
        self.readout_sees_image = readout_sees_image
        inside = self.stride[0] * self.stride[1] * self.stride[2]
        first, unit = widths[0], (norm, symmetry, steps, as_vec(local_gate), gate_bias)
        self.stem = nn.Sequential(
            *(same_conv(inside, first, as_vec(stem)), nn.ELU(), same_conv(first, first, as_vec(stem)), nn.ELU()),
            Norm(first, norm, gain=1.0),
        )
        self.horizontal = nn.ModuleList(FGRU(c, as_vec(k), *unit) for c, k in zip(widths, horizontal, strict=True))
        self.down = nn.ModuleList(
            MGU(same_conv(a, b, as_vec(k)), b, norm) for (a, b), k in zip(pairwise(widths), down, strict=True)
        )
        refine = [None] * gaps if up is None else up
        self.up = nn.ModuleList(
            MGU(unpool(b, a, pool, k, norm), a, norm)
            for (a, b), pool, k in zip(pairwise(widths), self.pools, refine, strict=True)
        )
        self.top_down = nn.ModuleList(TopDownFGRU(c, (1, 1, 1), *unit) for c in widths[:-1])
        self.readout_norm = Norm(first, norm, gain=1.0)
        self.readout = same_conv(first * (1 + readout_sees_image), out_channels * inside, as_vec(readout))

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        return total_stride(self.pools, self.stride)

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, 1, z, y, x) -> X(0): (b, c, z, y, x) of level 0."""
        check_multiple(as_vec(image.shape[2:]), self.multiple)
        return self.stem(space_to_channels(image, self.stride))  # type: ignore[no-any-return]

    def ascend(self, level: int, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The output of a level -> the drive of the next level, and the memory between them."""
        return self.down[level](F.max_pool3d(h, self.pools[level]), memory)  # type: ignore[no-any-return]

    def descend(self, level: int, h: Tensor, memory: Tensor | None, lower: Tensor) -> tuple[Tensor, Tensor | None]:
        """State of level + 1 -> the input to ``level``, and the memory between them."""
        return self.up[level](h, memory)  # type: ignore[no-any-return]

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """H(0), and X(0) if the readout sees it -> logits (b, out_channels, z, y, x)."""
        seen = self.readout_norm(state[0])
        if self.readout_sees_image:
            seen = torch.cat([seen, x], dim=1)  # (b, 2 c, z, y, x)
        return channels_to_space(self.readout(seen), self.stride)  # (b, out, Z, Y, X)


def unpool(inside: int, outside: int, pool: Triple, kernel: Sequence[int] | None, norm: str) -> nn.Module:
    """A transposed convolution that undoes a pool; with a kernel, a norm and a convolution follow."""
    transposed = nn.ConvTranspose3d(inside, outside, pool, stride=pool)
    if kernel is None:
        return transposed
    return nn.Sequential(transposed, Norm(outside, norm, gain=1.0), same_conv(outside, outside, as_vec(kernel)))
