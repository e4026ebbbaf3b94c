"""Arrays with named axes in any order, seen as (z, y, x) or (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec

Item = TypeVar("Item")
DEFAULT = {3: "zyx", 4: "czyx", 5: "tczyx"}
"""What the axes of an array are if nothing says so."""


class Axes:
    """The axes of one stored array. An axis other than c, z, y, x must have one entry, and so may c."""

    def __init__(self, url: str, names: Sequence[str] | None, shape: Sequence[int]) -> None:
        self.url = url
        self.shape = tuple(shape)
        self.names = "".join(_letter(name) for name in names) if names else DEFAULT.get(len(self.shape), "")
        self._check()
        count = self.shape[self.names.index("c")] if "c" in self.names else 1
        self.channels = count if count > 1 else None
        self.extent = Vec(*self.spatial(self.shape))
        """Voxels along z, y, x."""

    def _check(self) -> None:
        sides = dict(zip(self.names, self.shape, strict=False))
        if len(sides) != len(self.shape) or not set("zyx") <= set(sides):
            raise VolumeError(
                f"{self.url} has shape {self.shape} and axes {self.names!r}; z, y and x must each be there once: "
                "say the order by adding #axes=zyx or #axes=czyx"
            )
        for name, side in sides.items():
            if name not in "czyx" and side != 1:
                raise VolumeError(
                    f"{self.url} has {side} entries along axis {name}; only c, z, y and x may have more than one: "
                    "write one entry as a volume of its own"
                )

    def spatial(self, values: Sequence[Item]) -> tuple[Item, Item, Item]:
        """The entries for z, y, x of anything that has one entry per axis."""
        z, y, x = (values[self.names.index(name)] for name in "zyx")
        return z, y, x

    def index(self, box: BoundingBox, origin: Vec) -> tuple[Any, ...]:
        """The index of a box in the stored array whose first voxel is ``origin``."""
        places: dict[str, Any] = dict(zip("zyx", box.slices(origin), strict=True))
        places["c"] = slice(None) if self.channels else 0
        return tuple(places.get(name, 0) for name in self.names)

    def to_zyx(self, stored: np.ndarray) -> np.ndarray:
        """What ``index`` took out of the stored array as (z, y, x) or (c, z, y, x)."""
        return stored.transpose([self._kept.index(name) for name in self._order])

    def from_zyx(self, data: np.ndarray) -> np.ndarray:
        """The inverse of ``to_zyx``."""
        return data.transpose([self._order.index(name) for name in self._kept])

    @property
    def _order(self) -> str:
        return "czyx" if self.channels else "zyx"

    @property
    def _kept(self) -> str:
        return "".join(name for name in self.names if name in self._order)


def _letter(name: str) -> str:
    return name.strip().lower()[:1] or "?"
