"""Targets of label volumes that hold no objects: class numbers, and contours on which annotators agree or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.config.base import Count, CountOrZero
from pipeline.errors import ConfigError
from pipeline.training.loss_specs import Losses
from pipeline.training.losses import ContourBce, CrossEntropy
from pipeline.training.target_specs import Pair, TargetSpec


class Classes(TargetSpec):
    """The class of each voxel: labels are class numbers, 0 the first, which mostly is background."""

    what: Literal["classes"] = "classes"
    losses: Losses = (CrossEntropy(),)
    """Their weighted sum is the loss of this target."""
    count: Annotated[int, Field(ge=2, le=255)]
    """The number of classes; labels go from 0 to one less."""
    ignore: CountOrZero | None = None
    """Voxels with this label are masked; with 0, what has no label is unknown."""

    @property
    def channels(self) -> int:
        """One for each class."""
        return self.count

    @property
    def target_channels(self) -> int:
        """Always 1."""
        return 1

    @property
    def holds_objects(self) -> bool:
        """Never: labels are classes."""
        return False

    @property
    def zero_is_unknown(self) -> bool:
        """True if 0 is the label that is ignored."""
        return self.ignore == 0

    def erode(self, labels: np.ndarray) -> np.ndarray | None:
        """See ``TargetSpec``; what is ignored stays so."""
        eroded = super().erode(labels)
        return eroded if eroded is None or self.ignore is None else np.where(labels == self.ignore, labels, eroded)

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """Class numbers and mask; ``ConfigError`` for a label that is no class."""
        known = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        strange = labels[known & ((labels < 0) | (labels >= self.count))]
        if strange.size:
            raise ConfigError(
                f"a voxel has the label {strange[0]}; count is {self.count}, so labels go from 0 to "
                f"{self.count - 1}: raise count, or name the label in ignore if it is not known"
            )
        return np.where(known, labels, 0)[None].astype(np.float32), known[None].astype(np.float32)


class ContourMap(TargetSpec):
    """Contours that annotators drew: labels are the share of annotators who drew a pixel, times ``full``."""

    what: Literal["contour_map"] = "contour_map"
    losses: Losses = (ContourBce(),)
    """Their weighted sum is the loss of this target."""
    full: Count = 255
    """The label where all annotators drew a contour."""
    certain: Annotated[float, Field(ge=0.001, le=1)] = 0.5
    """From this share on a pixel is contour; those between 0 and it are masked, for annotators disagree."""

    @property
    def holds_objects(self) -> bool:
        """Never: labels are shares."""
        return False

    @property
    def dimension(self) -> int:
        """Always 2: contours of pictures."""
        return 2

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        """1 on contours, and 0 in the mask where annotators disagree; ``ConfigError`` for a label above ``full``."""
        if labels.max(initial=0) > self.full:
            raise ConfigError(
                f"a pixel has the label {labels.max()}; full is {self.full}, the label where all annotators drew a "
                "contour: raise full"
            )
        contour = labels >= self.certain * self.full
        return contour[None].astype(np.float32), (contour | (labels == 0))[None].astype(np.float32)
