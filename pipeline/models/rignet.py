"""RIGNet: any staged network with recurrent iterative gating.

After Karim, Islam and Bruce 2018/2019 ("Recurrent Iterative Gating Networks for Semantic Segmentation", WACV 2019;
arXiv:1811.08043). The output of a block gates the block's own input, and the block runs again:

    equation 1     m = up(s(C * pool(f_out) + b))           f_in, f_out: input and output of the block
                   f_r = m . f_in                           the block's input in the next iteration

    basic gate         f_out is the output of the same block in the iteration before
    multi-range gate   f_out, and the output of the last block, convolved to as many channels and interpolated to
                       the same size; so the nearest and the farthest context gate together

    network-wide gate  the output of the last block alone, which gates the input of the first gated block: the control
                       without gates of blocks

    sequential unrolling   each block repeats u times before the next one begins           depth l_f + l_r u
    parallel unrolling     a pass through all blocks, then all gates at once, u passes     depth l_f + l_rj + l_rk u

In the first iteration there are no gates, so u = 1 is the plain network bit for bit; so are gates that are fully open.
There is no published code. The points that the paper leaves open are chosen so: average pool 2 (its best), kernel 3,
the convolution maps the block's output channels to its input channels with a bias that begins at +2 (a gate of 0.88),
no norm. Other squashings (tanh, or a rectified sum in the place of the product) and pools are the controls of its
tables; a tanh begins at 0.96, a sum with a bias of 0. Its equation 1 has unbalanced brackets; the order above is that
of its text. A multi-range gate of the last block is a basic one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.cells import State
from pipeline.models.cells.blocks import one_of
from pipeline.models.pretrained import load_backbone
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.models.spec import build, named_arguments
from pipeline.models.staged import Stage, StagedNetwork

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"host": "residual_unet", "host_arguments": "tiny", "iterations": 2, "unrolling": "parallel"},
    "lee": {"host": "residual_unet", "host_arguments": "lee", "iterations": 2, "unrolling": "parallel"},
    "resnet50": {"host": "resnet_fcn", "host_arguments": "resnet50", "iterations": 2, "gates": "multi-range"},
}
"""Arguments of named sizes: sizes of the host networks, two iterations."""


GATES = ("basic", "multi-range", "network-wide")
SQUASHES = ("sigmoid", "tanh", "add")
POOLS: dict[str, tuple[Callable[..., Tensor] | None, Callable[..., Tensor] | None]] = {
    "average": (F.avg_pool2d, F.avg_pool3d),
    "maximum": (F.max_pool2d, F.max_pool3d),
    "none": (None, None),
}
"""Name -> pool of two and of three axes; none leaves the output as it is."""


class Gate(nn.Module):
    """m = up(s(C * pool(f_out) + b)): a block's output as a gate of the block's input (equation 1).

    squash: ``sigmoid`` or ``tanh`` for s, whose m multiplies the input; ``add``: a ReLU, whose m is added to it.
    pool: ``average``, ``maximum`` or ``none``.
    """

    def __init__(
        self,
        stage: Stage,
        axes: int,
        kernel: int,
        far_channels: int | None = None,
        squash: str = "sigmoid",
        pool: str = "average",
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.squash, self.pool = squash, POOLS[pool][axes - 2]
        self.mode = "bilinear" if axes == 2 else "trilinear"
        seen = stage.out_channels * (1 if far_channels is None else 2)
        self.conv = conv(seen, stage.in_channels, kernel, padding=kernel // 2)  # C, b
        nn.init.constant_(self.conv.bias, 0.0 if squash == "add" else 2.0)  # type: ignore[arg-type]
        self.far = None if far_channels is None else conv(far_channels, stage.out_channels, 1)

    def forward(self, f_out: Tensor, last: Tensor, size: Sequence[int]) -> Tensor:
        """Output of the block (b, c', ...) and of the last block -> m (b, c, ...) of the size of the block's input.

        Interpolated is 1 - s, since s(-a) = 1 - s(a) and an interpolation keeps constants: where it is exactly 0, in a
        gate that is fully open, m is exactly 1.
        """
        if self.far is not None:
            f_out = torch.cat([f_out, self._resized(self.far(last), f_out.shape[2:])], dim=1)  # (b, 2 c', ...)
        if self.pool is not None:
            halves = [min(2, side) for side in f_out.shape[2:]]  # a side of one voxel is not pooled
            f_out = self.pool(f_out, halves, ceil_mode=True)
        pre = self.conv(f_out)  # (b, c, ...)
        if self.squash == "add":
            return self._resized(F.relu(pre), size)
        closed = torch.sigmoid(-pre) if self.squash == "sigmoid" else 1 - torch.tanh(pre)  # 1 - s
        return 1 - self._resized(closed, size)

    def applied(self, f_in: Tensor, f_out: Tensor, last: Tensor) -> Tensor:
        """f_r: the input of the block in the next iteration."""
        m = self(f_out, last, f_in.shape[2:])
        return f_in + m if self.squash == "add" else m * f_in

    def _resized(self, r: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(r, size=tuple(size), mode=self.mode, align_corners=False)


class RIGNet(RecurrentNetwork):
    """A staged network with gates; a step of its recurrence is a pass through the blocks, and its state their outputs.

    Unrolled sequentially, it is a single pass, in which blocks repeat.

    feedback: the blocks that have a gate, counted from 1 as in the paper; all of them if left out.
    iterations: u; how often a gated block runs.
    unrolling: "sequential" or "parallel".
    gates: "basic", or "multi-range" or "network-wide", which need "parallel": in the first block there is no last
    output yet. The network-wide gate is a single one, at the first of the blocks.
    kernel, squash, pool: of the gates; see ``Gate``.
    """

    def __init__(
        self,
        network: StagedNetwork,
        iterations: int = 2,
        unrolling: str = "parallel",
        gates: str = "basic",
        feedback: Sequence[int] | None = None,
        kernel: int = 3,
        squash: str = "sigmoid",
        pool: str = "average",
    ) -> None:
        super().__init__()
        stages = network.stages
        one_of("squash", squash, SQUASHES)
        one_of("pool", pool, list(POOLS))
        blocks = range(1, len(stages) + 1) if feedback is None else sorted(set(feedback))
        _check(iterations, unrolling, gates, blocks, len(stages))
        self.network, self.out_channels, self.dimensions = network, network.out_channels, network.axes
        self.iterations, self.unrolling, self.multi_range = iterations, unrolling, gates == "multi-range"
        self.network_wide = gates == "network-wide"
        self.steps = iterations if unrolling == "parallel" else 1
        self.gated = [block - 1 for block in blocks][: 1 if self.network_wide else None]
        self.gates = nn.ModuleDict({str(i): self._gate(stages, i, kernel, squash, pool) for i in self.gated})

    def _gate(self, stages: Sequence[Stage], index: int, kernel: int, squash: str, pool: str) -> Gate:
        last, stage = stages[-1].out_channels, stages[index]
        far = last if self.multi_range and index < len(stages) - 1 else None
        seen = replace(stage, out_channels=last) if self.network_wide else stage
        return Gate(seen, self.network.axes, kernel, far, squash, pool)

    @property
    def multiple(self) -> tuple[int, int, int]:
        """A patch must be a multiple of this along z, y, x."""
        return getattr(self.network, "multiple", (1, 1, 1))

    @property
    def remainders(self) -> tuple[int, ...]:
        """What may be left when a side is divided by its number: that of the wrapped network."""
        return getattr(self.network, "remainders", (0,))

    @property
    def minimum(self) -> tuple[int, int, int]:
        """The least side along z, y, x: that of the wrapped network."""
        return getattr(self.network, "minimum", (1, 1, 1))

    @property
    def image_channels(self) -> int:
        """Channels of the image: those of the wrapped network."""
        return getattr(self.network, "image_channels", 1)

    @property
    def depth(self) -> int:
        """Convolutions from the image to the logits, without those of the gates."""
        return depth(self.network.stages, self.gated, self.iterations, self.unrolling)

    def load_backbone(self, path: str | Path) -> None:
        """Published weights of the wrapped network."""
        load_backbone(cast(nn.Module, self.network), path, type(self.network).__name__)

    def drive(self, image: Tensor) -> Tensor:
        """Image -> the input of the first block."""
        return self.network.prepare(image)

    def step(self, x: Tensor, state: State) -> State:
        """The outputs of all blocks after one more pass; blocks before the first gate do not change and run once."""
        if self.unrolling == "sequential":
            return tuple(self._sequential(x))
        before = list(state)
        first = min(self.gated, default=0) if before else 0
        return tuple(self._pass(before[first - 1] if first else x, first, before[:first], before))

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """Output of the last block -> logits, in the shapes of the wrapped network."""
        return self.network.finish(state[-1], image)

    def _sequential(self, x: Tensor) -> list[Tensor]:
        """Block, gate, block, ... u times; then the next block."""
        outputs: list[Tensor] = []
        for index in range(len(self.network.stages)):
            f_out = self.network.run_stage(index, x, outputs)
            for _ in range(self.iterations - 1 if index in self.gated else 0):
                f_out = self.network.run_stage(index, self._gated(index, x, f_out, f_out), outputs)
            outputs.append(f_out)
            x = f_out
        return outputs

    def _pass(self, x: Tensor, first: int, outputs: list[Tensor], before: list[Tensor]) -> list[Tensor]:
        """Run the blocks from ``first`` on; ``before`` are the outputs of the pass before, which gate this one."""
        outputs = list(outputs)
        for index in range(first, len(self.network.stages)):
            if before and index in self.gated:
                x = self._gated(index, x, before[index], before[-1])
            x = self.network.run_stage(index, x, outputs)
            outputs.append(x)
        return outputs

    def _gated(self, index: int, f_in: Tensor, f_out: Tensor, last: Tensor) -> Tensor:
        """f_r = m . f_in."""
        gate = cast(Gate, self.gates[str(index)])
        return gate.applied(f_in, last if self.network_wide else f_out, last)


def depth(stages: Sequence[Stage], gated: Sequence[int], iterations: int, unrolling: str) -> int:
    """Depth of the unrolled network, as the paper counts it.

    l_f: layers of blocks without a gate. Sequential: l_f + l_r u, with the layers l_r of all gated blocks. Parallel:
    l_f + l_rj + l_rk u, with those of the last gated block (l_rk) and of the ones before it (l_rj): the way through
    all blocks once, and u times through the last. That is the longest way if no gated block is deeper than the last.
    """
    every = sum(stage.layers for stage in stages)
    repeated = [stages[index].layers for index in gated]
    again = sum(repeated) if unrolling == "sequential" else sum(repeated[-1:])
    return every + again * (iterations - 1)


def _check(iterations: int, unrolling: str, gates: str, feedback: Sequence[int], blocks: int) -> None:
    if iterations < 1 or unrolling not in ("sequential", "parallel") or gates not in GATES:
        raise ModelError(
            f"iterations is {iterations}, unrolling {unrolling!r}, gates {gates!r}; at least 1, 'sequential' or "
            "'parallel', 'basic' or 'multi-range' or 'network-wide' are needed"
        )
    if gates != "basic" and unrolling == "sequential":
        raise ModelError(
            f"gates {gates!r} with unrolling 'sequential': a block repeats before the last one has run, so there is "
            "no output to reach for; use unrolling 'parallel'"
        )
    if any(not 1 <= block <= blocks for block in feedback):
        raise ModelError(f"feedback is {list(feedback)}; the blocks of this network are numbered 1 to {blocks}")


def rignet(
    host: str = "residual_unet",
    host_arguments: dict[str, Any] | str = "tiny",
    out_channels: int = 12,
    **options: Any,
) -> RIGNet:
    """The RIGNet of a model card: the wrapped architecture, its arguments or named size, and the options."""
    arguments = named_arguments(host, host_arguments)
    network = build(host, {**arguments, "out_channels": out_channels})
    if not isinstance(network, StagedNetwork):
        raise ModelError(f"{host} is no staged network; it needs what StagedNetwork in pipeline/models/staged.py lists")
    return RIGNet(network, **options)
