"""What stages of shapes have in common: chunks store fragments by shard, and each shard becomes a file.

    part of a chunk          shard_<n>: an npz of the fragments and voxels of the segments of shard n
    <run>/<folder>/info      written when all shards are complete, and deleted before a label changes
    <run>/<folder>/<n>.shard the shapes of the segments of one shard; written whole, also if there are none

A unit of work of the second stage is a shard, so memory is bounded by what one shard holds.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.shapes.fragments import Fragment, Fragments, VoxelCounts
from pipeline.shapes.shards import Sharding, pack_shard
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.layout import Layout, part_key
from pipeline.stages.setup import Setup
from pipeline.storage import ObjectStore
from pipeline.storage.arrays import pack_arrays, unpack_arrays

SHARD = re.compile(r"[0-9a-f]+\.shard")


@dataclass(frozen=True)
class ExtractShapes(ChainStage):
    """Labels -> fragments of shapes, and the voxels of segments."""

    layout: Layout
    smallest_voxels: int
    """Segments of fewer voxels get no shape."""
    connected: bool = field(default=False, kw_only=True)
    """Whether a segment that touches no face of a box cannot go on elsewhere; it has no effect on what is published."""

    def known_small(self, labels: np.ndarray, start: Vec) -> frozenset[int]:
        """The segments of labels, which begin at ``start``, that have fewer voxels in the whole region of interest."""
        box = BoundingBox.from_shape(labels.shape, start)
        if not self.connected and box != self.layout.roi:
            return frozenset()
        return VoxelCounts.within(labels, box, self.layout.roi).below(self.smallest_voxels)

    @property
    def sharding(self) -> Sharding:
        """How segments are spread over files; the region of interest decides."""
        return Sharding.of(self.layout.roi.voxels)

    def by_shard(self, made: Sequence[Fragment], counts: VoxelCounts) -> Products:
        """The part: of each shard that has any, its fragments and voxels."""
        pieces: defaultdict[int, list[Fragment]] = defaultdict(list)
        names = np.array([piece.segment for piece in made], np.uint64)
        for shard, piece in zip(self.sharding.shard_of(names).tolist(), made, strict=True):
            pieces[shard].append(piece)
        shards = self.sharding.shard_of(counts.segments)
        return {
            member(shard): np.frombuffer(
                pack_arrays({**Fragments.of(pieces[shard]).to_arrays(), **counts.chosen(shards == shard).to_arrays()}),
                np.uint8,
            )
            for shard in sorted({*pieces, *shards.tolist()})
        }


@dataclass(frozen=True)
class WriteShapes(ChainStage):
    """Fragments -> shards of whole shapes."""

    layout: Layout
    fragments: ExtractShapes

    has_part = False
    publishes = True
    folder: ClassVar[str]
    """Of the run directory."""

    def depends_on(self) -> Sequence[Any]:
        """The fragments."""
        return (self.fragments.fingerprint,)

    def grids(self) -> Sequence[ChunkGrid]:
        """One chunk for each shard, along x."""
        every = BoundingBox.from_shape((1, 1, self.fragments.sharding.count))
        return [ChunkGrid(every, every, Vec(1, 1, 1))]

    def read(self, chunk: Chunk) -> list[Mapping[str, np.ndarray]]:
        """What the chunks of the run have stored for a shard."""
        source, name = self.fragments, member(chunk.index.x)
        store = opened.store(self.layout.home(source.name))
        keys = [part_key(source.name, each) for each in source.grids()[0]]
        parts = zip(keys, store.each(lambda key: store.get_array(key, name), keys), strict=True)
        return [unpack_arrays(found.tobytes(), key) for key, found in parts if found is not None]

    def compute(self, chunk: Chunk, inputs: list[Mapping[str, np.ndarray]]) -> tuple[Products, dict[str, float]]:
        """Join the fragments of each segment that is large enough."""
        counts = VoxelCounts.sum(VoxelCounts.from_arrays(part) for part in inputs)
        kept = counts.at_least(self.fragments.smallest_voxels)
        objects, more = self.joined([Fragments.from_arrays(part) for part in inputs], kept)
        return {"shard": np.frombuffer(pack_shard(objects), np.uint8), **more}, {self.folder: len(objects)}

    @abstractmethod
    def joined(
        self, parts: Sequence[Fragments], kept: frozenset[int]
    ) -> tuple[dict[int, tuple[bytes, bytes]], Products]:
        """What ``pack_shard`` takes, of the segments that are kept; and the small arrays of the shard."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What readers find in the file ``info``."""

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the file of the shard, and its small arrays."""
        small = dict(products)
        self.store.put(self._key(chunk), small.pop("shard").tobytes())
        super().write(chunk, small)

    def load(self, chunk: Chunk) -> Products:
        """See ``Stage``."""
        return {"shard": np.frombuffer(self.store.get(self._key(chunk)), np.uint8), **super().load(chunk)}

    def prepare(self) -> None:
        """Nothing: ``publish`` writes what is beside the shards."""

    def documents(self) -> Mapping[str, Callable[[], bytes]]:
        """See ``ChainStage``: the ``info``."""
        return {f"{self.folder}/info": lambda: json.dumps(self.info(), indent=1).encode()}

    def publish(self) -> None:
        """Write the ``info``, without which no reader finds the shards."""
        key = f"{self.folder}/info"
        self.store.put(key, self.documents()[key]())

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """Delete the ``info``."""
        opened.store(setup.layout.home(cls.name)).delete(f"{cls.folder}/info")

    def confine(self, may_write: Callable[[], None]) -> None:
        """See ``Stage``: shards that another region of interest has had are deleted."""
        if not self.extent.is_confined:
            for key in self._stray_shards():
                may_write()
                self.store.delete(key)
        super().confine(may_write)

    def strays(self) -> Iterator[str]:
        """See ``Stage``."""
        yield from self._stray_shards()
        yield from super().strays()

    @property
    def store(self) -> ObjectStore:
        """Where the folder is."""
        return opened.store(self.layout.home(self.name))

    def _key(self, chunk: Chunk) -> str:
        return f"{self.folder}/{self.fragments.sharding.file_name(chunk.index.x)}"

    def _stray_shards(self) -> Iterator[str]:
        mine, folder = {self._key(chunk) for chunk in self.grids()[0]}, f"{self.folder}/"
        for key in self.store.list(folder):
            if SHARD.fullmatch(key.removeprefix(folder)) and key not in mine:
                yield key


def is_connected(setup: Setup) -> bool:
    """True if each segment of a run hangs together: not if somebody gave the labels, or far voxels were joined."""
    config = setup.config
    return config.input.labels is None and not config.agglomeration.far_offsets


def member(shard: int) -> str:
    """The name of a shard's bytes in the part of a chunk."""
    return f"shard_{shard}"
