"""The tables of a run in the order of ids, gathered in one pass over its chunks and sorted on disk.

1. ``gather``   each chunk's parts of supervoxels and contacts go into buckets on disk; so do the merges of each node
2. ``Tables``   bucket by bucket, parts are added up: the same rows whatever the chunks are
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.handover.sorting import Sorted, by_id, by_score, group_starts
from pipeline.handover.source import CONTACT, SUPERVOXEL, VALUE, Source
from pipeline.segmentation.agglomeration import MERGE, Linkage
from pipeline.segmentation.merge_tree import canonical
from pipeline.volumes.slabs import Tally

NEURON = np.dtype([("id", "u8"), ("supervoxels", "i8"), ("voxels", "i8"), ("low", "i8", 3), ("high", "i8", 3)])
"""A neuron: its supervoxels, its voxels, its first and its last voxel, z y x."""
BOXES = {"low": np.minimum, "high": np.maximum}


@dataclass(frozen=True)
class Tables:
    """The rows of a run on disk; each method yields one bucket after the other."""

    linkage: Linkage
    _supervoxels: Sorted
    _contacts: Sorted
    _values: Sorted
    _merges: Sorted
    _folder: Path
    _source: Source

    def supervoxels(self) -> Iterator[np.ndarray]:
        """``SUPERVOXEL`` rows in the order of ids, each supervoxel once."""
        return self._supervoxels.grouped({**BOXES, "segment": np.maximum})

    def contacts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """``CONTACT`` rows in the order of a and b, each contact once, and its score as the linkage has it: float64."""
        for number in self._contacts.numbers:
            rows = self._contacts.group(number, {})
            yield rows, self._scores(rows, number)

    def _scores(self, contacts: np.ndarray, bucket: int) -> np.ndarray:
        if not self.linkage.needs_histograms:
            return contacts["sum"] / (255 * contacts["count"])
        return quantiles(self._values.bucket(bucket), contacts["count"], self.linkage.millionths) / 255

    def merges(self) -> Iterator[np.ndarray]:
        """``MERGE`` rows in the order of the merge tree, the best first."""
        return map(canonical, self._merges)

    def neurons(self) -> Iterator[np.ndarray]:
        """``NEURON`` rows in the order of ids."""
        rows = Sorted(self._folder / "neurons", NEURON, ["id"], by_id("id", self._source.layout.bounds))
        for part in self.supervoxels():
            rows.add(_neurons(part[part["segment"] > 0]))
        return rows.grouped(BOXES)


def gather(source: Source, folder: Path, on_progress: Callable[[int, int], None]) -> Tables:
    """Read all chunks of a run once; ``folder`` is a new one for the rows."""
    bounds, roi = source.layout.bounds, source.layout.roi
    supervoxels = Sorted(folder / "supervoxels", SUPERVOXEL, ["id"], by_id("id", bounds))
    contacts = Sorted(folder / "contacts", CONTACT, ["a", "b"], by_id("a", bounds))
    values = Sorted(folder / "values", VALUE, ["a", "b", "value"], by_id("a", bounds))
    merges = Sorted(folder / "merges", MERGE, ["a"], by_score)
    tally = Tally(on_progress, roi.voxels, 0)
    for chunk, part in source.parts():
        supervoxels.add(part.supervoxels)
        contacts.add(part.contacts)
        values.add(part.values)
        tally.add(chunk.core.voxels)
    for rows in source.merges():
        merges.add(rows)
    return Tables(source.tree.linkage, supervoxels, contacts, values, merges, folder, source)


def quantiles(values: np.ndarray, totals: np.ndarray, millionths: int) -> np.ndarray:
    """A quantile of the affinities of each contact, uint8 (m,), by the rule of the linkage.

    values: ``VALUE`` rows of the same contacts, sorted by a, b and value. totals: int64 (m,), affinities of each.
    """
    starts = group_starts(values, ["a", "b"])
    before = np.cumsum(values["count"]) - values["count"]
    ranks = np.maximum((millionths * totals + 999_999) // 1_000_000, 1)
    places = np.searchsorted(before + values["count"], before[starts] + ranks)
    found: np.ndarray = values["value"][places]
    return found


def _neurons(supervoxels: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(supervoxels), NEURON)
    rows["id"], rows["supervoxels"] = supervoxels["segment"], 1
    for name in ("voxels", "low", "high"):
        rows[name] = supervoxels[name]
    return rows
