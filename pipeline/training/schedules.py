"""Optimisers and learning rates of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pipeline.training.config import TrainConfig

FINAL_RATE = 0.03
"""Share of the learning rate that is left at the end of the cosine."""
POWER, LOWEST = 0.9, 1e-3
"""Exponent of the polynomial, and the share of the learning rate at its end (canvas network: 1e-3 to 1e-6)."""
PLATEAU_FACTOR = 0.5
MOMENTUM = 0.95

OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "adamw": lambda p, rate, decay: torch.optim.AdamW(p, lr=rate, weight_decay=decay, betas=(0.9, 0.99)),
    "adam": lambda p, rate, decay: torch.optim.Adam(p, lr=rate, weight_decay=decay),
    "nadam": lambda p, rate, decay: torch.optim.NAdam(p, lr=rate, weight_decay=decay),
    "sgd": lambda p, rate, decay: torch.optim.SGD(p, lr=rate, weight_decay=decay, momentum=MOMENTUM),
}
"""Name -> constructor of (parameters, learning rate, weight decay)."""


def make_optimiser(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a training."""
    return OPTIMISERS[config.optimiser](parameters, config.learning_rate, config.weight_decay)


def make_schedule(
    optimiser: torch.optim.Optimizer, config: TrainConfig, scores: Callable[[], Sequence[float]]
) -> LRScheduler:
    """The factor of the learning rate at every step; ``scores`` returns the scores of the validations so far."""
    halve = config.schedule == "plateau"

    def share(step: int) -> float:
        halved = halvings(scores(), config.plateau_validations) if halve else 0
        return share_of_rate(step, config) * PLATEAU_FACTOR**halved

    return LambdaLR(optimiser, share)


def halvings(scores: Sequence[float], patience: int) -> int:
    """The number of times that ``patience`` scores in a row were no better than the best one before them."""
    best, stale, result = -math.inf, 0, 0
    for score in scores:
        stale = 0 if score > best else stale + 1
        best = max(best, score)
        if stale == patience:
            stale, result = 0, result + 1
    return result


def share_of_rate(step: int, config: TrainConfig) -> float:
    """The factor of the learning rate at a step, counted from 0: linear warm-up times the fall of the schedule."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warm * fall(step / config.steps, config.schedule)


def fall(done: float, schedule: str) -> float:
    """The share of the learning rate after a share ``done`` (0 to 1) of the steps."""
    if schedule == "cosine":
        return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "polynomial":
        return LOWEST + (1 - LOWEST) * max(0.0, 1 - done) ** POWER
    return 1.0
