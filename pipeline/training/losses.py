"""Losses on logits: functions of tensors, and the tables by which a training file asks for them.

A loss takes logits, targets and weights, all (b, c, z, y, x) or (b, c, y, x). A weight of 0 masks a voxel: the
network's output there has no effect. Means are over the voxels with a weight above 0. Everything is computed in float32
at least, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.base import Amount, Positive, Share
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


def contour_bce(logits: Tensor, targets: Tensor, weights: Tensor, *, background: float) -> Tensor:
    """Cross entropy of contours: ones weigh by the share of zeros, zeros by that of ones times ``background``.

    A sum over the unmasked voxels of a sample, as published; shares are those of a sample, all its channels together;
    mean over samples. ``weights`` only mask.
    """
    unmasked = (weights > 0).flatten(1)
    true = targets.flatten(1) * unmasked
    share = true.sum(1, keepdim=True) / unmasked.sum(1, keepdim=True).clamp(min=1)  # of ones
    weight = torch.where(true > 0, 1 - share, background * share) * unmasked
    loss = F.binary_cross_entropy_with_logits(full(logits).flatten(1), true, reduction="none")
    return (torch.where(unmasked, loss, 0.0) * weight).sum(1).mean()


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


def weighted_dice_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, smooth: float, share: float) -> Tensor:
    """1 - (2 sum(p t) + smooth) / (sum(p^2) + sum(t^2) + smooth) of a sample; mean over samples.

    t and p are target and probability from -1 to 1, times ``share`` where the target is 1 and 1 - ``share`` where it is
    0 (WSDice of PyTorch Connectomics), so that background counts as well, but less. ``weights`` only mask.
    """
    unmasked = (weights > 0).flatten(1)
    true = targets.flatten(1)
    weight = unmasked * (true * share + (1 - true) * (1 - share))
    p, t = weight * (2 * torch.sigmoid(full(logits)).flatten(1) - 1), weight * (2 * true - 1)
    return (1 - (2 * (p * t).sum(1) + smooth) / ((p**2).sum(1) + (t**2).sum(1) + smooth)).mean()


def mean_absolute(logits: Tensor, targets: Tensor, weights: Tensor, *, activation: str) -> Tensor:
    """Weighted difference between the targets and the activated logits, mean over the unmasked voxels (L1)."""
    return _mean((ACTIVATIONS[activation](full(logits)) - targets).abs(), weights)


def smooth_absolute(logits: Tensor, targets: Tensor, weights: Tensor, *, activation: str, beta: float) -> Tensor:
    """L1, but d^2 / (2 beta) for differences d of less than ``beta``, and beta / 2 less for the others."""
    predicted = ACTIVATIONS[activation](full(logits))
    return _mean(F.smooth_l1_loss(predicted, targets, reduction="none", beta=beta), weights)


def mean_square(logits: Tensor, targets: Tensor, weights: Tensor, *, activation: str) -> Tensor:
    """Weighted squared difference between the targets and the activated logits, mean over the unmasked voxels."""
    said = ACTIVATIONS[activation](full(logits))
    return _mean((said - targets) ** 2, weights)


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, *, smoothing: float = 0.0, balanced: bool = False
) -> Tensor:
    """Cross entropy of classes: logits (b, classes, ...); targets, class numbers, and weights (b, 1, ...).

    smoothing: this share of the probability is expected to be spread evenly over all classes.
    balanced: all classes that occur at unmasked voxels of the batch weigh the same.
    """
    classes = torch.where(weights > 0, targets, 0)[:, 0].long()
    loss = F.cross_entropy(full(logits), classes, reduction="none", label_smoothing=smoothing)[:, None]
    return _mean(loss * class_weights(classes, weights, logits.shape[1])[:, None] if balanced else loss, weights)


def class_weights(classes: Tensor, weights: Tensor, number: int) -> Tensor:
    """A weight for each voxel (b, ...), 1 / (classes that occur * share of the voxel's class); shares at least 0.05.

    classes: class numbers (b, ...). weights: (b, 1, ...), above 0 at the voxels that count.
    """
    counts = torch.bincount(classes[weights[:, 0] > 0], minlength=number).to(weights.dtype)
    shares = (counts / counts.sum().clamp(min=1)).clamp(min=LEAST_SHARE)
    return (1 / ((counts > 0).sum().clamp(min=1) * shares))[classes]


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


class ContourBce(LossSpec):
    """The loss of the γ-Net for contours (Linsley et al. 2020): balanced in each picture, and a sum."""

    kind: Literal["contour_bce"] = "contour_bce"
    background: Positive = 1.1
    """Factor of the weight of zeros."""

    @property
    def is_balanced(self) -> bool:
        """Always."""
        return True

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return contour_bce(logits, targets, weights, background=self.background)


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


class WeightedDice(LossSpec):
    """Weighted soft Dice loss (WSDice) of each sample, in which background counts too."""

    kind: Literal["weighted_dice"] = "weighted_dice"
    smooth: Amount = 100.0
    """Added to numerator and denominator."""
    share: Share = 0.85
    """Weight of true voxels; the others have 1 minus this."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return weighted_dice_loss(logits, targets, weights, smooth=self.smooth, share=self.share)


class Regression(LossSpec):
    """A loss on the difference between a target and the activated logits."""

    activation: Literal["none", "sigmoid", "tanh"] = "sigmoid"
    """Applied to the logits first."""

    @property
    def output(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """As ``activation`` says."""
        return self.activation


class MeanAbsolute(Regression):
    """Mean absolute error."""

    kind: Literal["l1"] = "l1"

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return mean_absolute(logits, targets, weights, activation=self.activation)


class SmoothAbsolute(Regression):
    """Mean absolute error that is quadratic near 0."""

    kind: Literal["smooth_l1"] = "smooth_l1"
    beta: Positive = 1.0
    """Smaller differences count quadratically."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return smooth_absolute(logits, targets, weights, activation=self.activation, beta=self.beta)


class MeanSquare(Regression):
    """Mean squared error."""

    kind: Literal["mse"] = "mse"

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return mean_square(logits, targets, weights, activation=self.activation)


class CrossEntropy(LossSpec):
    """Cross entropy of classes."""

    of_classes: ClassVar[bool] = True

    kind: Literal["cross_entropy"] = "cross_entropy"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing: this share of the probability is expected to be spread evenly over all classes."""
    balanced: bool = False
    """All classes that occur in a batch weigh the same, however rare they are (down to a share of 0.05)."""

    @property
    def is_balanced(self) -> bool:
        """As ``balanced`` says."""
        return self.balanced

    @property
    def output(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """The classes' probabilities."""
        return "softmax"

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """See ``LossSpec``."""
        return cross_entropy(logits, targets, weights, smoothing=self.smoothing, balanced=self.balanced)
