"""What decides where a skeleton runs, and which of its branches are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.segmentation.compiled import part

FLAT = 1e-8
"""What a step costs at least: in the middle of a very thick object every way is as good, and the shortest is taken."""


@dataclass(frozen=True)
class SkeletonRules:
    """Everything around a skeleton that is not farther than ``scale`` * radius + ``const_nm`` belongs to it."""

    scale: float
    const_nm: float


@part
def cost_of(square, unit):  # type: ignore[no-untyped-def]
    """The cost of each nanometre where the surface is at a squared distance: one over the fourth power of it.

    unit: the squared length of the shortest side of a voxel.
    """
    ratio = square / unit
    return 1.0 / (ratio * ratio) + FLAT


@part
def reach_of(radius, rules):  # type: ignore[no-untyped-def]
    """How far around a vertex everything belongs to its branch. rules: scale and constant."""
    return rules[0] * radius + rules[1]


def as_array(rules: SkeletonRules) -> np.ndarray:
    """The rules for a kernel."""
    return np.array([rules.scale, rules.const_nm])
