"""The convolutions of VGG16: Simonyan and Zisserman 2015 (ICLR), table 1, column D. Weights load from a user's file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.pretrained import misfits, read_weights

WIDTHS = {"conv1": 64, "conv2": 128, "conv3": 256, "conv4": 512, "conv5": 512}
LAYERS = tuple(
    f"conv{block}_{layer}" for block, count in enumerate((2, 2, 3, 3, 3), start=1) for layer in range(1, count + 1)
)
"""The names of its 13 convolutions, in their order; a max pool of 2 lies between blocks."""

TORCHVISION = {
    layer: f"features.{position}"
    for layer, position in zip(LAYERS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True)
}
"""The names of these convolutions in torchvision's ``vgg16``."""


class VGG16(nn.Module):
    """3x3 convolutions with ReLUs, up to and with the layer ``last``; ``width`` scales the channels."""

    def __init__(self, last: str = "conv5_3", width: float = 1.0) -> None:
        super().__init__()
        self.layers = layers_up_to(last)
        inside = 3
        for layer in self.layers:
            outside = channels(layer, width)
            setattr(self, layer, rectified(nn.Conv2d(inside, outside, 3, padding=1)))
            inside = outside

    def forward(self, r: Tensor, after: str | None = None, until: str | None = None) -> Tensor:
        """Apply the layers behind ``after`` (or all) up to and with ``until``: (b, i, y, x) -> (b, o, y', x')."""
        begin = 0 if after is None else self.layers.index(after) + 1
        end = len(self.layers) if until is None else self.layers.index(until) + 1
        for number in range(begin, end):
            layer = self.layers[number]
            if number and layer.endswith("_1"):
                r = F.max_pool2d(r, 2)
            r = F.relu(getattr(self, layer)(r))  # (b, c, y, x)
        return r

    def load_file(self, path: str | Path) -> None:
        """``load`` from a ``.safetensors`` or torch file; ``ModelError`` if it is neither."""
        self.load(read_weights(path))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the convolutions from a file's tensors, named ``conv1_1.weight`` and so on, or as torchvision names
        them.

        Raises ``ModelError`` if one is missing or has another shape. Classifiers and later layers are ignored.
        """
        taken = {name: _one_of(weights, name) for name in self.state_dict()}
        found = {name: tensor for name, tensor in taken.items() if tensor is not None}
        if problems := misfits(self, found):
            raise ModelError(
                f"these are no weights of VGG16: {'; '.join(problems[:5])}; tensors must be named conv1_1.weight, "
                "conv1_1.bias and so on, or as in torchvision's vgg16"
            )
        self.load_state_dict(found)


def rectified(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution whose random weights keep the variance before a ReLU, without bias at first (He et al. 2015)."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def channels(layer: str, width: float = 1.0) -> int:
    """Output channels of a layer."""
    return max(1, round(WIDTHS[layer.split("_")[0]] * width))


def layers_up_to(last: str) -> tuple[str, ...]:
    """The layers' names, up to and with the last."""
    if last not in LAYERS:
        raise ModelError(f"the layer is {last!r}; VGG16 has {', '.join(LAYERS)}")
    return (*takewhile(lambda layer: layer != last, LAYERS), last)


def _one_of(weights: Mapping[str, Tensor], name: str) -> Tensor | None:
    layer, _, kind = name.partition(".")
    return weights.get(name, weights.get(f"{TORCHVISION[layer]}.{kind}"))
