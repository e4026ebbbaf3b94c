"""How many voxels of each height every basin shares with every true object: a table that scores every choice of rules.

A mask and objects are unions of basins above a threshold. So one table (truth, basin, height) of a chunk gives the
contingency table of every threshold, seed limit and size, and no voxel is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.errors import CorruptError
from pipeline.evaluation.contingency import MARKS, Contingency, checked_ids, scored_voxels
from pipeline.evaluation.masks import SURE, ValueCounts

KEYS = ("truth", "basin", "height", "voxels")


@dataclass(frozen=True, eq=False)
class BasinCounts:
    """Rows (truth, basin, height, voxels), one for each combination that occurs; truth 0 is background and counts."""

    truth: np.ndarray
    """uint64 (n,)"""
    basin: np.ndarray
    """uint64 (n,), 0 where no choice of rules gives a voxel to an object"""
    height: np.ndarray
    """uint8 (n,), 0 where the basin is 0"""
    voxels: np.ndarray
    """int64 (n,), at least 1"""

    @classmethod
    def of(cls, truth: np.ndarray, basins: np.ndarray, heights: np.ndarray) -> BasinCounts:
        """Count the voxels of three arrays of one shape.

        Args:
            truth: integers; the marks of ``scored_voxels`` are not counted.
            basins: uint64, 0 = none.
            heights: uint8, what was flooded.

        Raises ``VolumeError`` for truth that holds no integers, or other negative ones.
        """
        true = checked_ids(truth, "truth", least=-MARKS)
        counted = scored_voxels(true)
        true, basin, height = (array.ravel()[counted] for array in (true, basins, heights * (basins != 0)))
        order = np.lexsort((height, basin, true))
        columns = [column[order] for column in (true, basin, height)]
        differs = np.zeros(len(order), bool)
        differs[:1] = True
        for column in columns:
            differs[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(differs)
        rows = [column[first] for column in columns]
        voxels = np.diff(first, append=len(order)).astype(np.int64)
        return cls(rows[0].astype(np.uint64), rows[1].astype(np.uint64), rows[2].astype(np.uint8), voxels)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> BasinCounts:
        """The inverse of ``to_arrays``; ``CorruptError`` if an array is missing."""
        missing = [key for key in KEYS if key not in arrays]
        if missing:
            raise CorruptError(f"table of basins without {missing}: it needs {list(KEYS)}; evaluate again")
        return cls(*(arrays[key] for key in KEYS))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The four columns by name."""
        return {key: getattr(self, key) for key in KEYS}

    def contingency(self, basins: np.ndarray, objects: np.ndarray, mask: int) -> Contingency:
        """The table of truth and objects if ``basins[i]``, ascending, is a part of ``objects[i]``.

        mask: voxels of an object are higher than this. An object of 0 is none.
        """
        found = np.zeros(len(self.basin), np.uint64)
        inside = (self.height > mask) & (self.basin != 0)
        found[inside] = objects[np.searchsorted(basins, self.basin[inside])]
        return Contingency.from_arrays({"truth": self.truth, "predicted": found, "voxels": self.voxels})

    def values(self) -> ValueCounts:
        """True and other voxels of each height, by which a mask without a least size is scored at every threshold."""
        voxels = np.zeros((2, SURE + 1), np.int64)
        np.add.at(voxels, ((self.truth != 0).astype(np.intp), self.height.astype(np.intp)), self.voxels)
        return ValueCounts(voxels)
