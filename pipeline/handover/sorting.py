"""Rows that do not fit into memory, in the order of their keys: written to buckets on disk, and read bucket by bucket.

The rows of a bucket are sorted in memory. Ids of supervoxels are places of voxels, so that buckets of equal width are
filled by volumes of equal size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.geometry import BoundingBox

BUCKETS = 1 << 14
"""The most buckets that a volume is divided into; each is a file."""
SCORES = 1 << 11
"""Buckets of scores."""
LEAST_WIDTH = 1 << 24
"""The fewest voxels for which there is a bucket of ids."""
WAITING = 1 << 19
"""Rows that wait in memory before they are written."""
Bucket = Callable[[np.ndarray], np.ndarray]
"""The bucket of each row, int64 (n,)."""


class Sorted:
    """Rows of one type, added in any order and read in the order of ``keys``."""

    def __init__(self, folder: Path, dtype: np.dtype, keys: Sequence[str], bucket: Bucket) -> None:
        """Keep rows in a new folder. ``bucket``: does not fall where the keys rise."""
        folder.mkdir(parents=True)
        self._folder, self._dtype, self._keys, self._bucket = folder, dtype, list(keys), bucket
        self._rows: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Add some rows."""
        self._rows.append(rows)
        if sum(map(len, self._rows)) >= WAITING:
            self._flush()

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rows of each bucket that has some, sorted."""
        return map(self.bucket, self.numbers)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the buckets that have rows."""
        self._flush()
        return sorted(int(path.name) for path in self._folder.iterdir())

    def bucket(self, number: int) -> np.ndarray:
        """The rows of a bucket, sorted; none if it has none."""
        self._flush()
        path = self._folder / str(number)
        rows = np.fromfile(path, self._dtype) if path.exists() else np.zeros(0, self._dtype)
        return rows[np.lexsort([rows[key] for key in reversed(self._keys)])]

    def grouped(self, how: Mapping[str, np.ufunc]) -> Iterator[np.ndarray]:
        """The same with one row for each key: columns are added up, or joined as ``how`` says."""
        return (self.group(number, how) for number in self.numbers)

    def group(self, number: int, how: Mapping[str, np.ufunc]) -> np.ndarray:
        """A bucket that has rows, with one row for each key."""
        rows = self.bucket(number)
        starts = group_starts(rows, self._keys)
        result = rows[starts]
        for name in set(rows.dtype.names or ()) - set(self._keys):
            result[name] = how.get(name, np.add).reduceat(rows[name], starts, axis=0)
        return result

    def _flush(self) -> None:
        """Write what waits into its buckets."""
        rows = np.concatenate([np.zeros(0, self._dtype), *self._rows])
        buckets = self._bucket(rows)
        order = np.argsort(buckets, kind="stable")
        names, starts = np.unique(buckets[order], return_index=True)
        for name, part in zip(names.tolist(), np.split(rows[order], starts[1:]), strict=False):
            with open(self._folder / str(name), "ab") as file:
                part.tofile(file)
        self._rows = []


def group_starts(rows: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """Where in sorted rows another key begins, int64 (groups,)."""
    new = np.ones(len(rows), bool)
    new[1:] = False
    for key in keys:
        new[1:] |= rows[key][1:] != rows[key][:-1]
    return np.flatnonzero(new)


def by_id(key: str, bounds: BoundingBox) -> Bucket:
    """The bucket of rows whose key is a place of a voxel in ``bounds``."""
    width = np.uint64(max(LEAST_WIDTH, -(-bounds.voxels // BUCKETS)))
    return lambda rows: (rows[key] // width).astype(np.int64)


def by_score(rows: np.ndarray) -> np.ndarray:
    """The bucket of rows with a ``score`` from 0 to 1, the best first."""
    return ((1 - rows["score"]) * SCORES).astype(np.int64)
