"""Small networks with random weights for the tests of inference."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import nn

from pipeline.geometry import Vec
from pipeline.models.heads import Head
from pipeline.models.spec import OtherChannels

NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


def affinities_head(offsets: list[list[int]], stored: int = 3) -> Head:
    """The affinities of a network with these offsets."""
    return Head("affinities", 0, len(offsets), "sigmoid", tuple(Vec(*offset) for offset in offsets), stored)


@dataclass
class Card:
    """The part of a model card that inference reads."""

    patch_shape: tuple[int, int, int] = (8, 10, 10)
    overlap: tuple[int, int, int] = (2, 3, 3)
    offsets: list[list[int]] = field(default_factory=lambda: list(NEAREST))
    other_channels: tuple[OtherChannels, ...] = ()
    activation: str = "sigmoid"
    name: str = "made-up"
    image_channels: int = 1
    normalisation: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(offset=0.0, scale=255.0))

    @property
    def channels(self) -> int:
        return len(self.offsets) + sum(other.channels for other in self.other_channels)


@dataclass
class Loaded:
    """A network with its card."""

    card: Card
    module: nn.Module
    digest: str = "0"


class Copies(nn.Module):
    """The image itself, in every channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.expand(-1, 3, -1, -1, -1)


def identity() -> Loaded:
    """A network whose output is its input, three times."""
    return Loaded(Card(activation="none"), Copies())


def convolutional(offsets: list[list[int]] | None = None, seed: int = 0, colours: int = 1) -> Loaded:
    """Convolutions, instance norms and ELUs with random weights: a voxel depends on its whole patch."""
    torch.manual_seed(seed)
    offsets = offsets or list(NEAREST)
    layers = [
        nn.Conv3d(colours, 5, (1, 3, 3), padding=(0, 1, 1)),
        nn.InstanceNorm3d(5, affine=True),
        nn.ELU(),
        nn.Conv3d(5, 7, 3, padding=1),
        nn.InstanceNorm3d(7, affine=True),
        nn.ELU(),
        nn.Conv3d(7, len(offsets), 1),
    ]
    return Loaded(Card(offsets=offsets, image_channels=colours), nn.Sequential(*layers))
