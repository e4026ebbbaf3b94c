"""Staged networks: a row of blocks that can be run one by one, so that other code can act between them.

    prepare(image) -> x -> stage 0 -> stage 1 -> ... -> stage n - 1 -> finish(x) -> logits
                            \\__________________________/
                             a stage may also read the outputs of earlier ones (skip connections)

``run_stages`` is the plain network. ``rignet.py`` wraps any network of this protocol in feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.axes import (
    as_vec,
    channels_to_space,
    check_multiple,
    sections_apart,
    sections_together,
    space_to_channels,
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "leaky_relu_0.2": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "swish": nn.SiLU,
    "none": nn.Identity,
}
"""The nonlinearities f of the U-Nets, by their names in model cards."""


def activation(name: str) -> Callable[[], nn.Module]:
    """The constructor of a nonlinearity; ``ModelError`` if there is none of this name."""
    if name not in ACTIVATIONS:
        raise ModelError(f"activation is {name!r}; it must be one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@dataclass(frozen=True)
class Stage:
    """The channels that one block of a network takes and returns, and its depth."""

    in_channels: int
    out_channels: int
    layers: int
    """The number of convolutions in a row, which the stage adds to the depth of the network."""


@runtime_checkable
class StagedNetwork(Protocol):
    """A network as a row of stages; ``run_stages`` is its forward pass."""

    out_channels: int
    axes: int
    """Spatial axes of the tensors between stages: 2 for (b, c, y, x), 3 for (b, c, z, y, x)."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which they run."""

    def prepare(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) or (b, c, y, x) -> input of stage 0."""

    def run_stage(self, index: int, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Run one stage on its input; ``outputs`` are those of the stages 0 to ``index - 1``, for skip connections."""

    def finish(self, x: Tensor, image: Tensor) -> Tensor:
        """Output of the last stage -> logits on the voxels of the image."""


def run_stages(network: StagedNetwork, image: Tensor) -> Tensor:
    """The plain network: each stage once, one after the other."""
    x = network.prepare(image)
    outputs: list[Tensor] = []
    for index in range(len(network.stages)):
        x = network.run_stage(index, x, outputs)
        outputs.append(x)
    return network.finish(x, image)


class SymmetricUNet(nn.Module):
    """The skeleton of every U-Net here: levels down, levels up with a skip connection each.

        entry -> down[0] -> down[1] -> ... -> down[n - 1]      each is a stage (the entry belongs to the first)
                  | skip     | skip              |
        exit <- up[n - 2] <- ...    <-         up[0]           each is a stage, and so is the exit

    ``down[i]`` begins with its pool or stride. ``up[k]`` is called with its input, the skip connection of its level and
    the output of the lowest level. With ``dimensions`` 2, sections are computed apart: all kernels and pools of the
    subclass are then one voxel thick.
    """

    axes = 3
    entry: nn.Module
    down: nn.ModuleList
    up: nn.ModuleList
    exit: nn.Module

    def __init__(self, out_channels: int, dimensions: int, stride: Sequence[int]) -> None:
        super().__init__()
        if dimensions not in (2, 3):
            raise ModelError(f"dimensions is {dimensions}; it must be 2 (sections apart) or 3")
        self.out_channels, self.dimensions, self.stride = out_channels, dimensions, as_vec(stride)
        if dimensions == 2 and self.stride[0] != 1:
            raise ModelError(f"stride is {self.stride}; with dimensions 2 its first number must be 1")

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which they run."""
        raise NotImplementedError

    def prepare(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) -> (b, c, z, y, x) of level 0, or (b z, c, 1, y, x) with ``dimensions`` 2."""
        self.check(as_vec(image.shape[2:]))
        if self.dimensions == 2:
            image = sections_apart(image)
        return space_to_channels(image, self.stride)

    def check(self, patch: Triple) -> None:
        """Refuse a patch that the levels cannot halve."""
        check_multiple(patch, self.multiple)

    def run_stage(self, index: int, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Run one stage: a level on the way down, a level on the way up, or the exit."""
        levels = len(self.down)
        if index == 0:
            x = self.entry(x)
        if index < levels:
            return self.down[index](x)  # type: ignore[no-any-return]
        step = index - levels
        if step < levels - 1:
            return self.up[step](x, outputs[levels - 2 - step], outputs[levels - 1])  # type: ignore[no-any-return]
        return self.exit(x)  # type: ignore[no-any-return]

    def finish(self, x: Tensor, image: Tensor) -> Tensor:
        """Output of the last stage -> logits (b, out_channels, z, y, x)."""
        logits = channels_to_space(x, self.stride)
        return sections_together(logits, image.shape[2]) if self.dimensions == 2 else logits

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) or (b, c, y, x) -> logits (b, out_channels, ...) on the same voxels."""
        if image.ndim == 4:
            return run_stages(self, image[:, :, None])[:, :, 0]
        return run_stages(self, image)
