"""The orientation at the centre of an image, read from a trained network whose weights are not changed.

Linsley, Kim, Ashok and Serre 2020 (ICLR), the tilt illusion: a gamma-Net that was trained on contours predicts the
orientation of a grating, and a surround of another orientation biases its prediction as it does that of people.

    H     = lowest state of the frozen network after T steps, of the image at 224 x 224
    p     = C2 * relu(C1 * bilinear(IN(H)))  at the centre pixel              C1, C2: 1 x 1; 128 channels, then 2
    loss  = min(||y - p||^2, ||y + p||^2)                                     y = (sin theta, cos theta)

An orientation is the same after half a turn, so y and -y are the same orientation: for each sample, the loss takes the
nearer one (the published code takes the minimum over the whole batch, which is a slip). With y = (sin 2 theta, cos 2
theta), ours by default, one orientation has one y, and the loss is the plain square. As C1 and C2 see one pixel, only
the centre is computed.

Shapes: b = batch, c = channels of the lowest state.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.cells.blocks import Norm
from pipeline.models.recurrent import RecurrentNetwork

SIDE = 224
"""Pixels of the image that the network sees."""


class TiltReadout(nn.Module):
    """The readout around a network; only its own layers are trained. ``side``: of the image that the network sees."""

    def __init__(self, network: RecurrentNetwork, channels: int, hidden: int = 128, side: int = SIDE) -> None:
        super().__init__()
        self.network, self.side = network.requires_grad_(False).eval(), side
        self.norm = Norm(channels, "instance", gain=1.0)  # IN
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 2))  # C1, C2

    def train(self, mode: bool = True) -> TiltReadout:
        """Set the training mode of the readout; the network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def features(self, image: Tensor) -> Tensor:
        """Image (b, 1, y, x) -> H, (b, c, y', x'), without a gradient."""
        with torch.no_grad():
            image = F.interpolate(image, (self.side, self.side), mode="bilinear", align_corners=False)
            x = self.network.drive(image)
            state = self.network.initial(x)
            for _ in range(self.network.steps):
                state = self.network.step(x, state)
        return state if isinstance(state, Tensor) else state[0]

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, 1, y, x) -> p, (b, 2)."""
        if image.ndim != 4:
            raise ModelError(f"the image has shape {tuple(image.shape)}; it needs four axes: batch, channel, y, x")
        return self.layers(centre(self.norm(self.features(image)), self.side))  # type: ignore[no-any-return]


def centre(r: Tensor, side: int) -> Tensor:
    """(b, c, y, x) enlarged bilinearly to a side, at the pixel side // 2: (b, c)."""
    return F.interpolate(r, (side, side), mode="bilinear", align_corners=False)[:, :, side // 2, side // 2]


def mirror_loss(p: Tensor, y: Tensor) -> Tensor:
    """min(||y - p||^2, ||y + p||^2) of each sample, (b, 2), and their mean: a scalar."""
    return torch.minimum((y - p).square().sum(1), (y + p).square().sum(1)).mean()


def orientation(p: np.ndarray, *, doubled: bool = True) -> np.ndarray:
    """Predictions (n, 2) -> orientations in degrees, from 0 to 180, (n,)."""
    angle = np.rad2deg(np.arctan2(p[:, 0], p[:, 1]))
    return np.asarray((angle / 2 if doubled else angle) % 180)


def tilt_bias(answered: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The difference in degrees between predicted and true orientation, -90 to 90."""
    return np.asarray((answered - theta + 90) % 180 - 90)


def bias_curve(dtheta: np.ndarray, bias: np.ndarray) -> np.polynomial.Polynomial:
    """The paper's curve: a polynomial of fourth order of bias over dtheta, both in degrees."""
    return np.polynomial.Polynomial.fit(dtheta, bias, 4)
