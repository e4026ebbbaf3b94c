"""Losses on logits: functions of tensors, and the tables by which a training file asks for them.

A loss takes logits, targets and weights, all (b, c, z, y, x) or (b, c, y, x). A weight of 0 masks a voxel: the
network's output there has no effect. Means are over the voxels with a weight above 0. Everything is computed in float32
at least, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.base import Amount
from pipeline.training.loss_specs import LossSpec

LEAST_SHARE = 0.05
"""The least share of the rarer class, which bounds the weight of a single membrane voxel in a patch."""


def balanced_bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy over voxels where ``mask`` is above 0, with equal weight of both classes; mean over
    channels.

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
    """Weighted binary cross entropy, summed and divided by the number of unmasked voxels (not by their weights)."""
    return _mean(F.binary_cross_entropy_with_logits(full(logits), targets, reduction="none"), weights)


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, gamma: float) -> Tensor:
    """(1 - p)^gamma times the cross entropy, p the probability of the true class (Lin et al. 2017)."""
    cross = F.binary_cross_entropy_with_logits(full(logits), targets, reduction="none")
    return _mean((-torch.expm1(-cross)) ** gamma * cross, weights)  # exp(-cross) is p


def dice_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, smooth: float) -> Tensor:
    """1 - (2 |P T| + smooth) / (|P| + |T| + smooth) of a sample, all its channels together; mean over samples.

    Weights only mask here: a voxel counts if its weight is above 0.
    """
    asked = (weights > 0).flatten(1)
    said, true = (part.flatten(1) * asked for part in (torch.sigmoid(full(logits)), targets))
    both, either = (said * true).sum(1), said.sum(1) + true.sum(1)
    return (1 - (2 * both + smooth) / (either + smooth)).mean()


def mean_square(logits: Tensor, targets: Tensor, weights: Tensor, *, activation: str) -> Tensor:
    """Weighted squared difference between the targets and the activated logits, mean over the unmasked voxels."""
    said = ACTIVATIONS[activation](full(logits))
    return _mean((said - targets) ** 2, weights)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of classes: logits (b, classes, ...); targets, class numbers, and weights (b, 1, ...)."""
    loss = F.cross_entropy(full(logits), targets[:, 0].long(), reduction="none")
    return _mean(loss[:, None], weights)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda logits: logits,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def full(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _mean(loss: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over the number of unmasked voxels; masked ones add nothing, even if their loss is not finite."""
    unmasked = weights > 0
    return (torch.where(unmasked, loss, 0.0) * weights).sum() / unmasked.sum().clamp(min=1)


class Bce(LossSpec):
    """Binary cross entropy."""

    kind: Literal["bce", "balanced_bce"] = "balanced_bce"
    """bce: weighted by the target's weights; balanced_bce: both classes weigh the same in every channel."""

    @property
    def is_balanced(self) -> bool:
        """As ``kind`` says."""
        return self.kind == "balanced_bce"

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return (balanced_bce if self.is_balanced else weighted_bce)(logits, targets, weights)


class Dice(LossSpec):
    """Dice loss of each sample."""

    kind: Literal["dice"] = "dice"
    smooth: Amount = 100.0
    """Added to numerator and denominator: 100 voxels in PyTorch Connectomics."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return dice_loss(logits, targets, weights, smooth=self.smooth)


class Focal(LossSpec):
    """Focal loss."""

    kind: Literal["focal"] = "focal"
    gamma: Amount = 2.0
    """The exponent of (1 - p), the weight of a voxel whose true class has probability p."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return focal_loss(logits, targets, weights, gamma=self.gamma)


class MeanSquare(LossSpec):
    """Mean squared error."""

    kind: Literal["mse"] = "mse"
    activation: Literal["none", "sigmoid", "tanh"] = "sigmoid"
    """Applied to the logits first."""

    @property
    def output(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """As ``activation`` says."""
        return self.activation

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return mean_square(logits, targets, weights, activation=self.activation)


class CrossEntropy(LossSpec):
    """Cross entropy of classes."""

    of_classes: ClassVar[bool] = True

    kind: Literal["cross_entropy"] = "cross_entropy"

    @property
    def output(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """The classes' probabilities."""
        return "softmax"

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return cross_entropy(logits, targets, weights)
