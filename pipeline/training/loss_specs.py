"""The losses of a target, as a training file lists them.

    losses: [{kind: bce}, {kind: dice, weight: 0.5}]

``pipeline.training.losses`` computes them. A new loss is a class here, a name in ``AnyLoss``, and a function there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Amount, Positive, Table


class LossSpec(Table):
    """One loss of a target."""

    weight: Positive = 1.0
    """The loss is multiplied by this in the sum."""


class Bce(LossSpec):
    """Binary cross entropy."""

    kind: Literal["bce", "balanced_bce"] = "balanced_bce"
    """bce: weighted by the target's weights; balanced_bce: both classes weigh the same in every channel."""


class Dice(LossSpec):
    """Dice loss of each sample."""

    kind: Literal["dice"] = "dice"
    smooth: Amount = 100.0
    """Added to both sides of the quotient: 100 voxels in PyTorch Connectomics."""


class Focal(LossSpec):
    """Focal loss."""

    kind: Literal["focal"] = "focal"
    gamma: Amount = 2.0
    """Easy voxels count (1 - p) to this power."""


class MeanSquare(LossSpec):
    """Mean squared error."""

    kind: Literal["mse"] = "mse"
    activation: Literal["none", "sigmoid", "tanh"] = "sigmoid"
    """Applied to the logits first."""


class CrossEntropy(LossSpec):
    """Cross entropy of classes."""

    kind: Literal["cross_entropy"] = "cross_entropy"


AnyLoss = Annotated[Bce | Dice | Focal | MeanSquare | CrossEntropy, Field(discriminator="kind")]
Losses = Annotated[tuple[AnyLoss, ...], Field(min_length=1)]
