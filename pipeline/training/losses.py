"""Losses on logits, and their weighted sum over any number of targets.

A loss takes logits, targets and weights, all (b, c, z, y, x) or (b, c, y, x). A weight of 0 masks a voxel: what the
network says there changes nothing. Means are over the voxels with a weight above 0. Everything is computed in float32
at least, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.training.loss_specs import AnyLoss, CrossEntropy, Dice, Focal, MeanSquare
from pipeline.training.target_specs import AnyTarget

LEAST_SHARE = 0.05
"""The rarer class counts as at least this share, so that a patch with one membrane voxel does not explode."""


def balanced_bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy over the masked voxels in which both classes weigh the same, mean over channels.

    All (b, c, z, y, x) or (b, c, y, x). Class shares are taken for each channel over batch and voxels.
    """
    others = (0, *range(2, logits.ndim))
    voxels = mask.sum(others).clamp(min=1)  # (c,)
    share = ((targets * mask).sum(others) / voxels).clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    share = share.view(1, -1, *[1] * (logits.ndim - 2))
    weight = 0.5 * mask * (targets / share + (1 - targets) / (1 - share))
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return ((loss * weight).sum(others) / voxels).mean()


def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted binary cross entropy over the number of asked voxels (not over the sum of their weights)."""
    return _mean(F.binary_cross_entropy_with_logits(_full(logits), targets, reduction="none"), weights)


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, gamma: float) -> Tensor:
    """(1 - p)^gamma times the cross entropy, p the probability of the true class (Lin et al. 2017): rare targets."""
    cross = F.binary_cross_entropy_with_logits(_full(logits), targets, reduction="none")
    return _mean((-torch.expm1(-cross)) ** gamma * cross, weights)  # exp(-cross) is p


def dice_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, smooth: float) -> Tensor:
    """1 - (2 |P T| + smooth) / (|P| + |T| + smooth) of a sample, all its channels together; mean over samples.

    Weights only mask here: a voxel counts if its weight is above 0.
    """
    asked = (weights > 0).flatten(1)
    said, true = (part.flatten(1) * asked for part in (torch.sigmoid(_full(logits)), targets))
    both, either = (said * true).sum(1), said.sum(1) + true.sum(1)
    return (1 - (2 * both + smooth) / (either + smooth)).mean()


def mean_square(logits: Tensor, targets: Tensor, weights: Tensor, *, activation: str) -> Tensor:
    """Weighted squared difference between the targets and the activated logits, mean over the asked voxels."""
    said = ACTIVATIONS[activation](_full(logits))
    return _mean((said - targets) ** 2, weights)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of classes: logits (b, classes, ...); targets, class numbers, and weights (b, 1, ...)."""
    loss = F.cross_entropy(_full(logits), targets[:, 0].long(), reduction="none")
    return _mean(loss[:, None], weights)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda logits: logits,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _full(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _mean(loss: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over the number of asked voxels; masked voxels count nothing, even where the loss is not finite."""
    asked = weights > 0
    return (torch.where(asked, loss, 0.0) * weights).sum() / asked.sum().clamp(min=1)


@dataclass(frozen=True)
class LossParts:
    """A weighted sum and what it is made of."""

    total: Tensor
    """What to call ``backward`` on."""
    parts: dict[str, Tensor]
    """The losses before they were weighted, detached, by ``target/loss``; repeated names are numbered."""


def one_loss(spec: AnyLoss, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The loss that a specification names, without its weight."""
    match spec:
        case Focal():
            return focal_loss(logits, targets, weights, gamma=spec.gamma)
        case Dice():
            return dice_loss(logits, targets, weights, smooth=spec.smooth)
        case MeanSquare():
            return mean_square(logits, targets, weights, activation=spec.activation)
        case CrossEntropy():
            return cross_entropy(logits, targets, weights)
        case _:
            return {"balanced_bce": balanced_bce, "bce": weighted_bce}[spec.kind](logits, targets, weights)


def combined_loss(specs: Sequence[AnyTarget], logits: Tensor, targets: Tensor, weights: Tensor) -> LossParts:
    """The weighted sum of all losses of all targets.

    Args:
        specs: the targets, in the order of the network's channels.
        logits: (b, sum of ``channels``, ...).
        targets, weights: (b, sum of ``target_channels``, ...), from ``pipeline.training.target_specs.make_targets``.

    Raises:
        ConfigError: the network has another number of channels than the targets need.
    """
    sizes = [spec.channels for spec in specs]
    if logits.shape[1] != sum(sizes):
        raise ConfigError(f"the network has {logits.shape[1]} channels; the targets need {sizes}: {sum(sizes)} in all")
    given = [spec.target_channels for spec in specs]
    pieces = zip(logits.split(sizes, 1), targets.split(given, 1), weights.split(given, 1), strict=True)
    total = _full(logits).new_zeros(())
    parts: dict[str, Tensor] = {}
    for spec, piece in zip(specs, pieces, strict=True):
        for loss in spec.losses:
            value = one_loss(loss, *piece)
            total = total + loss.weight * value
            parts[_free(f"{spec.what}/{loss.kind}", parts)] = value.detach()
    return LossParts(total, parts)


def _free(name: str, taken: dict[str, Tensor]) -> str:
    """The name, with a number if it is taken."""
    number = 1 + sum(key == name or key.startswith(f"{name} ") for key in taken)
    return name if number == 1 else f"{name} {number}"
