"""Codes of image patches that nobody labelled: a small variational autoencoder, trained on these patches alone.

The second stream of Lin et al. 2020 ("Two stream active query suggestion for active learning in connectomics"): 64
numbers a patch, the weight of the Kullback-Leibler divergence 1e-4. It is a function of the patches: first weights,
order and noise come from a fixed seed, and one thread computes it, so the same processor gives the same codes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 16
"""Voxels of a patch along each axis."""
NUMBERS = 64
"""Numbers of a code."""
DIVERGENCE = 1e-4
"""Weight of the divergence, relative to the mean squared error of a patch."""
UPDATES = 400
BATCH = 32
LEARNING_RATE = 1e-3


class PatchAutoencoder(nn.Module):
    """Three convolutions of stride 2 down to a code, and three back."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = (1, width, 2 * width, 4 * width)
        down = [nn.Sequential(nn.Conv3d(a, b, 4, 2, 1), nn.ReLU()) for a, b in pairwise(sizes)]
        up = [
            nn.Sequential(nn.ReLU(), nn.ConvTranspose3d(b, a, 4, 2, 1))
            for a, b in zip(reversed(sizes[:-1]), reversed(sizes[1:]), strict=True)
        ]
        self.small = (4 * width, *(3 * (SIDE // 8,)))
        flat = 4 * width * (SIDE // 8) ** 3
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 2 * NUMBERS))
        self.widen = nn.Linear(NUMBERS, flat)
        self.decoder = nn.Sequential(*up)

    def encode(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the codes, each (n, 64), of patches (n, 1, z, y, x)."""
        mean, log_variance = self.encoder(patches).chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, codes: Tensor) -> Tensor:
        """Patches (n, 1, z, y, x) of codes (n, 64)."""
        found: Tensor = self.decoder(self.widen(codes).reshape(-1, *self.small))
        return found


def patch_codes(patches: np.ndarray, seed: int = 0) -> np.ndarray:
    """The mean codes of patches, (n, 64) float64; ``patches``: (n, 16, 16, 16), of any range."""
    scaled = torch.from_numpy(((patches - patches.mean()) / (patches.std() or 1.0)).astype(np.float32))[:, None]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PatchAutoencoder()
            _fit(network, scaled)
        with torch.inference_mode():
            return np.concatenate([network.encode(part)[0].numpy() for part in scaled.split(BATCH)]).astype(np.float64)
    finally:
        torch.set_num_threads(threads)


def _fit(network: PatchAutoencoder, patches: Tensor) -> None:
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    for _ in range(UPDATES):
        batch = patches[torch.randint(len(patches), (BATCH,))]
        mean, log_variance = network.encode(batch)
        codes = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        loss = functional.mse_loss(network.decode(codes), batch) + DIVERGENCE * divergence
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
