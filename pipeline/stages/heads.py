"""A head as decoders read it: predicted by the network of this run, or by an earlier run or another program.

source = setup.head("foreground", before.get(BlendHeads.name))
values = source.read(chunk.read_box)        # uint8
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.models.heads import MAPPINGS, SIGNED_DISTANCE, Mapping
from pipeline.stages import opened

SURE = 128
"""Half of what is sure in uint8. Affinities of which none reaches it have another scale: percent, or 0 and 1."""


@dataclass(frozen=True)
class HeadSource:
    """A volume of a head; it travels to workers, and opens the volume once in a process."""

    name: str
    url: str
    fingerprint: str
    """The fingerprint of the stage that writes it, or of the given volume."""
    channels: tuple[int, ...] | None = None
    """The channels that are read, in this order; all of the volume if None."""
    largest: int | None = None
    """Instead of values: 255 where this channel has the largest stored one (of equal ones the first has), else 0."""

    def select(self, *channels: int) -> HeadSource:
        """The same head, of which only these channels are read."""
        return replace(self, channels=channels)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides about its voxels, for ``depends_on``."""
        return self.name, self.fingerprint, self.channels, *(() if self.largest is None else ("argmax", self.largest))

    @property
    def count(self) -> int:
        """The number of channels of the volume."""
        return opened.source(self.url).spec.channels or 1

    @property
    def bounds(self) -> BoundingBox:
        """The extent of the volume."""
        return opened.source(self.url).spec.bounds

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, uint8 (z, y, x), or (c, z, y, x) if several channels are read."""
        values = opened.source(self.url).read(box)
        if self.largest is not None:
            stored = to_uint8(values, self.url, self.name)
            return np.where(stored.argmax(0) == self.largest, np.uint8(255), np.uint8(0))
        if values.ndim == 4 and self.channels is not None:
            values = values[list(self.channels)]
        return to_uint8(values[0] if values.ndim == 4 and len(values) == 1 else values, self.url, self.name)


def to_uint8(values: np.ndarray, url: str, what: str = "affinities") -> np.ndarray:
    """Values of a head as uint8; floating-point values are rounded half to even, and must then lie in 0..255.

    So values that are off 0..1 by less than half a step of uint8, as sums of float32 are, count as 0 and 1. A signed
    distance is from -1 to 1.
    """
    if values.dtype == np.uint8:
        return values
    low = MAPPINGS[given_mapping(what)][1][0]
    steps = np.rint((values.astype(np.float64) - low) * (255 / (1 - low)))
    if values.size and not (steps.min() >= 0 and steps.max() <= 255):
        raise VolumeError(
            f"{what} in {url} range from {values.min()} to {values.max()}; floating-point {what} must lie in "
            f"{low:g}..1: {_remedy(float(values.min()), low)}"
        )
    return steps.astype(np.uint8)


def given_mapping(name: str) -> Mapping:
    """What the stored numbers of a head of another program mean, which only its name tells."""
    return "signed" if name == SIGNED_DISTANCE else "probability"


def _remedy(least: float, low: float) -> str:
    if low < 0:
        return "divide them by the largest distance, or store uint8, of which 127.5 stands for 0"
    if least < 0:
        return (
            f"a distance that is below 0 outside is given as input.heads: {{{SIGNED_DISTANCE}: ...}}; else correct them"
        )
    return "name the value that is sure by adding #scale=255 (or another one), or store them as uint8"
