"""What it is worth to look at a place: expected minutes of proofreading that are saved.

    minutes = probability * saved - look
    saved   = base * (1 + (large - 1) * w)   base is ``split`` or ``merger``; 0 for crumbs
    w       = min(1, volume / LARGE_UM3), of the smaller side

A split costs about 0.1 minutes to mend and a merger 1 to 10, since whoever finds it late has much to take apart. A
large split, which ends a neuron, costs up to ten times a small one as well. A side below ``CRUMB_UM3`` is a crumb that
nobody mends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.base import LARGEST
from pipeline.errors import ConfigError
from pipeline.suspects.candidates import KINDS, Candidates

CRUMB_UM3 = 1e-4
"""Cubic micrometres: 200 voxels of 8 nm."""
LARGE_UM3 = 0.05
"""Cubic micrometres: 100,000 voxels of 8 nm."""


@dataclass(frozen=True)
class Costs:
    """Minutes of a proofreader."""

    split: float = 0.1
    """That a small split costs, if nobody points at it."""
    merger: float = 1.0
    """That a small merger costs, if nobody points at it."""
    large: float = 10.0
    """How many times as much a large one costs."""
    look: float = 0.05
    """To judge a place where two segments may be one neuron: both are seen at once."""
    look_merger: float = 0.5
    """To judge a place where one segment may be two neurons: the paths on both sides have to be followed."""

    def __post_init__(self) -> None:
        if not all(0 <= value <= LARGEST for value in vars(self).values()) or self.large < 1:
            raise ConfigError(
                f"a look costs {self.look:g} or {self.look_merger:g} minutes, a split {self.split:g}, a merger "
                f"{self.merger:g}, and large ones {self.large:g} times as much; minutes must be at least 0, the "
                f"last at least 1, and all at most {LARGEST:,.0f}"
            )

    def saved(self, candidates: Candidates, voxel_um3: float) -> np.ndarray:
        """The minutes that each candidate costs later, if it is wrong: float64 (n,)."""
        base = self.split if KINDS[candidates.kind].error == "split" else self.merger
        volume = candidates.sides[:, 0] * voxel_um3
        minutes = base * (1 + (self.large - 1) * np.minimum(volume / LARGE_UM3, 1))
        return np.where(volume > CRUMB_UM3, minutes, 0.0)

    def minutes(self, candidates: Candidates, probability: np.ndarray, voxel_um3: float) -> np.ndarray:
        """Expected minutes that are saved by looking at each candidate: float64 (n,)."""
        look = self.look if KINDS[candidates.kind].error == "split" else self.look_merger
        return np.asarray(probability * self.saved(candidates, voxel_um3) - look)
