"""The gamma-Net for natural contours: Linsley, Kim, Ashok and Serre 2020 (ICLR), table S2, on VGG16.

    image -> conv1_1 ... conv2_2 -> X(0)
    T times:   up      H(l) = fGRU(X = B(l), H = H(l)) after conv2_2, conv3_3, conv4_3, conv5_3
                       B(l+1) = pool and the convolutions of VGG16 up to the next unit, of H(l): VGG16 is recurrent too
               down    H(l) = fGRU(X = H(l), H = P(H(l+1))) + H(l), for conv4_3, conv3_3, conv2_2
                       P = instance norm, bilinear to the lower level's size, conv 1x1 to few channels, ReLU, conv 1x1
    readout: instance norm of H(0), bilinear to the image's size, conv 1x1 -> logits

The paper's 20M parameters follow from the code's 1x1 kernel after conv5_3, if symmetric kernels count once.
``READINGS`` lists this reading and others. Bilinear resizing always aligns corners (``align_corners``).

Weights of VGG16 come from a file (``network.vgg.load``); images must be normalised as those weights need. An image of
one channel is repeated in all three.

Shapes: b = batch, c = channels of a level; y, x are those of the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.cells import State
from pipeline.models.cells.blocks import Norm, one_of, point_conv
from pipeline.models.cells.fgru import FGRU, TopDownFGRU, Variant, variant_of
from pipeline.models.gamma_net import NETWORK_NORMS, GammaNet, least_section, reflected
from pipeline.models.vgg16 import VGG16, channels, rectified

READINGS: dict[str, dict[str, Any]] = {
    "20M": {},
    "table": {"horizontal": (3, 3, 3, 3)},
    "torch_port": {"variant": "torch_port", "gate_bias": True, "narrow": None, "symmetry": "none"},
}
"""Reading -> arguments. Parameters where those that symmetric kernels make equal count once, and where all are counted:

    20M           20,429,465    24,122,777    the default: the code's 1x1 kernel after conv5_3
    table         22,530,713    28,317,081    3x3 there, as in the table
    torch_port    24,850,888    24,850,888    the authors' port to torch: full kernels, and no narrow way down
"""


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 0.125, "narrow": (8, 4, 2), "steps": 3},
    "paper": READINGS["20M"],
}
"""Arguments of named sizes: tiny for a CPU (it takes no weights of VGG16), and the paper's 20M."""


class GammaNetVGG(GammaNet):
    """The network; its arguments stand in a model card.

    layers: of VGG16, each followed by a unit.            horizontal: side of that unit's kernel.
    narrow: channels between the two 1x1 convolutions on the way down, for each gap, lowest first; None: as many as
    the lower level has, with a ReLU after both, and the norm after the bilinear step, as in the torch port.
    width: scales the channels of VGG16.                  local_gate, gate_bias, variant, symmetry, norm: of the fGRU.
    """

    dimensions = 2
    multiple = (1, 1, 1)

    def __init__(
        self,
        layers: Sequence[str] = ("conv2_2", "conv3_3", "conv4_3", "conv5_3"),
        horizontal: Sequence[int] = (3, 3, 3, 1),
        narrow: Sequence[int] | None = (64, 16, 8),
        width: float = 1.0,
        steps: int = 8,
        out_channels: int = 1,
        local_gate: int = 3,
        gate_bias: bool = False,
        variant: str | Variant = "paper",
        norm: str = "instance",
        symmetry: str = "channel",
    ) -> None:
        super().__init__()
        gaps = len(layers) - 1
        if len(horizontal) != gaps + 1 or (narrow is not None and len(narrow) != gaps) or steps < 1:
            raise ModelError(
                f"{len(layers)} layers, {len(horizontal)} horizontal kernels, "
                f"{'as many' if narrow is None else len(narrow)} narrow widths, {steps} steps; each layer needs a "
                "horizontal kernel, each gap between them a narrow width, and at least one step is needed"
            )
        one_of("norm", norm, NETWORK_NORMS)
        self.layers, self.steps, self.out_channels = tuple(layers), steps, out_channels
        self.reach = reflected(horizontal, variant)
        self.vgg = VGG16(layers[-1], width)
        if [layer for layer in self.vgg.layers if layer in layers] != list(layers):
            raise ModelError(f"layers are {', '.join(layers)}; they must be in the order in which VGG16 has them")
        widths = [channels(layer, width) for layer in layers]
        unit = (norm, symmetry, steps, (local_gate,) * 2, gate_bias, variant_of(variant))
        self.horizontal = nn.ModuleList(FGRU(c, (k, k), *unit) for c, k in zip(widths, horizontal, strict=True))
        self.top_down = nn.ModuleList(TopDownFGRU(c, (1, 1), *unit) for c in widths[:-1])
        self.norm_first = narrow is not None
        self.down_norms = nn.ModuleList(Norm(c, norm, gain=0.1) for c in widths[1:])
        self.down = nn.ModuleList(
            way_down(b, a, between) for (a, b), between in zip(pairwise(widths), narrow or (None,) * gaps, strict=True)
        )
        self.readout_norm = Norm(widths[0], norm, gain=0.1)
        self.readout = point_conv(widths[0], out_channels, 2)

    @property
    def minimum(self) -> tuple[int, int, int]:
        """Each pool halves a section and rounds down, and the last layer needs a pixel."""
        before = [self.vgg.layers[1 : self.vgg.layers.index(layer) + 1] for layer in self.layers]
        scales = [2 ** sum(name.endswith("_1") for name in names) for names in before]
        return least_section(self.reach, scales)

    def load_backbone(self, path: str | Path) -> None:
        """Published weights of VGG16, from a file."""
        self.vgg.load_file(path)

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, 1 or 3, y, x) -> X(0), after the first of the layers: (b, c, y', x')."""
        return self.vgg(image.expand(-1, 3, -1, -1), until=self.layers[0])  # type: ignore[no-any-return]

    def ascend(self, level: int, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The output of a level -> the drive of the next level; there is no memory."""
        return self.vgg(h, after=self.layers[level], until=self.layers[level + 1]), None

    def descend(self, level: int, h: Tensor, memory: Tensor | None, lower: Tensor) -> tuple[Tensor, Tensor | None]:
        """State of level + 1 -> the input to ``level``; there is no memory."""
        if self.norm_first:
            return self.down[level](resized(self.down_norms[level](h), lower)), None
        return self.down[level](self.down_norms[level](resized(h, lower))), None

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """H(0) -> logits (b, out_channels, y, x)."""
        return self.readout(resized(self.readout_norm(state[0]), image))  # type: ignore[no-any-return]


def way_down(inside: int, outside: int, narrow: int | None) -> nn.Sequential:
    """Two 1x1 convolutions with a ReLU between them; if ``narrow`` is None, another ReLU follows."""
    first, second = (
        rectified(nn.Conv2d(a, b, 1)) for a, b in ((inside, narrow or outside), (narrow or outside, outside))
    )
    return nn.Sequential(first, nn.ReLU(), second, *([] if narrow else [nn.ReLU()]))


def resized(r: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the height and width of another tensor."""
    return F.interpolate(r, like.shape[2:], mode="bilinear", align_corners=True)
