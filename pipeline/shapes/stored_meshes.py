"""Reads back the mesh of one neuron out of the shards of a run, at the level of detail that is small enough to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.shapes.meshing import Mesh
from pipeline.shapes.multilod import BITS
from pipeline.shapes.shards import Sharding, bytes_of


@dataclass(frozen=True)
class StoredMeshes:
    """The shards of the meshes of a run."""

    read_file: Callable[[str], bytes]
    """The bytes of a file of the folder ``meshes``, by its name."""
    sharding: Sharding

    def read(self, segment: int, most_bytes: int) -> Mesh | None:
        """The mesh of a segment, its vertices z, y, x in voxels of the dataset; ``None`` if it has none.

        most_bytes: the finest level of detail is taken whose fragments have no more bytes, or else the coarsest.
        """
        shard = int(self.sharding.shard_of(np.array([segment], np.uint64))[0])
        data = self.read_file(self.sharding.file_name(shard))
        place = bytes_of(data, segment)
        if place is None:
            return None
        levels = list(_levels(data[place.start : place.stop]))
        stop = place.start  # fragments lie before the manifest
        sizes = [level.encoded for level in levels]
        starts = np.cumsum([stop - sum(sizes), *sizes]).tolist()
        chosen = next((n for n, level in enumerate(levels) if level.encoded <= most_bytes), len(levels) - 1)
        return levels[chosen].decode(data[starts[chosen] : starts[chosen + 1]])


@dataclass(frozen=True, eq=False)
class _Level:
    """What a manifest says of one level of detail; all in the order x, y, z of the format."""

    corner: np.ndarray
    """Where block 0 begins, in voxels of the dataset."""
    side: np.ndarray
    """The sides of a block, in the same."""
    positions: np.ndarray
    """uint32 (n, 3): the block of each fragment"""
    sizes: np.ndarray
    """uint32 (n,): its bytes"""

    @property
    def encoded(self) -> int:
        """Bytes of all fragments."""
        return int(self.sizes.sum())

    def decode(self, data: bytes) -> Mesh:
        """The mesh that the fragments make."""
        stops = np.cumsum(self.sizes).tolist()
        spans = zip(self.positions, self.sizes.tolist(), stops, strict=True)
        return Mesh.joined([self._part(position, data[stop - size : stop]) for position, size, stop in spans if size])

    def _part(self, position: np.ndarray, data: bytes) -> Mesh:
        import DracoPy

        found = DracoPy.decode(data)
        share = np.asarray(found.points, np.float64) / ((1 << BITS) - 1)
        points = self.corner + self.side * (position + share)
        return Mesh(points[:, ::-1].astype(np.float32), np.asarray(found.faces, np.uint32)[:, ::-1])


def _levels(manifest: bytes) -> Iterator[_Level]:
    """The levels of detail of a manifest of ``neuroglancer_multilod_draco``, the finest first."""
    floats, at = np.frombuffer(manifest, "<f4", 6), 28
    count = int(np.frombuffer(manifest, "<u4", 1, 24)[0])
    scales, offsets, numbers, at = _head(manifest, count, at)
    for level in range(count):
        n = int(numbers[level])
        table = np.frombuffer(manifest, "<u4", 4 * n, at)
        at += table.nbytes
        side = floats[:3].astype(np.float64) * float(scales[level])
        yield _Level(floats[3:] + offsets[level], side, table[: 3 * n].reshape(3, n).T, table[3 * n :])


def _head(manifest: bytes, count: int, at: int) -> tuple[np.ndarray, np.ndarray, Sequence[int], int]:
    """Scales, vertex offsets and numbers of fragments of all levels, and where the table of the first one begins."""
    scales = np.frombuffer(manifest, "<f4", count, at)
    offsets = np.frombuffer(manifest, "<f4", 3 * count, at + 4 * count).reshape(count, 3)
    numbers = np.frombuffer(manifest, "<u4", count, at + 16 * count).tolist()
    return scales, offsets, numbers, at + 20 * count
