"""Ids in a chunked graph: the layer, the place of a chunk, x y z, and a number within the chunk, in 64 bits.

8 bits   layer: 1 = supervoxels
10 each  place of the chunk along x, y, z
26 bits  number of the supervoxel in its chunk, from 1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Triple, Vec

LAYER_BITS, SPATIAL_BITS = 8, 10
COUNTER_BITS = 64 - LAYER_BITS - 3 * SPATIAL_BITS
LEAST_SIDE = 8
"""The fewest voxels along a side of a chunk."""


@dataclass(frozen=True)
class ChunkIds:
    """The chunks of a graph over a region, which begin at its first voxel; places are z, y, x."""

    roi: BoundingBox
    shape: Vec

    @classmethod
    def of(cls, roi: BoundingBox, shape: Vec) -> ChunkIds:
        """``ConfigError`` if a side is too short, or there are more chunks than ids have bits for."""
        if min(shape) < LEAST_SIDE:
            raise ConfigError(f"--graph-chunk is {shape}; sides are at least {LEAST_SIDE} voxels: choose longer ones")
        ids = cls(roi, shape)
        if max(ids.counts) > 1 << SPATIAL_BITS:
            raise ConfigError(
                f"--graph-chunk {shape} makes {ids.counts} chunks, and ids of the graph have room for "
                f"{1 << SPATIAL_BITS} along each axis: choose longer sides"
            )
        return ids

    @property
    def counts(self) -> Vec:
        """Chunks along each axis."""
        return self.roi.shape.ceil_div(self.shape)

    def chunks(self) -> Iterator[Triple]:
        """All chunks in the order of their ids."""
        z, y, x = map(range, self.counts)
        return ((c, b, a) for a, b, c in product(x, y, z))

    def box(self, chunk: Triple) -> BoundingBox:
        """The voxels of a chunk."""
        return BoundingBox.from_shape(self.shape, self.roi.start + self.shape * chunk).intersect(self.roi)

    def chunk_id(self, chunk: Triple) -> np.uint64:
        """The id of a chunk: that of its supervoxels without their number."""
        number = 1
        for place in chunk[::-1]:
            number = number << SPATIAL_BITS | place
        return np.uint64(number << COUNTER_BITS)

    def chunk_of(self, ids: np.ndarray) -> np.ndarray:
        """The id of the chunk of each supervoxel."""
        bits = np.uint64(COUNTER_BITS)
        found: np.ndarray = ids >> bits << bits
        return found

    def ids(self, chunk: Triple, count: int) -> np.ndarray:
        """The ids of the supervoxels of a chunk, uint64 (count,)."""
        return self.chunk_id(chunk) + np.arange(1, count + 1, dtype=np.uint64)

    def check_count(self, chunk: Triple, count: int) -> None:
        """``ConfigError`` if a chunk has more supervoxels than ids have bits for."""
        if count >= 1 << COUNTER_BITS:
            raise ConfigError(
                f"the chunk {self.box(chunk)} of the graph has {count:,} supervoxels, and ids have room for "
                f"{(1 << COUNTER_BITS) - 1:,}: choose shorter sides with --graph-chunk"
            )

    def ingest_config(self) -> str:
        """The part of an ingest's configuration that describes these files, as YAML."""
        return (
            "data_source:\n"
            "  EDGES: edges  # the places to which you copy these folders\n"
            "  COMPONENTS: components\n"
            "  WATERSHED: watershed\n"
            "graph_config:\n"
            f"  CHUNK_SIZE: [{', '.join(map(str, self.shape[::-1]))}]  # x, y, z\n"
            "  FANOUT: 2\n"
            f"  LAYER_ID_BITS: {LAYER_BITS}\n"
            f"  SPATIAL_BITS: {SPATIAL_BITS}\n"
        )
