"""Gratings of the tilt illusion for an experiment: a readout is trained on them, and its bias is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.experiments.base import Result
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.models.tilt_readout import TiltReadout, bias_curve, centre, orientation, tilt_bias
from pipeline.synthetic.sample import Sample
from pipeline.synthetic.tilt import TiltConfig, make_tilt

Part = Literal["train", "test"]
TRAIN_SEED, CHECK_SEED, TEST_SEED = 0, 1, 2
BATCH = 16
SCALED = 500
"""Side of the published images, in pixels; sizes of discs and stripes are scaled with the side."""
RADIUS, WAVELENGTH = (80.0, 240.0), (30.0, 90.0)
"""Published sizes."""
NEAR, FAR = 20.0, 75.0
"""Degrees between centre and surround at which people see repulsion, and attraction."""


@dataclass(frozen=True)
class Gratings:
    """How many gratings there are, and how the readout learns."""

    side: int
    """Pixels of an image."""
    train: int
    """Single gratings to learn."""
    test: int
    """Gratings with a surround."""
    check: int = 100
    """Single gratings that were not learned, for the error of the readout."""
    updates: int = 400
    """Updates of the readout, each with all gratings (a thousand of them at random if there are more)."""
    rate: float = 3e-3

    def config(self, part: Part) -> TiltConfig:
        """The settings of the generator, sizes in proportion to the published ones."""
        share = self.side / SCALED
        radius, wavelength = ((share * low, share * high) for low, high in (RADIUS, WAVELENGTH))
        return TiltConfig(part=part, size=self.side, radius=radius, wavelength=wavelength)

    def samples(self, part: Part, count: int, seed: int) -> Iterator[list[Sample]]:
        """All gratings in small batches, so that large numbers of them are never in memory at once."""
        config = self.config(part)
        for start in range(0, count, BATCH):
            yield [make_tilt(i, seed=seed, config=config) for i in range(start, min(start + BATCH, count))]


class DriveReadout(TiltReadout):
    """The readout of the drive: what the image is before the recurrence."""

    def features(self, image: Tensor) -> Tensor:
        """Image (b, 1, y, x) -> the drive, (b, c, y', x'), without a gradient."""
        with torch.no_grad():
            return self.network.drive(image)


def channels_of(network: RecurrentNetwork) -> int:
    """Channels of the drive, and of the lowest state."""
    with torch.no_grad():
        device = next(network.parameters()).device
        return network.drive(torch.zeros(1, 1, 16, 16, device=device)).shape[1]


def read_out(network: RecurrentNetwork, gratings: Gratings, seed: int, *, drive: bool = False) -> Result:
    """Train a readout on single gratings and measure how a surround biases it.

    Returns ``error``, the median error in degrees for other single gratings, and ``dtheta`` and ``bias``, one a test.
    """
    torch.manual_seed(seed)
    device = next(network.parameters()).device
    readout = (DriveReadout if drive else TiltReadout)(network, channels_of(network), side=gratings.side).to(device)
    fit(readout, *seen(readout, gratings, "train", gratings.train, TRAIN_SEED)[:2], gratings)
    _, error = answered(readout, gratings, "train", gratings.check, CHECK_SEED)
    dtheta, bias = answered(readout, gratings, "test", gratings.test, TEST_SEED)
    return {"error": float(np.median(np.abs(error))), "dtheta": dtheta.tolist(), "bias": bias.tolist()}


def seen(
    readout: TiltReadout, gratings: Gratings, part: Part, count: int, seed: int
) -> tuple[Tensor, Tensor, list[Sample]]:
    """The normalised state at the centre (n, c), targets (n, 2), and the samples without their images.

    Gain and bias of the norm stay as they are: the layer behind it learns the same.
    """
    vectors, kept, device = [], [], next(readout.parameters()).device
    for batch in gratings.samples(part, count, seed):
        image = torch.from_numpy(np.stack([sample.image for sample in batch]))[:, None].to(device)
        with torch.no_grad():
            vectors.append(centre(readout.norm(readout.features(image)), gratings.side))
        kept += [sample._replace(image=np.zeros(0)) for sample in batch]
    targets = torch.from_numpy(np.stack([sample.target for sample in kept])).to(device)
    return torch.cat(vectors), targets, kept


def fit(readout: TiltReadout, vectors: Tensor, targets: Tensor, gratings: Gratings) -> None:
    """Train the two layers of the readout with Adam."""
    optimiser = torch.optim.Adam(readout.layers.parameters(), gratings.rate)
    for _ in range(gratings.updates):
        chosen = torch.randperm(len(vectors))[:1000].to(vectors.device)
        loss = F.mse_loss(readout.layers(vectors[chosen]), targets[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def answered(
    readout: TiltReadout, gratings: Gratings, part: Part, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orientation of the surround less that of the centre (0 without one), and the bias; degrees, both (n,)."""
    vectors, _, samples = seen(readout, gratings, part, count, seed)
    with torch.no_grad():
        answers = orientation(readout.layers(vectors).cpu().numpy())
    theta, dtheta = (np.array([sample.more.get(key, 0.0) for sample in samples]) for key in ("theta", "dtheta"))
    return dtheta, tilt_bias(answers, theta)


def towards(dtheta: np.ndarray, bias: np.ndarray, degrees: float) -> float:
    """The fitted curve at a difference of orientations, in degrees towards the surround; the mean of both sides."""
    curve = bias_curve(dtheta, bias)
    return float(curve(degrees) - curve(-degrees)) / 2
