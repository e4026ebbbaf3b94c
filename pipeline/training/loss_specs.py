"""The losses of a target, as a training file lists them.

    losses: [{kind: bce}, {kind: dice, weight: 0.5}]

A new loss is a ``LossSpec``, with its settings and what it computes, and a row in ``LOSSES``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.config.base import Positive, Table
from pipeline.config.registered import OneOf

LOSSES = {
    "bce": "pipeline.training.losses:Bce",
    "balanced_bce": "pipeline.training.losses:Bce",
    "contour_bce": "pipeline.training.losses:ContourBce",
    "dice": "pipeline.training.losses:Dice",
    "weighted_dice": "pipeline.training.losses:WeightedDice",
    "focal": "pipeline.training.losses:Focal",
    "mse": "pipeline.training.losses:MeanSquare",
    "l1": "pipeline.training.losses:MeanAbsolute",
    "smooth_l1": "pipeline.training.losses:SmoothAbsolute",
    "cross_entropy": "pipeline.training.losses:CrossEntropy",
}
"""``kind`` of a loss -> "module:class" of its ``LossSpec``."""


class LossSpec(Table):
    """One loss of a target."""

    of_classes: ClassVar[bool] = False
    """True if it takes class numbers as targets and a channel of logits for each class."""

    kind: str
    weight: Positive = 1.0
    """The loss is multiplied by this in the sum."""

    @property
    def is_balanced(self) -> bool:
        """True if it weighs the classes itself, so that a target needs no weights."""
        return False

    @property
    def output(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """What turns logits into values of the target, as this loss sees them."""
        return "sigmoid"

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss before it is multiplied by ``weight``, one number.

        All (b, c, z, y, x) or (b, c, y, x); targets and weights have one channel if the loss is ``of_classes``. A
        weight of 0 masks a voxel: what the network predicts there changes nothing.
        """
        raise NotImplementedError


AnyLoss = Annotated[LossSpec, OneOf(LOSSES, "kind")]
Losses = Annotated[tuple[AnyLoss, ...], Field(min_length=1)]
