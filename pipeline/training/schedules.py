"""Optimisers and learning rates of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pipeline.errors import ConfigError
from pipeline.training.config import TrainConfig

FINAL_RATE = 0.03
"""Share of the learning rate that is left at the end of the cosine."""
POWER, LOWEST = 0.9, 1e-3
"""Exponent of the polynomial, and the share of the learning rate at its end (canvas network: 1e-3 to 1e-6)."""
PLATEAU_FACTOR = 0.5

Groups = list[dict[str, Any]]
"""Parameters with their learning rates, as torch's optimisers take them."""
OPTIMISERS: dict[str, Callable[[Groups, TrainConfig], torch.optim.Optimizer]] = {
    "adamw": lambda p, c: torch.optim.AdamW(p, c.learning_rate, weight_decay=c.weight_decay, betas=(0.9, 0.99)),
    "adam": lambda p, c: torch.optim.Adam(p, c.learning_rate, weight_decay=c.weight_decay),
    "nadam": lambda p, c: torch.optim.NAdam(p, c.learning_rate, weight_decay=c.weight_decay),
    "sgd": lambda p, c: torch.optim.SGD(p, c.learning_rate, weight_decay=c.weight_decay, momentum=c.momentum),
}
"""Name -> constructor of (parameters, training)."""


def make_optimiser(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a training."""
    return OPTIMISERS[config.optimiser](parameter_groups(network, config), config)


def parameter_groups(network: nn.Module, config: TrainConfig) -> Groups:
    """The parameters without a group, if there are any, and those of each group, with their learning rates.

    Raises ``ConfigError`` for a group that no parameter is in.
    """
    groups: Groups = [
        {"params": [], "lr": rate} for rate in (config.learning_rate, *(g.learning_rate for g in config.groups))
    ]
    for name, parameter in network.named_parameters():
        fitting = [number for number, group in enumerate(config.groups, start=1) if fnmatchcase(name, group.match)]
        groups[fitting[0] if fitting else 0]["params"].append(parameter)
    for group, found in zip(config.groups, groups[1:], strict=True):
        if not found["params"]:
            begin = sorted({name.split(".")[0] for name, _ in network.named_parameters()})
            raise ConfigError(
                f"groups has the pattern {group.match!r}; no parameter of {config.architecture} fits it that is in no "
                f"earlier group; their names begin with {', '.join(begin)}: correct it, such as {begin[0]}.*"
            )
    return [group for group in groups if group["params"]]


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
