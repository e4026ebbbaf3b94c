"""The gamma-Net for electron microscopy, in 2D: Linsley, Kim, Ashok and Serre 2020 (ICLR), table S1.

    image -> conv 3x3, ELU, conv 3x3, ELU -> X(0)
    T times:   up the hierarchy     H(l) = fGRU(X = B(l), H = H(l)),   B(l+1) = MGU(conv 3x3, pool H(l))
               down again           H(l) = fGRU(X = H(l), H = MGU(conv 3x3, unpool H(l+1))) + H(l)
    readout: instance norm, conv 5x5 on H(0) -> logits, one channel for each target (the paper: membranes)

24, 28, 36, 48, 64 channels at five levels, horizontal kernels 9, 7, 5, 3, 1, T = 8. The table and the published code
differ in parts that the paper's "450K parameters" do not decide; ``READINGS`` lists readings and their parameters.

The table gives the readout 24 outputs; here it has one (the table errs). Volumes are computed section by section.

Shapes: b = batch, c = channels of a level; y, x are those of the level.
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
from pipeline.models.cells import State
from pipeline.models.cells.blocks import Kernel, Norm, one_of, optional_norm, same_conv
from pipeline.models.cells.controls import CONTROLS, Control
from pipeline.models.cells.fgru import FGRU, TopDownFGRU, Variant, variant_of
from pipeline.models.cells.mgu import MEMORIES
from pipeline.models.gamma_net import NETWORK_NORMS, SENT_UP, GammaNet, least_section, reflected

POOL = 2
"""Each level has half the resolution of the one below."""

_TABLE = {"local_gate": 3, "gate_bias": False, "unit_norms": False, "stem_norm": False, "up_norm": "after"}

READINGS: dict[str, dict[str, Any]] = {
    "450K": {},
    "450K_without_table_norms": {"up_norm": "none"},
    "table": {**_TABLE, "memory": "paper"},
    "table_with_three_kernels": {**_TABLE, "memory": "code"},
    "table_without_memory": {**_TABLE, "memory": "none"},
    "code": {"transposed": 3, "up": 5},
}
"""Reading of the paper -> arguments. Parameters where those that symmetric kernels make equal count once, and where all
are counted:

    450K                        449,602    592,018    the default: kernels of the table, the rest of the code
    450K_without_table_norms    449,330    591,746    the norms of the table are those of the units
    table                       428,833    571,249    the table and the equations to the letter
    table_with_three_kernels    441,961    584,377    the code's units between levels, without its norms
    table_without_memory        401,329    543,745
    code                        483,602    626,018    the code's kernels on the way down: 3x3, then 5x5
"""


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (16, 24, 32), "horizontal": (5, 3, 1), "steps": 3},
    "paper": READINGS["450K"],
    "table": READINGS["table"],
}
"""Arguments of named sizes: tiny for a CPU, the paper's 450K, and its table to the letter."""


class GammaNet2D(GammaNet):
    """The network; its arguments stand in a model card. Sides of kernels are single numbers: all are square.

    widths, horizontal: channels of each level, and the kernel of its fGRU.       steps: T.
    transposed, up: kernels of the transposed convolution that undoes a pool, and of the one that follows it.
    memory: units between levels, ``paper`` (two kernels), ``code`` (three) or ``none``.
    unit_norms, stem_norm: norms in those units, and before level 0.
    up_norm: the table's norm on the way down: ``between`` the two convolutions, ``after`` the unit, or ``none``.
    local_gate, gate_bias, variant, norm, symmetry: of the fGRU.
    cell: the units: ``fgru``, or one of the controls in its place, ``gru``, ``lstm``, ``feedforward`` (one step), which
    have the norm and the symmetry too.
    skip: which levels send H + X upward (``none``, ``first``, ``all``); the code does so for all.
    """

    dimensions = 2

    def __init__(
        self,
        widths: Sequence[int] = (24, 28, 36, 48, 64),
        horizontal: Sequence[int] = (9, 7, 5, 3, 1),
        steps: int = 8,
        out_channels: int = 1,
        in_channels: int = 1,
        transposed: int = 4,
        up: int = 3,
        memory: str = "code",
        unit_norms: bool = True,
        stem_norm: bool = True,
        up_norm: str = "between",
        local_gate: int = 5,
        gate_bias: bool = True,
        variant: str | Variant = "paper",
        skip: str = "none",
        norm: str = "instance",
        symmetry: str = "channel",
        cell: str = "fgru",
    ) -> None:
        super().__init__()
        if len(widths) != len(horizontal) or steps < 1:
            raise ModelError(
                f"{len(widths)} widths, {len(horizontal)} horizontal kernels, {steps} steps; each level needs a "
                "horizontal kernel, and at least one step is needed"
            )
        one_of("norm", norm, NETWORK_NORMS)
        self.steps, self.out_channels, self.skip = steps, out_channels, one_of("skip", skip, SENT_UP)
        self.image_channels = in_channels
        self.reach = reflected(horizontal, variant)
        first, gaps = widths[0], list(pairwise(widths))
        fgru = (norm, symmetry, steps, (local_gate,) * 2, gate_bias, variant_of(variant))
        self.control = control_of(cell, steps)
        between = MEMORIES[one_of("memory", memory, list(MEMORIES))]
        one_of("up_norm", up_norm, ("between", "after", "none"))

        def norm_if(wanted: bool) -> str | None:
            return norm if wanted else None

        def unit(kind: type[FGRU], channels: int, side: int) -> nn.Module:
            kernel: Kernel = (side, side)
            return kind(channels, kernel, *fgru) if self.control is None else self.control(channels, kernel, *fgru[:3])

        self.stem = nn.Sequential(
            *(same_conv(in_channels, first, (3, 3)), nn.ELU(), same_conv(first, first, (3, 3)), nn.ELU()),
            optional_norm(first, norm_if(stem_norm), gain=1.0),
        )
        self.horizontal = nn.ModuleList(unit(FGRU, c, k) for c, k in zip(widths, horizontal, strict=True))
        self.down = nn.ModuleList(between(same_conv(a, b, (3, 3)), b, norm_if(unit_norms), 2) for a, b in gaps)
        self.up = nn.ModuleList(
            between(unpool(b, a, transposed, up, norm_if(up_norm == "between")), a, norm_if(unit_norms), 2)
            for a, b in gaps
        )
        self.up_norms = nn.ModuleList(optional_norm(a, norm_if(up_norm == "after"), gain=1.0) for a, _ in gaps)
        self.top_down = nn.ModuleList(unit(TopDownFGRU, a, 1) for a, _ in gaps)
        self.readout = nn.Sequential(Norm(first, norm, gain=1.0), same_conv(first, out_channels, (5, 5)))

    @property
    def remembers(self) -> bool:
        """Whether the state of a level holds a memory beside H."""
        return self.control is not None and self.control.remembers

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        return 1, POOL ** len(self.up), POOL ** len(self.up)

    @property
    def minimum(self) -> Triple:
        """A border that is reflected is copied out of the patch, which must be larger than it at every level."""
        return least_section(self.reach, [POOL**level for level in range(len(self.reach))])

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, i, y, x) -> X(0): (b, c, y, x)."""
        if any(side % self.multiple[1] for side in image.shape[2:]):
            raise ModelError(
                f"the patch is {tuple(image.shape[2:])}; each side must be a multiple of {self.multiple[1]}, since "
                "the levels halve it"
            )
        return self.stem(image)  # type: ignore[no-any-return]

    def ascend(self, level: int, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The output of a level -> the drive of the next level, and the memory between them."""
        return self.down[level](F.max_pool2d(h, POOL), memory)  # type: ignore[no-any-return]

    def descend(self, level: int, h: Tensor, memory: Tensor | None, lower: Tensor) -> tuple[Tensor, Tensor | None]:
        """State of level + 1 -> the input to ``level``, and the memory between them."""
        sent, memory = self.up[level](h, memory)
        return self.up_norms[level](sent), memory

    def visible(self, state: Tensor) -> Tensor:
        """H of a level's state; an LSTM's memory is not seen."""
        return state.chunk(2, dim=1)[0] if self.remembers else state

    def between(self, level: int, lower: Tensor, top: Tensor) -> Tensor:
        """The state of a level, and the input from above -> what the unit between the levels makes of them."""
        unit = self.top_down[level]
        return unit.between(lower, top) if isinstance(unit, Control) else unit(lower, top)

    def together(self, lower: Tensor, new: Tensor) -> Tensor:
        """The skip around the unit between two levels; a memory is replaced."""
        if not self.remembers:
            return super().together(lower, new)
        h, memory = new.chunk(2, dim=1)
        return torch.cat([super().together(self.visible(lower), h), memory], dim=1)

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """H(0) -> logits (b, out_channels, y, x)."""
        return self.readout(self.visible(state[0]))  # type: ignore[no-any-return]


def control_of(cell: str, steps: int) -> type[Control] | None:
    """The units in the fGRU's place; None for ``fgru`` itself."""
    one_of("cell", cell, ("fgru", *CONTROLS))
    if cell == "feedforward" and steps != 1:
        raise ModelError(f"cell is 'feedforward' and steps {steps}; without recurrence there is one step: say steps: 1")
    return CONTROLS.get(cell)


def unpool(inside: int, outside: int, transposed: int, kernel: int, norm: str | None) -> nn.Module:
    """A transposed convolution to twice the resolution, a norm if one is named, and a convolution."""
    if transposed not in (2, 3, 4):
        raise ModelError(f"transposed is {transposed}; 2, 3 and 4 are the sides that give exactly twice the resolution")
    padding, output_padding = {2: (0, 0), 3: (1, 1), 4: (1, 0)}[transposed]
    return nn.Sequential(
        nn.ConvTranspose2d(inside, outside, transposed, POOL, padding, output_padding),
        optional_norm(outside, norm, gain=1.0),
        same_conv(outside, outside, (kernel, kernel)),
    )
