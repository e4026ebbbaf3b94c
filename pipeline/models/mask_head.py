"""The recurrent mask head of C-RBP for panoptic segmentation, and the plain head that it replaces.

Linsley, Ashok, Govindarajan, Liu and Serre 2020 (NeurIPS). In a Mask R-CNN, the features of a box become a mask:

    plain        r = four times relu(C 3 x 3 * r + b)                            2,360,320 parameters
    recurrent    T times: h = hGRU(x, h), from h = 0;   r = h                    1,576,768
    both         logits = C 1 x 1 * relu(D 2 x 2 * r + b) + b                    D doubles the resolution

The recurrent one is smaller by 783,552, which is how much smaller the paper's whole network is (44,968,038 parameters
against 45,751,590). Its unit is the ``panoptic`` form of ``cells/hgru.py``: group norm, no outer softplus, attention.

It is a part of a detector, not a model by itself: it takes features, not images. As a ``RecurrentNetwork`` it can be
trained by any rule of ``pipeline.training.rules``; the paper uses C-RBP with 20 steps and a penalty of weight 1e-3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.cells import State
from pipeline.models.cells.blocks import point_conv, same_conv
from pipeline.models.cells.hgru import HGRU
from pipeline.models.recurrent import RecurrentNetwork

CHANNELS = 256
CLASSES = 80
"""The number of "thing" classes of COCO."""


class MaskReadout(nn.Module):
    """Features (b, c, y, x) -> logits (b, classes, 2 y, 2 x)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)  # D
        self.predict = point_conv(channels, classes, 2)
        nn.init.normal_(self.predict.weight, std=0.001)
        nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]

    def forward(self, r: Tensor) -> Tensor:
        """Enlarge the features, then predict one channel for each class."""
        return self.predict(F.relu(self.enlarge(r)))  # type: ignore[no-any-return]


class PlainMaskHead(nn.Module):
    """Four convolutions and the readout."""

    def __init__(self, channels: int = CHANNELS, out_channels: int = CLASSES, depth: int = 4) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(same_conv(channels, channels, (3, 3)) for _ in range(depth))
        self.readout = MaskReadout(channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, out_channels, 2 y, 2 x)."""
        for convolution in self.convolutions:
            features = F.relu(convolution(features))
        return self.readout(features)  # type: ignore[no-any-return]


class RecurrentMaskHead(RecurrentNetwork):
    """The hGRU in the place of the convolutions; steps: T."""

    dimensions = 2

    def __init__(
        self, channels: int = CHANNELS, out_channels: int = CLASSES, steps: int = 20, chronos: str = "log"
    ) -> None:
        super().__init__()
        self.steps, self.out_channels = steps, out_channels
        self.cell = HGRU(channels, (3, 3), form="panoptic", steps=steps, chronos=chronos)
        self.readout = MaskReadout(channels, out_channels)

    def drive(self, image: Tensor) -> Tensor:
        """The features themselves, (b, c, y, x)."""
        return image

    def initial(self, x: Tensor) -> State:
        """The unit's state before the first step."""
        return self.cell.initial(x)

    def step(self, x: Tensor, state: State) -> State:
        """One step of the unit."""
        return self.cell(x, state)  # type: ignore[no-any-return]

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """h -> logits (b, out_channels, 2 y, 2 x)."""
        return self.readout(state)  # type: ignore[no-any-return]
