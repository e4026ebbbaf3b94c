"""The weights of a target's voxels, as a training file names them.

    weights: ratio
    weights: {kind: calibre, full_nm: 300, halvings: 2}

A name is short for its table with all defaults, and is written down as the name. New weights are a ``WeightSpec``, with
their settings and what they compute, and a row in ``WEIGHTS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, SerializerFunctionWrapHandler, model_serializer

from pipeline.config.base import Count, Positive, Table
from pipeline.config.registered import OneOf
from pipeline.training import targets as make

WEIGHTS = {
    "none": "pipeline.training.weight_specs:Equal",
    "ratio": "pipeline.training.weight_specs:Ratio",
    "ratio_dilated": "pipeline.training.weight_specs:Ratio",
    "unet": "pipeline.training.weight_specs:UNetMap",
    "calibre": "pipeline.training.weight_specs:Calibre",
}
"""``kind`` of weights -> "module:class" of its ``WeightSpec``."""


@dataclass(frozen=True)
class Labelled:
    """A target and what it was made of."""

    target: np.ndarray
    """(c, z, y, x) or (c, y, x)."""
    mask: np.ndarray
    """0 where the target does not count, in its shape."""
    labels: np.ndarray
    """(z, y, x) or (y, x)."""
    resolution_nm: Sequence[float]


class WeightSpec(Table):
    """The weights of a target's voxels."""

    kind: str

    @model_serializer(mode="wrap")
    def _as_written(self, table: SerializerFunctionWrapHandler) -> Any:
        return self.kind if self == type(self)(kind=self.kind) else table(self)

    def of(self, at: Labelled) -> np.ndarray:
        """Weights of a target, in its shape or with one channel for all."""
        raise NotImplementedError


class Equal(WeightSpec):
    """All voxels weigh the same."""

    kind: Literal["none"] = "none"

    def of(self, at: Labelled) -> np.ndarray:
        """See ``WeightSpec``."""
        return np.ones_like(at.target)


class Ratio(WeightSpec):
    """The rarer class weighs more, by the ratio of the two."""

    kind: Literal["ratio", "ratio_dilated"] = "ratio"
    """ratio_dilated: voxels beside the rarer class weigh more too."""
    per_channel: bool = False
    """Take the ratio in each channel by itself; otherwise over all channels of the target together."""

    def of(self, at: Labelled) -> np.ndarray:
        """See ``WeightSpec``."""
        dilate = self.kind == "ratio_dilated"
        if not self.per_channel:
            return make.ratio_weights(at.target, at.mask, dilate=dilate)
        channels = [
            make.ratio_weights(t[None], m[None], dilate=dilate) for t, m in zip(at.target, at.mask, strict=True)
        ]
        return np.concatenate(channels)


class UNetMap(WeightSpec):
    """The map of the 2D U-Net: background counts more in narrow gaps between objects."""

    kind: Literal["unet"] = "unet"

    def of(self, at: Labelled) -> np.ndarray:
        """See ``WeightSpec``."""
        return make.unet_weights(at.labels)


class Calibre(WeightSpec):
    """Thin parts of objects weigh more: twice as much at each halving of their calibre."""

    kind: Literal["calibre"] = "calibre"
    full_nm: Positive = 200.0
    """Where an object is thicker than this, its voxels weigh 1."""
    halvings: Count = 3
    """The thinnest parts weigh 2 to the power of this."""
    in_plane: bool = True
    """Measure the calibre of profiles, section by section; otherwise in 3D."""

    def of(self, at: Labelled) -> np.ndarray:
        """See ``WeightSpec``."""
        return make.calibre_weights(
            at.labels, tuple(at.resolution_nm), full_nm=self.full_nm, halvings=self.halvings, in_plane=self.in_plane
        )


def named(value: Any) -> Any:
    """The table of a name."""
    return {"kind": value} if isinstance(value, str) else value


AnyWeights = Annotated[WeightSpec, OneOf(WEIGHTS, "kind"), BeforeValidator(named)]
