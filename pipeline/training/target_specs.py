"""Which targets a network is trained on, and with which losses: a list in a configuration file.

    targets:
      - {what: affinities, offsets: [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}
      - {what: shape_descriptors, sigma_nm: [80, 80, 80]}
      - {what: contours, losses: [{kind: bce}, {kind: dice, weight: 0.5}], weights: ratio}

Every target has defaults for its losses. A new kind of target is a class here, and a name in ``AnyTarget``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from pipeline.config.base import CountOrZero, Positive, Table
from pipeline.geometry import Vec
from pipeline.training import targets as make
from pipeline.training.loss_specs import Bce, CrossEntropy, Losses, MeanSquare
from pipeline.training.targets.masks import Zero


def leads_elsewhere(offset: tuple[int, ...]) -> tuple[int, ...]:
    """The offset; ``ValueError`` if it is zero."""
    if not any(offset):
        raise ValueError(f"{list(offset)} leads from a voxel to itself; leave it out")
    return offset


Elsewhere = AfterValidator(leads_elsewhere)
Offset = Annotated[tuple[int, ...], Field(min_length=2, max_length=3), Elsewhere]
PerAxis = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)]
Pair = tuple[np.ndarray, np.ndarray]
"""Target and weights, float32 (c, z, y, x) or (c, y, x)."""


class TargetSpec(Table):
    """What the network says in some of its channels, and how it is judged."""

    what: str
    losses: Losses = (Bce(),)
    """Their weighted sum is the loss of this target."""
    weights: Literal["none", "ratio", "ratio_dilated", "unet"] = "none"
    """How much voxels count: all the same, by the ratio of classes (also beside contours), or by the U-Net's map."""

    @model_validator(mode="after")
    def _classes_match(self) -> TargetSpec:
        classes = self.channels != self.target_channels
        if any(isinstance(loss, CrossEntropy) != classes for loss in self.losses):
            raise ValueError(
                f"losses are {', '.join(loss.kind for loss in self.losses)}; distances in levels need cross_entropy, "
                "and nothing else can use it: choose other losses, or levels: null"
            )
        return self

    @model_validator(mode="after")
    def _balanced_once(self) -> TargetSpec:
        if self.weights != "none" and any(loss.kind == "balanced_bce" for loss in self.losses):
            raise ValueError(f"weights is {self.weights}; balanced_bce balances by itself: choose bce, or no weights")
        return self

    @property
    def channels(self) -> int:
        """Channels of the network."""
        return 1

    @property
    def target_channels(self) -> int:
        """Channels of the target: as many, but one for classes."""
        return self.channels

    @property
    def activation(self) -> Literal["sigmoid", "tanh", "softmax", "none"]:
        """What turns logits into values of the target, as the first loss sees them."""
        first = self.losses[0]
        if isinstance(first, MeanSquare):
            return first.activation
        return "softmax" if isinstance(first, CrossEntropy) else "sigmoid"

    @property
    def dimension(self) -> int | None:
        """2 if the target is made section by section, 3 if in volumes, None if as the labels are."""
        return None

    @property
    def zero_is_unknown(self) -> bool:
        """True if label 0 is not asked; otherwise it is background."""
        return False

    def make(self, labels: np.ndarray, resolution_nm: Sequence[float], eroded: np.ndarray | None = None) -> Pair:
        """Target and weights of labels (z, y, x) or (y, x); 0 weight where nothing is asked.

        A target in 2D of labels in 3D is made section by section. ``eroded`` is what ``erode`` gave, if it is known.
        """
        if self.dimension == 2 and labels.ndim == 3:
            before = [None] * len(labels) if eroded is None else eroded
            sections = [self.make(s, resolution_nm[1:], e) for s, e in zip(labels, before, strict=True)]
            return np.stack([t for t, _ in sections], 1), np.stack([w for _, w in sections], 1)
        target, mask = self._target(labels, resolution_nm) if eroded is None else self._of_eroded(labels, eroded)
        return target, (mask * self._weights(target, mask, labels)).astype(np.float32)

    def erode(self, labels: np.ndarray) -> np.ndarray | None:
        """The labels as they are before any voxel is moved, where a target needs them so."""
        return None

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """Target and mask."""
        raise NotImplementedError

    def _of_eroded(self, labels: np.ndarray, eroded: np.ndarray) -> Pair:
        """The same, for targets whose ``erode`` gives something."""
        raise NotImplementedError

    def _weights(self, target: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.weights == "none":
            return np.ones_like(target)
        if self.weights == "unet":
            return make.unet_weights(labels)
        return make.ratio_weights(target, mask, dilate=self.weights == "ratio_dilated")


EROSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda labels: labels,
    "touching": make.erode,
    "in_plane": make.erode_in_plane,
}


class Affinities(TargetSpec):
    """Whether two voxels lie in one object; label 0 is unknown."""

    what: Literal["affinities"] = "affinities"
    offsets: Annotated[tuple[Offset, ...], Field(min_length=1)]
    """From each voxel to its partner, (z, y, x) or (y, x); any length."""
    erosion: Literal["none", "touching", "in_plane"] = "touching"
    """Voxels that become membrane first: none, those that touch another object, or Lee's 3 x 3 in the plane."""

    @model_validator(mode="after")
    def _one_dimension(self) -> Affinities:
        if len({len(offset) for offset in self.offsets}) > 1:
            raise ValueError(f"offsets are {self.offsets}; all of a target are (z, y, x), or all (y, x)")
        return self

    @property
    def channels(self) -> int:
        """One for each offset."""
        return len(self.offsets)

    @property
    def dimension(self) -> int:
        """That of the offsets."""
        return len(self.offsets[0])

    @property
    def in_volume(self) -> tuple[Vec, ...]:
        """The offsets along (z, y, x)."""
        return tuple(Vec(*[0] * (3 - len(offset)), *offset) for offset in self.offsets)

    @property
    def zero_is_unknown(self) -> bool:
        """Always."""
        return True

    def erode(self, labels: np.ndarray) -> np.ndarray:
        """The labels with 0 at membranes."""
        if self.dimension == 2 and labels.ndim == 3:
            return np.stack([self.erode(section) for section in labels])
        return EROSIONS[self.erosion](labels)

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        return self._of_eroded(labels, self.erode(labels))

    def _of_eroded(self, labels: np.ndarray, eroded: np.ndarray) -> Pair:
        return make.affinities(labels, self.offsets, eroded)


class Foreground(TargetSpec):
    """Inside any object; label 0 is background."""

    what: Literal["foreground"] = "foreground"

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        return _asked_everywhere(make.foreground(labels))


class Membranes(TargetSpec):
    """Where two cells meet."""

    what: Literal["membranes"] = "membranes"
    reach_nm: Positive | None = None
    """Membrane is what has another cell within this distance; the width of a voxel if left out."""
    in_plane: bool = True
    """Look within sections only."""
    zero: Zero = "unknown"
    """What label 0 means."""

    @property
    def zero_is_unknown(self) -> bool:
        """As ``zero`` says."""
        return self.zero == "unknown"

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        reach = self.reach_nm or max(resolution_nm[-2:])
        return make.membranes(
            labels, reach=reach, resolution=tuple(resolution_nm), in_plane=self.in_plane, zero=self.zero
        )


class Contours(TargetSpec):
    """Outlines of objects in the plane; label 0 is background."""

    what: Literal["contours"] = "contours"
    dilation: CountOrZero = 1
    """Thickened by a square of 2 * dilation + 1: 1 for MitoEM, 0 for NucMM."""
    background: bool = True
    """Outlines also towards the background; otherwise only between objects."""

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        return _asked_everywhere(make.contours(labels, dilation=self.dilation, background=self.background))


class SignedDistance(TargetSpec):
    """Distance to the border of the foreground; label 0 is background."""

    what: Literal["signed_distance"] = "signed_distance"
    losses: Losses = (MeanSquare(activation="tanh"),)
    """Their weighted sum is the loss of this target."""
    inside: Positive = 8.0
    """Pixels inside are divided by this (alpha)."""
    outside: Positive = 50.0
    """Pixels outside are divided by this (beta)."""
    in_plane: bool = True
    """Measure within sections; otherwise in 3D with the volume's voxel size, in units of its width."""
    squash: bool = True
    """Apply tanh to the distance."""

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        return _asked_everywhere(
            make.signed_distance(
                labels,
                inside=self.inside,
                outside=self.outside,
                in_plane=self.in_plane,
                resolution=_in_widths(resolution_nm),
                squash=self.squash,
            )
        )


class InstanceDistance(TargetSpec):
    """Depth inside the own object, in levels; label 0 is background."""

    what: Literal["instance_distance"] = "instance_distance"
    losses: Losses = (CrossEntropy(),)
    """Their weighted sum is the loss of this target."""
    levels: Annotated[int, Field(ge=2)] | None = 10
    """Classes besides background; null for the depth itself, which needs another loss, such as mse."""
    in_plane: bool = True
    """Measure within sections; otherwise in 3D with the volume's voxel size."""
    separate_background: bool = True
    """Background has a level (or depth -1) of its own; false as in the reference code, where it shares level 1."""

    @property
    def channels(self) -> int:
        """One a level and one for background."""
        return 1 if self.levels is None else self.levels + 1

    @property
    def target_channels(self) -> int:
        """Always 1."""
        return 1

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        depth = make.instance_distance(
            labels,
            levels=self.levels,
            in_plane=self.in_plane,
            resolution=_in_widths(resolution_nm),
            separate_background=self.separate_background,
        )
        return _asked_everywhere(depth.astype(np.float32)[None])


class ShapeDescriptors(TargetSpec):
    """Local shape descriptors; label 0 is no object and not asked."""

    what: Literal["shape_descriptors"] = "shape_descriptors"
    losses: Losses = (MeanSquare(activation="sigmoid"),)
    """Their weighted sum is the loss of this target."""
    sigma_nm: PerAxis = (80.0, 80.0, 80.0)
    """Of the Gaussian window along each axis; its number of axes decides between 10 channels and 6."""

    @property
    def channels(self) -> int:
        """10 in 3D, 6 in 2D."""
        return make.descriptor_channels(len(self.sigma_nm))

    @property
    def dimension(self) -> int:
        """That of the window."""
        return len(self.sigma_nm)

    @property
    def zero_is_unknown(self) -> bool:
        """Always."""
        return True

    def _target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        return make.shape_descriptors(labels, self.sigma_nm, resolution_nm)


AnyTarget = Annotated[
    Affinities | Foreground | Membranes | Contours | SignedDistance | InstanceDistance | ShapeDescriptors,
    Field(discriminator="what"),
]
Targets = Annotated[tuple[AnyTarget, ...], Field(min_length=1)]


def make_targets(
    specs: Sequence[AnyTarget],
    labels: np.ndarray,
    resolution_nm: Sequence[float],
    eroded: Sequence[np.ndarray | None] | None = None,
) -> Pair:
    """All targets and their weights, one after the other.

    labels: integers (z, y, x) or (y, x). resolution_nm: size of a voxel, one number for each of these axes.
    eroded: what the ``erode`` of each gave, for labels that were changed since; made of these labels if left out.
    """
    before = [None] * len(specs) if eroded is None else eroded
    made = [spec.make(labels, resolution_nm, given) for spec, given in zip(specs, before, strict=True)]
    return np.concatenate([target for target, _ in made]), np.concatenate([weights for _, weights in made])


def _asked_everywhere(target: np.ndarray) -> Pair:
    return target, np.ones_like(target)


def _in_widths(resolution_nm: Sequence[float]) -> tuple[float, ...]:
    """Voxel size in units of its width."""
    return tuple(size / resolution_nm[-1] for size in resolution_nm)
