"""The sizes of segments in bounded memory: how many there are of each size, and the largest ones; they add up.

Sizes below 64 voxels have a class each; above, each power of two has 32 classes, so that a size is known to three in a
hundred. Counts, voxels and the largest segments are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.segmentation.region_graph import pick

BITS = 5
CLASSES = (64 - BITS) << BITS
"""Enough for any size in int64."""
NAMED = 10
"""The number of largest segments that are kept by name."""


@dataclass(frozen=True, eq=False)
class Sizes:
    """The sizes of some segments."""

    counts: np.ndarray
    """int64 (CLASSES,): segments of each class."""
    voxels: np.ndarray
    """int64 (CLASSES,): their voxels."""
    largest: np.ndarray
    """uint64 (<= NAMED, 2): id and voxels of the largest, the largest first, of equal ones the smaller id first."""

    @classmethod
    def of(cls, ids: np.ndarray, sizes: np.ndarray) -> Sizes:
        """Those of segments with ``ids`` uint64 (n,), each once, and ``sizes`` int64 (n,); empty ones do not count."""
        ids, sizes = ids[sizes > 0], sizes[sizes > 0]
        place = class_of(sizes)
        voxels = np.zeros(CLASSES, np.int64)
        np.add.at(voxels, place, sizes)
        named = np.stack([ids, sizes.astype(np.uint64)], axis=1)
        return cls(np.bincount(place, minlength=CLASSES).astype(np.int64), voxels, _largest(named))

    @classmethod
    def none(cls) -> Sizes:
        """Those of no segment."""
        return cls.of(np.zeros(0, np.uint64), np.zeros(0, np.int64))

    @classmethod
    def sum(cls, parts: Sequence[Sizes]) -> Sizes:
        """Those of all parts together; no segment is in two of them."""
        named = np.concatenate([part.largest for part in parts])
        counts, voxels = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("counts", "voxels"))
        return cls(counts, voxels, _largest(named))

    def replaced(self, gone: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]) -> Sizes:
        """Those of the segments after some have become others; both are ids and sizes, as for ``of``.

        Of the largest, those are named that are surely among them: below the smallest that was named, others may be.
        """
        before, after = Sizes.of(*gone), Sizes.of(*new)
        unnamed = self.count > len(self.largest)
        least = self.largest[-1, 1] if unnamed else np.uint64(0)
        stays = self.largest[~np.isin(self.largest[:, 0], gone[0])]
        come = np.stack([new[0], new[1].astype(np.uint64)], axis=1)
        named = np.concatenate([stays, come[come[:, 1] > least]])
        counts, voxels = self.counts - before.counts + after.counts, self.voxels - before.voxels + after.voxels
        return Sizes(counts, voxels, _largest(named))

    @property
    def count(self) -> int:
        """The number of segments."""
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """Voxels of all segments."""
        return int(self.voxels.sum())

    def quantile(self, share: float) -> int:
        """The size that ``share`` of the segments do not exceed, to three in a hundred; 0 if there are none."""
        return self._reached(np.cumsum(self.counts), share * self.count)

    def half_of_the_volume(self) -> int:
        """The size that the segments with half of all voxels have at least, to three in a hundred."""
        return self._reached(np.cumsum(self.voxels), self.total / 2)

    def below(self, size: int) -> int:
        """Segments of fewer voxels than ``size``, which is a power of two, or at most 64."""
        return int(self.counts[: class_of(np.array([size]))[0]].sum())

    def _reached(self, sums: np.ndarray, wanted: float) -> int:
        """The mean size in the first class at which the sums reach what is wanted."""
        place = int(np.searchsorted(sums, max(wanted, 1)))
        return round(self.voxels[place] / self.counts[place]) if place < CLASSES and self.count else 0

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name; the classes that are empty are left out."""
        used = np.flatnonzero(self.counts)
        table = np.stack([used, self.counts[used], self.voxels[used]], axis=1)
        return {"size_classes": table.astype(np.int64), "largest": self.largest}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Sizes:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        found = pick(arrays, ["size_classes", "largest"])
        counts, voxels = np.zeros(CLASSES, np.int64), np.zeros(CLASSES, np.int64)
        place = found["size_classes"][:, 0]
        counts[place], voxels[place] = found["size_classes"][:, 1], found["size_classes"][:, 2]
        return cls(counts, voxels, found["largest"])


def class_of(sizes: np.ndarray) -> np.ndarray:
    """The class of each size, int64 (n,); sizes are from 0."""
    sizes = np.asarray(sizes, np.int64)
    _, exponent = np.frexp(np.maximum(sizes, 1).astype(np.float64))
    shift = np.maximum(exponent - 1 - BITS, 0)
    shift -= ((sizes >> shift) < (1 << BITS)) & (shift > 0)  # a size just below a power of two was rounded up to it
    return np.where(sizes < 1 << BITS, sizes, ((shift + 1) << BITS) + (sizes >> shift) - (1 << BITS))


def _largest(named: np.ndarray) -> np.ndarray:
    """The ``NAMED`` largest, in their order."""
    order = np.lexsort((named[:, 0], ~named[:, 1]))[:NAMED]
    return np.ascontiguousarray(named[order])
