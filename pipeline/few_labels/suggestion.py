"""One box that is proposed for labelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.geometry import BoundingBox


@dataclass(frozen=True)
class Suggestion:
    """A box to label."""

    rank: int
    """From 1, in the order in which boxes are proposed."""
    box: BoundingBox
    cluster: int
    group: int
    unsure: float
    entropy: float

    @property
    def name(self) -> str:
        """Its folder."""
        return f"box-{self.rank:02d}"

    @property
    def row(self) -> dict[str, Any]:
        """Its line in the tables."""
        ends = (("start", self.box.start), ("stop", self.box.stop))
        sides = {f"{axis}_{end}": place for end, voxel in ends for axis, place in zip("zyx", voxel, strict=True)}
        facts = {name: round(value, 6) for name, value in (("unsure", self.unsure), ("entropy", self.entropy))}
        return {"rank": self.rank, "name": self.name, **sides, "cluster": self.cluster, "group": self.group, **facts}
