"""A ResNet-101 whose image is read again and again by stacked ConvLSTMs, which paint their result on a canvas.

    F = ResNet-101(image)                                         once; output stride 16: 513 x 513 -> 33 x 33
    canvas_0 = 0;  for t = 1 .. T:
        h1, c1 = LSTM_1(F, h1, c1)                                512 channels
        h2, c2 = LSTM_2(h1, h2, c2)                               256 channels
        h3, c3 = LSTM_3(h2, h3, c3)                               a channel a class
        canvas_t = canvas_{t-1} + h3
    logits = bilinear(canvas_T)                                   feature i at pixel 16 i, so that corners meet corners

All kernels of the LSTMs are 1 x 1, so each pixel of F is processed by itself: permuting the pixels of F permutes the
result. And |h3| < 1, so |canvas_T| < T: the number of steps bounds the logits. The forget gate has an offset of +1,
there are no peepholes (``cells/convlstm.py``). The backbone is ResNet v1 (the stride is in the 1 x 1 convolution), its
fourth block dilated by 2, 4, 8 instead of strided. Initial weights of the LSTMs are Glorot's, normal.

The paper's number of steps is not known to us; 8 here, as in the gamma-Net. Two-dimensional: a volume is computed
section by section. The canvas grows with every step, so there is no steady state for recurrent back-propagation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.cells import State
from pipeline.models.cells.convlstm import ConvLSTM
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.models.resnet import dilate, enlarged, glorot, load_backbone, resnet_blocks

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "embedding_size": 16,
        "widths": (16, 24, 32, 48),
        "depths": (1, 1, 1, 1),
        "block": "basic",
        "dilations": (2,),
        "hidden": (32, 16),
        "steps": 4,
    },
    "base": {},
}
"""Arguments of named sizes: the paper's, and a tiny one for tests."""
STRIDE = 16
"""Pixels from one feature to the next."""


class CanvasHead(nn.Module):
    """Stacked ConvLSTMs with kernel 1 and the canvas: a cell. Its state is (h1, c1, h2, c2, h3, c3, canvas)."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(ConvLSTM(a, b, (1, 1)) for a, b in pairwise((inputs, *hidden, classes)))
        self.apply(glorot)

    def initial(self, x: Tensor) -> tuple[Tensor, ...]:
        """Memories of zero, and an empty canvas (b, classes, y, x)."""
        states = [cell.initial(x) for cell in self.cells]  # type: ignore[operator]
        return (*(part for state in states for part in state), torch.zeros_like(states[-1][0]))

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Features F (b, inputs, y, x) and state -> new state."""
        r, after = x, []
        for cell, h, c in zip(self.cells, state[:-1:2], state[1::2], strict=True):
            r, c = cell(r, (h, c))  # h: (b, channels, y, x)
            after += [r, c]
        return (*after, state[-1] + r)  # canvas_t = canvas_{t-1} + h3


class CanvasLSTM(RecurrentNetwork):
    """The network; its arguments stand in a model card. The first six are those of ``resnet_blocks``.

    dilations: of the units of the fourth block.         hidden: channels of the first two LSTMs.
    steps: T.                                            out_channels: classes.
    """

    dimensions = 2
    multiple = (1, 1, 1)
    settles = False  # every step adds to the canvas

    def __init__(
        self,
        in_channels: int = 1,
        embedding_size: int = 64,
        widths: Sequence[int] = (256, 512, 1024, 2048),
        depths: Sequence[int] = (3, 4, 23, 3),
        block: str = "bottleneck",
        stride_first: bool = True,
        dilations: Sequence[int] = (2, 4, 8),
        hidden: Sequence[int] = (512, 256),
        steps: int = 8,
        out_channels: int = 21,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ModelError(f"steps is {steps}; at least one is needed to paint anything")
        self.steps, self.out_channels, self.image_channels = steps, out_channels, in_channels
        self.backbone = resnet_blocks(in_channels, embedding_size, widths, depths, block, stride_first)
        dilate(self.backbone[-1], dilations)
        self.head = CanvasHead(widths[-1], hidden, out_channels)

    def load_backbone(self, path: str | Path) -> None:
        """Published weights of a ResNet-101; those of v1.5 fit as well, but were trained with other strides."""
        load_backbone(self.backbone, path)

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, c, y, x) -> F (b, widths[-1], y / 16, x / 16), rounded up."""
        for block in self.backbone:
            image = block(image)
        return image

    def initial(self, x: Tensor) -> State:
        """Memories of zero, and an empty canvas."""
        return self.head.initial(x)

    def step(self, x: Tensor, state: State) -> State:
        """One step of all three LSTMs, whose result is added to the canvas."""
        return self.head.step(x, state)  # type: ignore[arg-type]

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """The canvas -> logits (b, out_channels, y, x)."""
        return enlarged(state[-1], image.shape[2:], STRIDE)
