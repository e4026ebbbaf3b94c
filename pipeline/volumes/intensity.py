"""Images and affinities of other types as uint8: one range of values, measured once over all voxels, becomes 0 to 255.

    1. count every value of the source, block by block      measure
    2. low and high: the values at two percentiles
    3. v -> round(255 (v - low) / (high - low)), cut at 0 and 255; NaN becomes 0

Types of up to 16 bits are counted exactly; of others, 65,536 equal steps between the smallest and the largest value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.storage import ObjectStore
from pipeline.volumes.base import Volume
from pipeline.volumes.location import Location

STEPS = 2**16
KEY = "intensity"
"""The attribute of the new volume that holds what was measured."""
PERCENTILES = (0.1, 99.9)
"""Which values become 0 and 255, where nobody chooses others."""


@dataclass(frozen=True)
class Stretch:
    """The range of a source's values that becomes 0 to 255."""

    low: float
    high: float
    percentiles: tuple[float, float]
    dtype: str
    """The type of the source."""

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} of {self.dtype} became 0 to 255"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """The values as uint8, the same shape."""
        result = np.empty(values.shape, np.uint8)
        for stretched, plane in zip(result, values, strict=True):  # so that few are float64 at a time
            steps = np.rint((plane.astype(np.float64) - self.low) * (255 / (self.high - self.low)))
            stretched[...] = np.nan_to_num(np.clip(steps, 0, 255), nan=0.0)
        return result


class StretchedVolume(Volume):
    """A volume that is read as uint8."""

    def __init__(self, volume: Volume, stretch: Stretch) -> None:
        self.url = volume.url
        self.spec = replace(volume.spec, dtype=np.dtype(np.uint8))
        self._volume, self._stretch = volume, stretch

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box as uint8."""
        return self._stretch.apply(self._volume.read(box))

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Refused: what was measured is read."""
        raise VolumeError(f"{self.url} is read as uint8; write to the volume itself")


def check_percentiles(percentiles: tuple[float, float]) -> None:
    """``ConfigError`` unless both lie in 0..100, the low one first."""
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ConfigError(f"percentiles are {low:g},{high:g}; they must be LOW,HIGH with 0 <= LOW < HIGH <= 100")


def passes_of(dtype: np.dtype) -> int:
    """How often ``measure`` reads a volume of this type."""
    return 1 if _has_known_range(dtype) else 2


def measure(
    volume: Volume,
    percentiles: tuple[float, float],
    boxes: Callable[[], Iterable[BoundingBox]],
) -> Stretch:
    """Count all values of a volume and find those at two percentiles; ``VolumeError`` if there is no range.

    boxes: the blocks of the volume, which are read once, or twice for types of more than 16 bits.
    """
    least, most = _range(volume, boxes)
    count = np.zeros(STEPS, np.int64)
    step = 1.0 if volume.spec.dtype.kind in "ui" and most - least < STEPS else (most - least) / (STEPS - 1) or 1.0
    for box in boxes():
        values = volume.read(box).ravel()
        values = values[np.isfinite(values)]
        places = np.clip((values.astype(np.float64) - least) // step, 0, STEPS - 1).astype(np.int64)
        count += np.bincount(places, minlength=STEPS)
    low, high = (least + step * _place(count, percent) for percent in percentiles)
    if not low < high:
        raise VolumeError(
            f"{volume.url} has the value {low:g} at both percentiles {percentiles[0]:g} and {percentiles[1]:g}; there "
            "must be a range between them: give others, such as --percentiles 0,100"
        )
    return Stretch(low, high, percentiles, str(volume.spec.dtype))


def remember(location: Location, kind: str, stretch: Stretch) -> None:
    """Write what was measured to the attributes of a new volume."""
    if location.entry.lasting:
        store, key = ObjectStore(location.base), _FILES[kind]
        metadata = json.loads(store.get(key))
        _table(kind, metadata)[KEY] = asdict(stretch)
        store.put(key, json.dumps(metadata, indent=2).encode())


def remembered(location: Location, kind: str) -> Stretch | None:
    """What was measured for a volume whose ingest was interrupted; ``None`` if nothing was."""
    data = ObjectStore(location.base).get_or_none(_FILES[kind]) if location.entry.lasting else None
    try:
        found = _table(kind, json.loads(data))[KEY] if data else None
        low, high = found["percentiles"] if found else (0.0, 0.0)
        return Stretch(float(found["low"]), float(found["high"]), (low, high), str(found["dtype"])) if found else None
    except (ValueError, TypeError, KeyError):
        return None


_FILES = {"zarr": "zarr.json", "precomputed": "info"}


def _table(kind: str, metadata: Any) -> Any:
    return metadata["attributes"] if kind == "zarr" else metadata


def _has_known_range(dtype: np.dtype) -> bool:
    return dtype.kind in "ui" and dtype.itemsize <= 2


def _range(volume: Volume, boxes: Callable[[], Iterable[BoundingBox]]) -> tuple[float, float]:
    """The smallest and the largest finite value; of small integers, those of their type, without reading them."""
    dtype = volume.spec.dtype
    if _has_known_range(dtype):
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    least, most = math.inf, -math.inf
    for box in boxes():
        values = volume.read(box)
        values = values[np.isfinite(values)]
        least, most = min(least, float(values.min(initial=math.inf))), max(most, float(values.max(initial=-math.inf)))
    if not least <= most:
        raise VolumeError(f"{volume.url} has no finite value; there is nothing to convert")
    return least, most


def _place(count: np.ndarray, percent: float) -> int:
    """The first value at or below which there are ``percent`` of all; 0 is the smallest that occurs."""
    sums = np.cumsum(count)
    return int(np.searchsorted(sums, max(1, math.ceil(sums[-1] * percent / 100))))
