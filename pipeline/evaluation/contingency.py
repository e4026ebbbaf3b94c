"""How many voxels every true object shares with every predicted segment, as a sparse table that adds up over chunks.

All scores of ``pipeline.evaluation.scores`` follow from this table, so a volume of any size is scored from tables of
its chunks. Counts are integers: the sum of the chunks' tables is exactly the table of the whole, in any order.

These ids are special:

- truth 0 is not labelled; its voxels are not in the table. Nor are those of the marks of ``scored_voxels``, such as -1
  or what it is without a sign, by which the field says what is not to be scored. Where every object is labelled
  (mitochondria, nuclei), 0 is the background and counts: ``background=True``.
- predicted 0 is not assigned. Within labelled truth all of it counts as **one segment**, as in the challenges of the
  field (SNEMI3D, CREMI's adapted Rand), so a segmentation gains nothing by leaving out difficult parts.
  ``without_unassigned`` drops it, which scores the assigned part alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import CorruptError, VolumeError
from pipeline.evaluation.files import whole_file

KEYS = ("truth", "predicted", "voxels")


MARKS = 3
"""How many of the largest ids of 64 bits (-1, -2, -3 with a sign) are no neurons."""


@dataclass(frozen=True, eq=False)
class Contingency:
    """Triples (truth, predicted, voxels), one for each pair that occurs, sorted by truth, then predicted."""

    truth: np.ndarray
    """uint64 (n,), at least 1, and 0 where the background was counted"""
    predicted: np.ndarray
    """uint64 (n,)"""
    voxels: np.ndarray
    """int64 (n,), at least 1"""

    @classmethod
    def empty(cls) -> Contingency:
        """The empty table, the neutral element of ``+``."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    @classmethod
    def from_labels(cls, truth: np.ndarray, predicted: np.ndarray, *, background: bool = False) -> Contingency:
        """Count the pairs of ids of two label volumes.

        Runs of equal pairs along x are counted first, so only a few percent of the voxels must be sorted.

        Args:
            truth: integers, any shape; 0 = not labelled, ignored, as are the other marks of ``labelled_voxels``.
            predicted: integers, the same shape; 0 = not assigned, counted as one segment.
            background: count the voxels of truth 0 as well.

        Raises:
            VolumeError: the shapes differ, or another id is not an integer of at least 0.
        """
        if truth.shape != predicted.shape:
            raise VolumeError(
                f"truth has shape {truth.shape}, prediction {predicted.shape}: both must cover the same voxels; "
                "read the same box from both volumes"
            )
        first, second = checked_ids(truth, "truth", least=-MARKS), checked_ids(predicted, "prediction")
        if not len(first):
            return cls.empty()
        starts = np.concatenate([[True], (first[1:] != first[:-1]) | (second[1:] != second[:-1])])
        runs = np.flatnonzero(starts)
        lengths = np.diff(runs, append=len(first))
        counted = scored_voxels(first[runs]) if background else labelled_voxels(first[runs])
        runs, lengths = runs[counted], lengths[counted]
        return cls._summed(first[runs].astype(np.uint64), second[runs].astype(np.uint64), lengths)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Contingency:
        """The inverse of ``to_arrays``.

        Raises:
            CorruptError: an array is missing, or the arrays do not make a table.
        """
        missing = [key for key in KEYS if key not in arrays]
        if missing:
            raise CorruptError(f"contingency table without {missing}: it needs {list(KEYS)}; evaluate again")
        truth, predicted, voxels = (np.asarray(arrays[key]) for key in KEYS)
        if not truth.shape == predicted.shape == voxels.shape == (len(voxels),) or (voxels < 1).any():
            raise CorruptError(
                f"contingency table with shapes {truth.shape}, {predicted.shape}, {voxels.shape}: "
                "three equally long columns and counts of at least 1 are needed; evaluate again"
            )
        return cls._summed(truth.astype(np.uint64), predicted.astype(np.uint64), voxels.astype(np.int64))

    @classmethod
    def _summed(cls, truth: np.ndarray, predicted: np.ndarray, voxels: np.ndarray) -> Contingency:
        """Sort and add up equal pairs."""
        if not len(voxels):
            return cls.empty()
        order = np.lexsort((predicted, truth))
        truth, predicted, voxels = truth[order], predicted[order], voxels[order]
        starts = np.concatenate([[True], (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])])
        first = np.flatnonzero(starts)
        return cls(truth[first], predicted[first], np.add.reduceat(voxels.astype(np.int64), first))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The three columns by name, to be stored as a part of a run."""
        return {key: getattr(self, key) for key in KEYS}

    def save(self, path: Path | str) -> None:
        """Write an npz file, whole or not at all.

        Raises:
            StorageError: the file cannot be written.
        """
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **self.to_arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path | str) -> Contingency:
        """Read what ``save`` wrote.

        Raises:
            CorruptError: the file is missing or no table.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return cls.from_arrays({key: stored[key] for key in stored.files})
        except CorruptError:
            raise
        except Exception as error:  # zip, header and system errors of many kinds: all mean that there is no table
            raise CorruptError(f"{path}: {error}; a contingency table (npz) is needed; evaluate again") from error

    def __add__(self, other: Contingency) -> Contingency:
        """The table of both sets of voxels."""
        return self.sum([self, other])

    @classmethod
    def sum(cls, parts: Iterable[Contingency]) -> Contingency:
        """The table of all parts. It sorts once, while adding the parts one by one would sort the total each time."""
        tables = [cls.empty(), *parts]
        return cls._summed(*(np.concatenate([getattr(table, key) for table in tables]) for key in KEYS))

    def __eq__(self, other: object) -> bool:
        """The same pairs and counts."""
        if not isinstance(other, Contingency):
            return NotImplemented
        return all(np.array_equal(getattr(self, key), getattr(other, key)) for key in KEYS)

    __hash__ = None  # type: ignore[assignment]

    @property
    def total(self) -> int:
        """Voxels counted: those with a true label, and the background where it was counted."""
        return int(self.voxels.sum())

    def without_unassigned(self) -> Contingency:
        """The part of the table where a segment was assigned."""
        kept = self.predicted != 0
        return Contingency(self.truth[kept], self.predicted[kept], self.voxels[kept])

    def relabelled(self, old: np.ndarray, new: np.ndarray) -> Contingency:
        """The table after each predicted id ``old[i]`` has become ``new[i]``; ``old`` is sorted and unique.

        Ids that are not in ``old`` do not change.
        """
        if not len(old):
            return self
        place = np.minimum(np.searchsorted(old, self.predicted), len(old) - 1)
        predicted = np.where(old[place] == self.predicted, new[place], self.predicted)
        return self._summed(self.truth, predicted.astype(np.uint64), self.voxels)


def labelled_voxels(truth: np.ndarray) -> np.ndarray:
    """True, in the shape of the truth, at voxels that have a label and are to be scored: ``scored_voxels`` but 0."""
    return (truth != 0) & scored_voxels(truth)


def scored_voxels(truth: np.ndarray) -> np.ndarray:
    """True, in the shape of the truth, at voxels that are to be scored, 0 among them.

    Not scored are -1, -2 and -3, and what these are without a sign in 64 bits (transparent, invalid and outside in the
    files of CREMI and BigCAT); and the largest uint32.
    """
    if truth.dtype.kind == "i":
        return np.asarray((truth >= 0) | (truth < -MARKS))
    marks = {8: MARKS, 4: 1}.get(truth.dtype.itemsize, 0)
    largest = np.iinfo(truth.dtype).max if marks else 0
    return truth <= truth.dtype.type(largest - marks) if marks else np.ones(truth.shape, bool)


def checked_ids(labels: np.ndarray, name: str, least: int = 0) -> np.ndarray:
    """Labels as one row; ``VolumeError`` unless they are integers of at least ``least``, or bool."""
    labels = labels.astype(np.uint8) if labels.dtype == np.bool_ else labels
    kind = labels.dtype.kind
    if kind not in "iu" or (kind == "i" and labels.size and labels.min() < least):
        raise VolumeError(
            f"{name} has type {labels.dtype}"
            + (f" and smallest id {labels.min()}" if kind == "i" else "")
            + f": ids must be integers of at least {least}; convert the volume"
        )
    return labels.ravel()
