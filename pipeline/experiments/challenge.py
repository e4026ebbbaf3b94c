"""The synthetic connectomics challenge in memory: pictures, a training of some updates, and a score.

A picture is 128 x 128 pixels from the middle of one of 192 x 192 (docs/synthetic.md), so that one picture, 1 % of the
labels, holds a dozen cells. At each update a network sees a random patch of one picture, flipped and turned (the
paper's networks see theirs as they are).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.experiments.equal_time import clock
from pipeline.models.spec import build
from pipeline.synthetic.challenge_settings import LONG, MODERATE, SHORT, ChallengeConfig
from pipeline.synthetic.connectomics_challenge import make_challenge
from pipeline.training.losses import balanced_bce

SMALL = ChallengeConfig(
    size=192, crop=128, nodes=6, snakes=tuple(kind.model_copy(update={"number": 1}) for kind in (LONG, MODERATE, SHORT))
)
"""The density of the default picture, which is 500 pixels wide and has six snakes of each kind."""
TRAIN_SEED, TEST_SEED = 0, 1
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pictures:
    """Images and their targets, both float32 (n, y, x)."""

    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Pictures:
        """The first ``count`` pictures."""
        return Pictures(self.images[:count], self.targets[:count])


@dataclass(frozen=True)
class Fit:
    """How a network is trained: Adam, a cosine after a short warm-up, clipped gradients, one patch for each update."""

    updates: int
    patch: int = 96
    learning_rate: float = 5e-3
    clip_norm: float = 1.0


@lru_cache(maxsize=4)
def pictures(count: int, seed: int, config: ChallengeConfig = SMALL) -> Pictures:
    """Pictures 0 to ``count`` - 1 of a seed."""
    samples = [make_challenge(index, seed=seed, config=config) for index in range(count)]
    images, targets = (np.stack(arrays).astype(np.float32) for arrays in zip(*[s[:2] for s in samples], strict=True))
    return Pictures(images, targets)


class Learner:
    """A network in training; the same seed gives the same weights and patches."""

    def __init__(
        self,
        architecture: str,
        arguments: dict[str, Any],
        data: Pictures,
        fit: Fit,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.network: nn.Module = build(architecture, {**arguments, "out_channels": 1}).train().to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), fit.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: rate(step, fit.updates))
        self.data, self.fit, self.device, self.rng = data, fit, device, np.random.default_rng(seed)

    def update(self) -> float:
        """Do one update; returns its seconds."""
        began = clock(self.device)
        image, target = (
            torch.from_numpy(array)[None, None, None].to(self.device) for array in self.draw()
        )  # (1, 1, 1, y, x)
        loss = balanced_bce(self.network(image), target, torch.ones_like(target))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.fit.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        return clock(self.device) - began

    def draw(self) -> Sequence[np.ndarray]:
        """A random patch (y, x) of an image and its target, turned and mirrored alike."""
        number, turns, mirrored = self.rng.integers([len(self.data), 4, 2])
        y, x = self.rng.integers(self.data.images.shape[1] - self.fit.patch + 1, size=2)
        box = number, slice(y, y + self.fit.patch), slice(x, x + self.fit.patch)
        patches = [np.rot90(array[box], turns) for array in (self.data.images, self.data.targets)]
        return [np.ascontiguousarray(patch[:, ::-1] if mirrored else patch) for patch in patches]

    def run(self) -> float:
        """Do all updates; returns the median of their seconds."""
        return median([self.update() for _ in range(self.fit.updates)])


def rate(step: int, updates: int) -> float:
    """Share of the learning rate: it rises over a twentieth of the updates, then falls by a cosine to 3 %."""
    warm = max(1, updates // 20)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0, step - warm) / max(1, updates - warm))))
    return min((step + 1) / warm, 0.03 + 0.97 * fall)


def score(network: nn.Module, data: Pictures) -> dict[str, float]:
    """Average precision of the pixels of membranes, and the best F1 of any threshold; mean over the pictures."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        images = [torch.from_numpy(image)[None, None, None].to(device) for image in data.images]  # (1, 1, 1, y, x)
        logits = [network(image)[0, 0, 0].cpu() for image in images]
    found = [precision(said, target > 0) for said, target in zip(logits, data.targets, strict=True)]
    average, best = np.mean(found, axis=0).tolist()
    return {"ap": average, "f1": best}


def precision(scores: Tensor | np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Average precision and the best F1 over all thresholds; equal scores share a threshold."""
    values, true = np.asarray(scores, np.float64).ravel(), truth.ravel()
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = np.cumsum(true[order])[last]
    precisions, recalls = hits / (last + 1), hits / max(1, true.sum())
    f1 = 2 * hits / (last + 1 + true.sum())
    return float(np.sum(precisions * np.diff(recalls, prepend=0.0))), float(f1.max())
