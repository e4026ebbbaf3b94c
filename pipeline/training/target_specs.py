"""The targets that a network is trained on, and their losses, as a configuration file lists them.

    targets:
      - {what: affinities, offsets: [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}
      - {what: shape_descriptors, sigma_nm: [80, 80, 80]}
      - {what: contours, losses: [{kind: bce}, {kind: dice, weight: 0.5}], weights: ratio}

Every target has defaults for its losses. A new kind of target is a ``TargetSpec``, and a row in ``TARGETS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.config.base import CountOrZero, Table
from pipeline.config.registered import OneOf
from pipeline.training import targets as make
from pipeline.training.loss_specs import Losses
from pipeline.training.losses import Bce
from pipeline.training.weight_specs import AnyWeights, Equal, Labelled

Pair = tuple[np.ndarray, np.ndarray]
"""Target and weights, float32 (c, z, y, x) or (c, y, x)."""

TARGETS = {
    "affinities": "pipeline.training.target_kinds:Affinities",
    "foreground": "pipeline.training.target_kinds:Foreground",
    "membranes": "pipeline.training.target_kinds:Membranes",
    "contours": "pipeline.training.target_kinds:Contours",
    "signed_distance": "pipeline.training.target_kinds:SignedDistance",
    "instance_distance": "pipeline.training.target_kinds:InstanceDistance",
    "shape_descriptors": "pipeline.training.target_kinds:ShapeDescriptors",
    "classes": "pipeline.training.target_classes:Classes",
    "contour_map": "pipeline.training.target_classes:ContourMap",
}
"""``what`` of a target -> "module:class" of its ``TargetSpec``."""


class TargetSpec(Table):
    """A target that some of the network's channels predict, and its losses."""

    what: str
    losses: Losses = (Bce(),)
    """Their weighted sum is the loss of this target."""
    weights: AnyWeights = Equal()
    """The weights of voxels: equal, by the ratio of classes, by the U-Net's map, or by the calibre of objects."""
    label_erosion: CountOrZero = 0
    """Voxels this near to another label, in the plane, are in no object: 0, 1 or 2 are usual."""

    @model_validator(mode="after")
    def _classes_match(self) -> TargetSpec:
        classes = self.channels != self.target_channels
        if any(loss.of_classes != classes for loss in self.losses):
            raise ValueError(
                f"losses are {', '.join(loss.kind for loss in self.losses)}; classes and distances in levels need "
                "cross_entropy, and nothing else can use it: choose other losses, or levels: null"
            )
        return self

    @model_validator(mode="after")
    def _balanced_once(self) -> TargetSpec:
        balanced = [loss.kind for loss in self.losses if loss.is_balanced]
        if self.weights.kind != "none" and balanced:
            raise ValueError(
                f"weights is {self.weights.kind}; {balanced[0]} balances by itself: choose bce (or balanced: false), "
                "or no weights"
            )
        return self

    @property
    def channels(self) -> int:
        """Channels of the network."""
        return 1

    @property
    def target_channels(self) -> int:
        """Channels of the target: as many as of the network, but one for classes."""
        return self.channels

    @property
    def activation(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """The function that turns logits into values of the target, as the first loss applies it."""
        return self.losses[0].output

    @property
    def dimension(self) -> int | None:
        """2 if the target is made section by section, 3 if in volumes, None if as the labels are."""
        return None

    @property
    def holds_objects(self) -> bool:
        """True if labels are ids of objects, False if they are something else, such as classes."""
        return True

    @property
    def zero_is_unknown(self) -> bool:
        """True if label 0 is unknown, and masked; otherwise it is background."""
        return False

    @property
    def looks_around(self) -> bool:
        """True if a voxel's target is made of labels around it, where 0 is no gap: masked ones then keep their label.

        For all other targets masked voxels get label 0, so that nothing is said of pairs with one of them.
        """
        return False

    def make(self, labels: np.ndarray, resolution_nm: Sequence[float], eroded: np.ndarray | None = None) -> Pair:
        """Target and weights of labels (z, y, x) or (y, x); the weight of masked voxels is 0.

        A target in 2D of labels in 3D is made section by section. ``eroded`` is the result of ``erode``, if it is
        known.
        """
        if self.dimension == 2 and labels.ndim == 3:
            before = [None] * len(labels) if eroded is None else eroded
            sections = [self.make(s, resolution_nm[1:], e) for s, e in zip(labels, before, strict=True)]
            return np.stack([t for t, _ in sections], 1), np.stack([w for _, w in sections], 1)
        inside = self.erode(labels) if eroded is None else eroded
        if inside is None:
            target, mask = self.target(labels, resolution_nm)
        else:
            target, mask = self.target_of_eroded(labels, inside, resolution_nm)
        weights = self.weights.of(Labelled(target, mask, labels, resolution_nm))
        return target, (mask * weights).astype(np.float32)

    def erode(self, labels: np.ndarray) -> np.ndarray | None:
        """The labels eroded before any voxel is moved, for targets that need it; else ``None``."""
        return make.widen_borders(labels, self.label_erosion) if self.label_erosion else None

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """Target and mask of labels, float32 (c, z, y, x) or (c, y, x), for labels (z, y, x) or (y, x)."""
        raise NotImplementedError

    def target_of_eroded(self, labels: np.ndarray, eroded: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """Target and mask of labels whose ``erode`` returned ``eroded``."""
        return self.target(eroded, resolution_nm)


AnyTarget = Annotated[TargetSpec, OneOf(TARGETS, "what")]
Targets = Annotated[tuple[AnyTarget, ...], Field(min_length=1)]


def make_targets(
    specs: Sequence[AnyTarget],
    labels: np.ndarray,
    resolution_nm: Sequence[float],
    eroded: Sequence[np.ndarray | None] | None = None,
) -> Pair:
    """All targets and their weights, one after the other.

    labels: integers (z, y, x) or (y, x). resolution_nm: size of a voxel, one number for each of these axes.
    eroded: the results of each ``erode``, for labels that were changed since; made of these labels if left out.
    """
    before = [None] * len(specs) if eroded is None else eroded
    made = [spec.make(labels, resolution_nm, given) for spec, given in zip(specs, before, strict=True)]
    return np.concatenate([target for target, _ in made]), np.concatenate([weights for _, weights in made])
