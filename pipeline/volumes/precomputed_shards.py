"""Chunks in the shards of a precomputed layer: read by byte ranges of an ``ObjectStore``, written shard by shard.

    <scale>/<name>.shard     index of minishards, chunks, minishard indices (Neuroglancer's sharded format)

cloud-volume understands the indices; the bytes come from here, so that retries, credentials and other S3 servers are
the same as for everything else. Grid points are in the axis order of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from cloudfiles.compression import decompress
from cloudvolume import chunks as codecs
from cloudvolume.datasource.precomputed.common import compressed_morton_code
from cloudvolume.datasource.precomputed.sharding import (
    ShardingSpecification,
    ShardReader,
    image_shard_shape_from_spec,
)

from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore
from pipeline.volumes.base import VolumeSpec

NOWHERE = "mem://petaseg/layer"
"""An empty address for cloud-volume, which requires one; nothing is read from it."""
SHARD_BYTES = 1 << 28
"""The most bytes of voxels in a shard that is written; it is held in memory."""
MINISHARD_CHUNKS_BITS = 6
"""A minishard, whose index a reader loads at once, has up to 2 to this power chunks."""


def sharding_of(spec: VolumeSpec) -> dict[str, Any]:
    """How chunks are spread over shards: as many in one as ``SHARD_BYTES`` hold, neighbours together.

    The number of a chunk interleaves the bits of its place in the grid, and no hash spreads them. Nothing is gzipped,
    so that the bytes do not depend on the release of zlib.
    """
    grid = spec.bounds.shape.ceil_div(spec.storage_chunk)
    bits = sum((count - 1).bit_length() for count in grid)
    inside = min(bits, max(1, SHARD_BYTES // spec.bytes_of(spec.storage_chunk)).bit_length() - 1)
    preshift = min(inside, MINISHARD_CHUNKS_BITS)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": preshift,
        "hash": "identity",
        "minishard_bits": inside - preshift,
        "shard_bits": bits - inside,
        "minishard_index_encoding": "raw",
        "data_encoding": "raw",
    }


class ShardWriter:
    """Writes one scale of a layer; ``scale`` is its entry in the info file, with ``sharding``."""

    def __init__(self, store: ObjectStore, scale: dict[str, Any], spec: VolumeSpec) -> None:
        self._store, self._scale, self._spec = store, scale, spec
        self._sharding = ShardingSpecification.from_dict(scale["sharding"])
        self._grid = np.array(spec.bounds.shape.ceil_div(spec.storage_chunk)[::-1], np.uint32)

    @property
    def shard_shape(self) -> Vec:
        """The voxels of a shard; shards begin at the start of the bounds."""
        size, chunk = self._spec.bounds.shape[::-1], self._spec.storage_chunk[::-1]
        x, y, z = (int(side) for side in image_shard_shape_from_spec(self._scale["sharding"], size, chunk))
        return Vec(z, y, x)

    def write(self, box: BoundingBox, voxels: np.ndarray) -> None:
        """Store the voxels (z, y, x) or (c, z, y, x) of a whole shard, clipped to the bounds; chunks of zeros are not
        stored.
        """
        encoded = {}
        z, y, x = map(range, box.start, box.stop, self._spec.storage_chunk)
        for corner in product(z, y, x):
            chunk = BoundingBox.from_shape(self._spec.storage_chunk, corner).intersect(self._spec.bounds)
            part = voxels[(..., *chunk.slices(box.start))]
            if part.any():
                place = (chunk.start - self._spec.bounds.start) // self._spec.storage_chunk
                encoded[int(compressed_morton_code(place[::-1], self._grid))] = self._encode(part)
        if encoded:
            shard = self._sharding.compute_shard_location(next(iter(encoded))).shard_number
            self._store.put(f"{shard}.shard", self._sharding.synthesize_shard(encoded))

    def _encode(self, voxels: np.ndarray) -> bytes:
        stored = np.asfortranarray(voxels.reshape(-1, *voxels.shape[-3:]).T)  # (x, y, z, c)
        block = self._scale.get("compressed_segmentation_block_size", (8, 8, 8))
        return bytes(codecs.encode(stored, self._scale["encoding"], tuple(block)))


class ShardedChunks:
    """The stored bytes of chunks by grid point."""

    def __init__(self, store: ObjectStore, specification: dict[str, Any], grid_size: Sequence[int]) -> None:
        self.store = store
        self.specification = ShardingSpecification.from_dict(specification)
        self.grid_size = np.asarray(grid_size, np.uint32)

    def get(self, points: Sequence[Sequence[int]]) -> Sequence[bytes | None]:
        """The bytes of each chunk, still encoded; ``None`` for one that is not stored."""
        codes = [int(code) for code in compressed_morton_code(list(points), self.grid_size)]
        places = ShardReader(NOWHERE, _Ranges(self.store), self.specification).exists(codes, return_byte_range=True)
        return self.store.each(self._chunk, [places[code] for code in codes])

    def _chunk(self, place: tuple[str, int, int] | None) -> bytes | None:
        if place is None:
            return None
        name, start, size = place
        data = self.store.get(name, start, start + size)
        encoding = self.specification.data_encoding
        return data if encoding == "raw" else bytes(decompress(data, encoding, name))


class _Ranges:
    """The part of cloud-volume's cache that ``ShardReader`` needs: byte ranges."""

    enabled = False

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def download_as(self, requests: Sequence[dict[str, Any]], progress: object = None) -> dict[Any, bytes | None]:
        """The bytes of each request's path from start to end; ``None`` for a missing shard."""
        keys = [(request["path"], int(request["start"]), int(request["end"])) for request in requests]
        return dict(zip(keys, self.store.each(lambda key: self.store.get_or_none(*key), keys), strict=True))
