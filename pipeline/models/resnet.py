"""Residual networks for images (He et al. 2016) from the library ``transformers``, and the FCN on top of one.

The library provides the blocks; here they are put in a row, may be dilated, and load weights from a user's file. Long,
Shelhamer and Darrell 2015 (arXiv:1411.4038) make a classifier fully convolutional: a 1 x 1 convolution gives scores at
stride 32, which are added to those of finer blocks (FCN-16s, FCN-8s) and enlarged to the image. Their enlarging
convolutions start as bilinear ones; here they are bilinear and stay so. Feature i of a block of stride s sees the
pixels around s i, at every size of the image, and is painted there.

Two-dimensional: a volume is computed section by section.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.axes import sections_apart, sections_together
from pipeline.models.pretrained import Rules, fit, read_weights, renamed
from pipeline.models.staged import Stage, run_stages

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embedding_size": 16, "widths": (16, 24, 32, 48), "depths": (1, 1, 1, 1), "block": "basic", "finest": 8},
    "resnet50": {"depths": (3, 4, 6, 3)},
    "resnet101": {"depths": (3, 4, 23, 3)},
}
"""Arguments of named sizes: the classical depths (FCN-32s), and a tiny one with fine scores."""

TORCHVISION: Rules = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    *((rf"^layer{i + 1}\.", f"encoder.stages.{i}.layers.") for i in range(4)),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    *((rf"\.conv{i + 1}\.", f".layer.{i}.convolution.") for i in range(3)),
    *((rf"\.bn{i + 1}\.", f".layer.{i}.normalization.") for i in range(3)),
    (r"^resnet\.", ""),
    (r"^embedder\.", "0."),
    (r"^encoder\.stages\.0\.", "1."),
    (r"^encoder\.stages\.1\.", "2."),
    (r"^encoder\.stages\.2\.", "3."),
    (r"^encoder\.stages\.3\.", "4."),
)
"""Names of torchvision and timm, and of transformers -> those of ``resnet_blocks``."""


def resnet_blocks(
    in_channels: int = 3,
    embedding_size: int = 64,
    widths: Sequence[int] = (256, 512, 1024, 2048),
    depths: Sequence[int] = (3, 4, 6, 3),
    block: str = "bottleneck",
    stride_first: bool = False,
) -> nn.ModuleList:
    """Five blocks: the stem (stride 4), then four of residual units (the first at stride 4, then 8, 16, 32).

    block: "bottleneck" (1 x 1, 3 x 3, 1 x 1) or "basic" (3 x 3, 3 x 3). stride_first: the 1 x 1 convolution has the
    stride, as in the paper (v1); else the 3 x 3 one, as in most files of weights (v1.5).
    """
    try:
        from transformers import ResNetConfig, ResNetModel
    except ImportError:
        raise ModelError(
            "ResNets come from the library transformers; install it: pip install petaseg[training]"
        ) from None
    if len(widths) != 4 or len(depths) != 4 or block not in ("bottleneck", "basic"):
        raise ModelError(
            f"widths {tuple(widths)}, depths {tuple(depths)}, block {block!r}; a ResNet has four widths and four "
            "depths, and its block is 'bottleneck' or 'basic'"
        )
    config = ResNetConfig(
        num_channels=in_channels,
        embedding_size=embedding_size,
        hidden_sizes=list(widths),
        depths=list(depths),
        layer_type=block,
        downsample_in_bottleneck=stride_first,
    )
    model = ResNetModel(config)
    return nn.ModuleList([model.embedder, *model.encoder.stages])


def dilate(block: Any, rates: Sequence[int]) -> None:
    """Set the strides of a block of units to 1, and dilate the 3 x 3 convolutions of unit i by ``rates[i]``."""
    units = list(block.layers)
    if len(units) != len(rates):
        raise ModelError(f"{len(rates)} dilations for {len(units)} residual units; each unit needs one")
    for unit, rate in zip(units, rates, strict=True):
        for layer in unit.modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
                if layer.kernel_size == (3, 3):
                    layer.dilation = layer.padding = (rate, rate)


def load_backbone(blocks: nn.ModuleList, path: str | Path) -> None:
    """Load pretrained weights from a file into ``resnet_blocks``; the classifier in it is left out.

    Names of torchvision, timm and transformers are understood. If the file was made for colour images and the blocks
    take one channel, the weights of its channels are added, so a grey image gives the same result as in colour. Raises
    ``ModelError`` if the weights are those of another network.
    """
    state = renamed(read_weights(path), TORCHVISION)
    state = {name: value for name, value in state.items() if not name.startswith(("fc.", "classifier.", "pooler."))}
    first = "0.embedder.convolution.weight"
    if first in state and state[first].shape[1] != 1 == blocks.state_dict()[first].shape[1]:
        state[first] = state[first].sum(1, keepdim=True)
    fit(blocks, state, "this ResNet")


def unit_layers(block: Any) -> int:
    """Convolutions in a row in a block of residual units; shortcuts run beside them."""
    return sum(isinstance(layer, nn.Conv2d) for unit in block.layers for layer in unit.layer.modules())


class ResNetFCN(nn.Module):
    """The network; its arguments stand in a model card. The first five arguments are those of ``resnet_blocks``.

    finest: 32, 16 or 8: the stride of the finest block whose scores are added (FCN-32s, FCN-16s, FCN-8s).
    """

    dimensions, axes = 2, 2
    multiple = (1, 1, 1)

    def __init__(
        self,
        in_channels: int = 1,
        embedding_size: int = 64,
        widths: Sequence[int] = (256, 512, 1024, 2048),
        depths: Sequence[int] = (3, 4, 6, 3),
        block: str = "bottleneck",
        stride_first: bool = False,
        finest: int = 32,
        out_channels: int = 12,
    ) -> None:
        super().__init__()
        if finest not in (32, 16, 8):
            raise ModelError(f"finest is {finest}; it must be 32, 16 or 8, the stride of the finest scores")
        self.in_channels, self.out_channels, self.widths = in_channels, out_channels, tuple(widths)
        self.image_channels, self.finest = in_channels, finest
        self.embedding_size = embedding_size
        self.blocks = resnet_blocks(in_channels, embedding_size, widths, depths, block, stride_first)
        scored = {32: 1, 16: 2, 8: 3}[finest]
        self.scores = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for width in widths[: -scored - 1 : -1])

    def load_backbone(self, path: str | Path) -> None:
        """Load published weights of a ResNet; see the function ``load_backbone``."""
        load_backbone(self.blocks, path)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stem, four blocks of residual units, the scores."""
        channels = (self.embedding_size, *self.widths)
        units = [Stage(a, b, unit_layers(m)) for (a, b), m in zip(pairwise(channels), self.blocks[1:], strict=True)]
        return (Stage(self.in_channels, channels[0], 1), *units, Stage(channels[-1], self.out_channels, 1))

    def prepare(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) -> (b z, c, y, x); (b, c, y, x) stays."""
        return image if image.ndim == 4 else sections_apart(image)[:, :, 0]

    def run_stage(self, index: int, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Run one block, or the scores."""
        if index < len(self.blocks):
            return self.blocks[index](x)  # type: ignore[no-any-return]
        total: Tensor = self.scores[0](x)  # (b, classes, y / 32, x / 32)
        for score, finer in zip(self.scores[1:], outputs[-2::-1], strict=False):
            total = score(finer) + enlarged(total, finer.shape[2:], 2)
        return total  # (b, classes, y / finest, x / finest)

    def finish(self, x: Tensor, image: Tensor) -> Tensor:
        """Scores -> logits on the pixels of the image."""
        logits = enlarged(x, image.shape[-2:], self.finest)
        return logits if image.ndim == 4 else sections_together(logits[:, :, None], image.shape[2])

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) or (b, c, y, x) -> logits (b, out_channels, ...) on the same pixels."""
        return run_stages(self, image)


def enlarged(x: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """(b, c, y, x), resized bilinearly to ``size``, with feature i at pixel ``stride`` * i; the last one is repeated.

    That is ``align_corners`` for sizes of stride * k + 1, such as 513: first and last features lie on the corners.
    """
    repeated = F.pad(x, (0, 1, 0, 1), mode="replicate")
    whole = [stride * side + 1 for side in x.shape[2:]]
    placed = F.interpolate(repeated, size=whole, mode="bilinear", align_corners=True)
    return placed[:, :, : size[0], : size[1]]


def glorot(layer: nn.Module) -> None:
    """Glorot's normal initial weights, and biases of zero."""
    if isinstance(layer, nn.Conv2d):
        nn.init.xavier_normal_(layer.weight)
        if layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
