"""Arrays with named axes in any order, presented as (z, y, x) or (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.location import Location

Item = TypeVar("Item")
DEFAULT = {3: "zyx", 4: "czyx", 5: "tczyx"}
"""The axes of an array whose axes are not named."""
WORDS = {"channel": "c", "channels": "c", "time": "t", "depth": "z", "height": "y", "width": "x"}
"""Names of axes that are longer than a letter."""
MANY_CHANNELS = 16
"""The largest number of entries at the end of an array without names that may be channels of a whole volume."""


class Axes:
    """The axes of one stored array. An axis other than c, z, y, x must have one entry, and so may c."""

    def __init__(self, url: str, names: Sequence[str] | None, shape: Sequence[int]) -> None:
        self.url = url
        self.shape = tuple(shape)
        self.names = DEFAULT.get(len(self.shape), "") if names is None else letters(names)
        self._check()
        if names is None:
            self._refuse_channels_last()
        count = self.shape[self.names.index("c")] if "c" in self.names else 1
        self.channels = count if count > 1 else None
        self.extent = Vec(*self.spatial(self.shape))
        """Voxels along z, y, x."""

    def _check(self) -> None:
        sides = dict(zip(self.names, self.shape, strict=False))
        if not len(sides) == len(self.shape) == len(self.names) or not set("zyx") <= set(sides):
            raise VolumeError(
                f"{self.url} has shape {self.shape} and axes {self.names!r}; each axis must be named once, z, y and x "
                f"among them: say the order by adding #axes={DEFAULT.get(len(self.shape), 'zyx')}, with a letter for "
                "each axis"
            )
        for name, side in sides.items():
            if name not in "czyx" and side != 1:
                raise VolumeError(
                    f"{self.url} has {side} entries along axis {name}; only c, z, y and x may have more than one: "
                    "write one entry as a volume of its own"
                )

    def _refuse_channels_last(self) -> None:
        """Refuse an array without names whose last axis looks like channels: c, z, y, x would be a guess."""
        if "c" not in self.names:
            return
        first, z, y, last = self.shape[-4:]
        if last <= first > 1 or (last <= MANY_CHANNELS and 4 * last <= min(z, y)):
            raise VolumeError(
                f"{self.url} has shape {self.shape} and does not name its axes; the last one may be channels: say the "
                "order by adding #axes=zyxc (channels last) or #axes=czyx (channels first)"
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
        """The part of the stored array that ``index`` selects, as (z, y, x) or (c, z, y, x)."""
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


def given_axes(location: Location) -> list[str] | None:
    """The letters of the URL's option ``axes``; ``None`` if it was not given."""
    return list(location.options["axes"]) if "axes" in location.options else None


def letters(names: Sequence[str]) -> str:
    """One letter for each name: z, y, x, c or any other single one; ``?`` for a word that is not known."""
    return "".join(map(_letter, names))


def _letter(name: str) -> str:
    word = name.strip().lower().rstrip("^")
    return WORDS.get(word, word if len(word) == 1 else "?")
