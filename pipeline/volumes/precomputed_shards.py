"""Read chunks from the shards of a precomputed layer, by byte ranges of an ``ObjectStore``.

    <scale>/<name>.shard     index of minishards, chunks, minishard indices (Neuroglancer's sharded format)

cloud-volume understands the indices; the bytes come from here, so that retries, credentials and other S3 servers are
the same as for everything else. Grid points are in the axis order of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cloudfiles.compression import decompress
from cloudvolume.datasource.precomputed.common import compressed_morton_code
from cloudvolume.datasource.precomputed.sharding import ShardingSpecification, ShardReader

from pipeline.storage import ObjectStore

NOWHERE = "mem://petaseg/layer"
"""An empty address for cloud-volume, which requires one; nothing is read from it."""


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
