"""Fragments of meshes, and the voxels of segments, as arrays that chunks store and shards gather."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.shapes.multilod import Position


@dataclass(frozen=True)
class Fragment:
    """The encoded mesh of a segment in a block."""

    segment: int
    level: int
    position: Vec
    """The block, counted from ``MeshLattice.base``."""
    data: bytes


@dataclass(frozen=True, eq=False)
class Fragments:
    """Some fragments as arrays."""

    segment: np.ndarray
    """uint64 (n,)"""
    level: np.ndarray
    """uint8 (n,)"""
    position: np.ndarray
    """uint32 (n, 3): z, y, x"""
    size: np.ndarray
    """int64 (n,): bytes of each"""
    data: np.ndarray
    """uint8: all bytes, one behind another"""

    @classmethod
    def of(cls, pieces: Sequence[Fragment]) -> Fragments:
        """The arrays of these fragments, in their order."""
        return cls(
            np.array([piece.segment for piece in pieces], np.uint64),
            np.array([piece.level for piece in pieces], np.uint8),
            np.array([piece.position for piece in pieces], np.uint32).reshape(-1, 3),
            np.array([len(piece.data) for piece in pieces], np.int64),
            np.frombuffer(b"".join(piece.data for piece in pieces), np.uint8),
        )

    def __iter__(self) -> Iterator[Fragment]:
        stops = np.cumsum(self.size).tolist()
        rows = zip(
            self.segment.tolist(), self.level.tolist(), self.position.tolist(), self.size.tolist(), stops, strict=True
        )
        for segment, level, position, size, stop in rows:
            yield Fragment(segment, level, Vec(*position), self.data[stop - size : stop].tobytes())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        names = ("segment", "level", "position", "size", "data")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Fragments:
        """The inverse of ``to_arrays``; other names are ignored."""
        return cls(*(arrays[name] for name in ("segment", "level", "position", "size", "data")))


@dataclass(frozen=True, eq=False)
class VoxelCounts:
    """The voxels of some segments."""

    segments: np.ndarray
    """uint64 (n,), ascending, without 0"""
    voxels: np.ndarray
    """int64 (n,)"""

    @classmethod
    def of(cls, labels: np.ndarray) -> VoxelCounts:
        """Those of all segments in an array of unsigned integers."""
        import fastremap

        ids, counts = fastremap.unique(np.ascontiguousarray(labels), return_counts=True)
        return cls(ids[ids > 0].astype(np.uint64), counts[ids > 0].astype(np.int64))

    @classmethod
    def within(cls, labels: np.ndarray, box: BoundingBox, roi: BoundingBox) -> VoxelCounts:
        """Those of the segments that lie wholly in a box of the region of interest: none goes on beyond its faces."""
        found = cls.of(labels)
        faces = [face for axis in range(3) for face in _inner_faces(labels, box, roi, axis)]
        beyond = np.unique(np.concatenate([np.zeros(0, labels.dtype), *(np.unique(face) for face in faces)]))
        return found.chosen(~np.isin(found.segments, beyond.astype(np.uint64)))

    @classmethod
    def sum(cls, parts: Iterable[VoxelCounts]) -> VoxelCounts:
        """Those of all parts together."""
        every = list(parts)
        names = np.concatenate([np.zeros(0, np.uint64), *(part.segments for part in every)])
        segments, place = np.unique(names, return_inverse=True)
        voxels = np.zeros(len(segments), np.int64)
        np.add.at(voxels, place, np.concatenate([np.zeros(0, np.int64), *(part.voxels for part in every)]))
        return cls(segments, voxels)

    def chosen(self, which: np.ndarray) -> VoxelCounts:
        """Those that a mask, bool (n,), chooses."""
        return VoxelCounts(self.segments[which], self.voxels[which])

    def below(self, smallest: int) -> frozenset[int]:
        """The segments of fewer voxels than ``smallest``."""
        return frozenset(self.segments[self.voxels < smallest].tolist())

    def at_least(self, smallest: int) -> frozenset[int]:
        """The segments of ``smallest`` voxels or more."""
        return frozenset(self.segments[self.voxels >= smallest].tolist())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Both arrays by name."""
        return {"counted": self.segments, "voxels": self.voxels}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> VoxelCounts:
        """The inverse of ``to_arrays``; other names are ignored."""
        return cls(arrays["counted"], arrays["voxels"])


def by_segment(parts: Iterable[Fragments], kept: frozenset[int], levels: int) -> dict[int, list[dict[Position, bytes]]]:
    """The fragments of each kept segment: for each level of detail, the bytes of every block."""
    found: defaultdict[int, list[dict[Position, bytes]]] = defaultdict(lambda: [{} for _ in range(levels)])
    for part in parts:
        for piece in part:
            if piece.segment in kept:
                found[piece.segment][piece.level][piece.position] = piece.data
    return found


def _inner_faces(labels: np.ndarray, box: BoundingBox, roi: BoundingBox, axis: int) -> Iterator[np.ndarray]:
    """The first and the last layer along an axis, as far as the region of interest goes on behind them."""
    if box.start[axis] > roi.start[axis]:
        yield labels.take(0, axis)
    if box.stop[axis] < roi.stop[axis]:
        yield labels.take(-1, axis)
