"""The kinds of targets: what each of them asks of a file, and which pure function of ``targets/`` makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from pipeline.config.base import CountOrZero, Positive
from pipeline.geometry import Vec
from pipeline.training import targets as make
from pipeline.training.loss_specs import Losses
from pipeline.training.losses import CrossEntropy, MeanSquare
from pipeline.training.target_specs import Pair, TargetSpec
from pipeline.training.targets.masks import Zero


def leads_elsewhere(offset: tuple[int, ...]) -> tuple[int, ...]:
    """The offset; ``ValueError`` if it is zero."""
    if not any(offset):
        raise ValueError(f"{list(offset)} leads from a voxel to itself; leave it out")
    return offset


Elsewhere = AfterValidator(leads_elsewhere)
Offset = Annotated[tuple[int, ...], Field(min_length=2, max_length=3), Elsewhere]
PerAxis = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)]

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
    """Voxels that first become membrane: none, those that touch another object, or Lee's 3 x 3 in the plane."""

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
        """The dimension of the offsets."""
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
        eroded = EROSIONS[self.erosion](labels)
        return np.where(make.widen_borders(labels, self.label_erosion) > 0, eroded, 0) if self.label_erosion else eroded

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
        return self.target_of_eroded(labels, self.erode(labels), resolution_nm)

    def target_of_eroded(self, labels: np.ndarray, eroded: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
        return make.affinities(labels, self.offsets, eroded)


class Foreground(TargetSpec):
    """Inside any object; label 0 is background."""

    what: Literal["foreground"] = "foreground"

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
        return _asked_everywhere(make.foreground(labels))


class Membranes(TargetSpec):
    """Where two cells meet."""

    what: Literal["membranes"] = "membranes"
    reach_nm: Positive | None = None
    """A voxel is membrane if another cell lies within this distance; the width of a voxel if left out."""
    in_plane: bool = True
    """Look within sections only."""
    zero: Zero = "unknown"
    """What label 0 means."""

    @model_validator(mode="after")
    def _has_its_own_width(self) -> Membranes:
        if self.label_erosion:
            raise ValueError(
                f"label_erosion is {self.label_erosion}; the width of membranes follows from reach_nm: enlarge "
                "that, and leave label_erosion out"
            )
        return self

    @property
    def zero_is_unknown(self) -> bool:
        """As ``zero`` says."""
        return self.zero == "unknown"

    @property
    def looks_around(self) -> bool:
        """Always."""
        return True

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
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
    """Draw outlines also towards the background; otherwise only between objects."""

    @property
    def looks_around(self) -> bool:
        """Always."""
        return True

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
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

    @property
    def looks_around(self) -> bool:
        """Always."""
        return True

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
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
        """One channel for each level and one for background."""
        return 1 if self.levels is None else self.levels + 1

    @property
    def target_channels(self) -> int:
        """Always 1."""
        return 1

    @property
    def looks_around(self) -> bool:
        """Always."""
        return True

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
        depth = make.instance_distance(
            labels,
            levels=self.levels,
            in_plane=self.in_plane,
            resolution=_in_widths(resolution_nm),
            separate_background=self.separate_background,
        )
        return _asked_everywhere(depth.astype(np.float32)[None])


class ShapeDescriptors(TargetSpec):
    """Local shape descriptors; label 0 is no object, and is masked."""

    what: Literal["shape_descriptors"] = "shape_descriptors"
    losses: Losses = (MeanSquare(activation="sigmoid"),)
    """Their weighted sum is the loss of this target."""
    sigma_nm: PerAxis = (80.0, 80.0, 80.0)
    """Sigma of the Gaussian window along each axis; three axes give 10 channels, two give 6."""

    @property
    def channels(self) -> int:
        """10 in 3D, 6 in 2D."""
        return make.descriptor_channels(len(self.sigma_nm))

    @property
    def dimension(self) -> int:
        """The dimension of the window."""
        return len(self.sigma_nm)

    @property
    def zero_is_unknown(self) -> bool:
        """Always."""
        return True

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """See ``TargetSpec``."""
        return make.shape_descriptors(labels, self.sigma_nm, resolution_nm)


def _asked_everywhere(target: np.ndarray) -> Pair:
    return target, np.ones_like(target)


def _in_widths(resolution_nm: Sequence[float]) -> tuple[float, ...]:
    """Voxel size in units of its width."""
    return tuple(size / resolution_nm[-1] for size in resolution_nm)
