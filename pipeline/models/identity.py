"""A model without weights whose affinities are the image itself; with it, tests check patches, blending and storage."""

from __future__ import annotations

from torch import Tensor, nn


class Identity(nn.Module):
    """Every output channel is the input."""

    multiple = (1, 1, 1)

    def __init__(self, out_channels: int = 3) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, image: Tensor) -> Tensor:
        """(b, 1, z, y, x) -> (b, out_channels, z, y, x)."""
        return image.expand(-1, self.out_channels, -1, -1, -1)
