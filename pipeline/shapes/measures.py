"""Voxels, places, surfaces and contacts of the objects in a box, as sums of integers: those of parts add up.

A face lies between two neighbouring voxels along an axis. The box of a chunk counts the faces of each of its voxels
with the next voxel of every axis, also where that one is the first of the chunk behind it: so every face counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.segmentation.faces import BORDER, FACES, HIGH, LOW, SUMS, VOXELS, count_faces
from pipeline.segmentation.region_graph import pick


@dataclass(frozen=True, eq=False)
class Measures:
    """What is known of some objects and their contacts; plain arrays, positions in global voxels, axes z, y, x."""

    ids: np.ndarray
    """uint64 (n,), ascending"""
    voxels: np.ndarray
    """int64 (n,)"""
    sums: np.ndarray
    """int64 (n, 3): sums of the positions of the voxels"""
    low: np.ndarray
    """int64 (n, 3): the first voxel of the bounding box"""
    high: np.ndarray
    """int64 (n, 3): its last voxel"""
    faces: np.ndarray
    """int64 (n, 3): faces across each axis to another object or the background"""
    border: np.ndarray
    """int64 (n, 3): faces across each axis on the border of the region of interest"""
    pairs: np.ndarray
    """uint64 (m, 2), ascending: ids of two objects that touch, the smaller id first"""
    areas: np.ndarray
    """int64 (m, 3): faces across each axis between the two"""
    places: np.ndarray
    """int64 (m, 3): sums of twice the positions of the centres of these faces"""

    @classmethod
    def sum(cls, parts: Sequence[Measures]) -> Measures:
        """Those of all parts together; an object or a contact may have rows in several."""
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _names(cls)}
        return _grouped(joined)

    @classmethod
    def none(cls) -> Measures:
        """Those of no object."""
        three, ids, pairs = np.zeros((0, 3), np.int64), np.zeros(0, np.uint64), np.zeros((0, 2), np.uint64)
        return cls(ids, np.zeros(0, np.int64), three, three, three, three, three, pairs, three, three)

    def chosen(self, objects: np.ndarray, contacts: np.ndarray) -> Measures:
        """Some of the rows: bool (n,) and (m,)."""
        names = _names(type(self))
        rows = {
            name: getattr(self, name)[contacts if name in ("pairs", "areas", "places") else objects] for name in names
        }
        return Measures(**rows)

    def split(self, core: BoundingBox, roi: BoundingBox) -> tuple[Measures, Measures]:
        """Rows that are complete within ``core``, a part of ``roi``, and rows to which other boxes may add something.

        An object goes on if one of its voxels touches a face behind which the region continues. Of an object in several
        pieces, rows that seem complete can stand in several boxes: whoever reads them adds them up.
        """
        start, stop = np.array(core.start), np.array(core.stop)
        at_start = (self.low <= start) & (start > np.array(roi.start))
        at_stop = (self.high >= stop - 1) & (stop < np.array(roi.stop))
        goes_on = (at_start | at_stop).any(axis=1) | (self.voxels == 0)
        both = goes_on[np.searchsorted(self.ids, self.pairs)].all(axis=1)
        return self.chosen(~goes_on, ~both), self.chosen(goes_on, both)

    def to_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays by name, after a prefix."""
        return {prefix + name: getattr(self, name) for name in _names(type(self))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str) -> Measures:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        found = pick(arrays, [prefix + name for name in _names(cls)])
        return cls(**{name.removeprefix(prefix): array for name, array in found.items()})


def measure(labels: np.ndarray, core: BoundingBox, roi: BoundingBox) -> Measures:
    """The measures of one box.

    labels: uint64 (z, y, x) of the core and, where ``roi`` has them, of one more voxel behind it along every axis;
    0 = background, which is not an object.
    """
    at_start = np.array([a == b for a, b in zip(core.start, roi.start, strict=True)])
    found = count_faces(labels, core.shape, at_start)
    return _as_measures(*found, np.array(core.start, np.int64))


def _as_measures(
    ids: np.ndarray, columns: np.ndarray, pairs: np.ndarray, contacts: np.ndarray, start: np.ndarray
) -> Measures:
    """The rows of the kernel in global voxels, in the order of the ids; objects without voxel and face are left out."""
    keep = (columns[:, VOXELS] > 0) | columns[:, FACES:].any(axis=1)
    voxels = columns[:, :1]
    shift = np.where(voxels > 0, start, 0)
    ends = np.stack([pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)], axis=1).astype(np.int64)
    rows = {
        "ids": ids[keep],
        "voxels": columns[keep, VOXELS],
        "sums": (columns[:, SUMS:LOW] + voxels * start)[keep],
        "low": (columns[:, LOW:HIGH] + shift)[keep],
        "high": (columns[:, HIGH:FACES] + shift)[keep],
        "faces": columns[keep, FACES:BORDER],
        "border": columns[keep, BORDER:],
        "pairs": np.sort(ids[ends], axis=1),
        "areas": contacts[:, :3],
        "places": contacts[:, 3:] + 2 * contacts[:, :3].sum(axis=1, keepdims=True) * start,
    }
    return _grouped(rows)


def _names(cls: type[Measures]) -> list[str]:
    return [field.name for field in fields(cls)]


def _grouped(rows: Mapping[str, np.ndarray]) -> Measures:
    """Rows in their order, those of the same id or pair added up."""
    order, starts = _groups(rows["ids"][:, None])
    between, begins = _groups(rows["pairs"])
    least, most = (np.minimum, "low"), (np.maximum, "high")
    ranges = {name: _reduced(how, rows[name][order], starts) for how, name in (least, most)}
    added = {name: _reduced(np.add, rows[name][order], starts) for name in ("voxels", "sums", "faces", "border")}
    contacts = {name: _reduced(np.add, rows[name][between], begins) for name in ("areas", "places")}
    keys = {"ids": rows["ids"][order][starts], "pairs": rows["pairs"][between][begins]}
    return Measures(**keys, **ranges, **added, **contacts)


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows of keys, and where in it a new key begins."""
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, np.flatnonzero(is_new)


def _reduced(how: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The values of each group, taken together."""
    return how.reduceat(values, starts, axis=0) if len(values) else values
