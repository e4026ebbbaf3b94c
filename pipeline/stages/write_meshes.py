"""Mesh fragments of all chunks -> the meshes of neurons, one shard after another, as Neuroglancer reads them.

    <run>/meshes/info           written when all shards are complete, and deleted before a label changes
    <run>/meshes/<n>.shard      the meshes of the neurons of one shard; written whole, also if there are none

A unit of work is a shard, so memory is bounded by what one shard holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.shapes.fragments import Fragments, VoxelCounts, by_segment
from pipeline.shapes.multilod import Meshes
from pipeline.shapes.shards import pack_shard
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_meshes import ExtractMeshes, member
from pipeline.stages.layout import Layout, part_key
from pipeline.stages.setup import Setup
from pipeline.storage import ObjectStore
from pipeline.storage.arrays import unpack_arrays

FOLDER = "meshes"
SHARD = re.compile(rf"{FOLDER}/[0-9a-f]+\.shard")


@dataclass(frozen=True)
class WriteMeshes(ChainStage):
    """Fragments -> shards of whole meshes."""

    layout: Layout
    fragments: ExtractMeshes

    name = "write_meshes"
    reads = (ExtractMeshes.name,)
    has_part = False
    publishes = True

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has mesh fragments."""
        found = before.get(ExtractMeshes.name)
        return cls(setup.layout, found) if isinstance(found, ExtractMeshes) else None

    def depends_on(self) -> Sequence[Any]:
        """The fragments."""
        return (self.fragments.fingerprint,)

    def grids(self) -> Sequence[ChunkGrid]:
        """One chunk for each shard, along x."""
        every = BoundingBox.from_shape((1, 1, self.fragments.sharding.count))
        return [ChunkGrid(every, every, Vec(1, 1, 1))]

    def read(self, chunk: Chunk) -> list[Mapping[str, np.ndarray]]:
        """What the chunks of the run have stored for a shard."""
        store, name = opened.store(self.layout.home(ExtractMeshes.name)), member(chunk.index.x)
        keys = [part_key(ExtractMeshes.name, each) for each in self.fragments.grids()[0]]
        parts = zip(keys, store.each(lambda key: store.get_array(key, name), keys), strict=True)
        return [unpack_arrays(found.tobytes(), key) for key, found in parts if found is not None]

    def compute(self, chunk: Chunk, inputs: list[Mapping[str, np.ndarray]]) -> tuple[Products, dict[str, float]]:
        """Join the fragments of each neuron that is large enough."""
        counts = VoxelCounts.sum(VoxelCounts.from_arrays(part) for part in inputs)
        kept, lattice = counts.at_least(self.fragments.smallest_voxels), self.fragments.lattice
        found = by_segment(map(Fragments.from_arrays, inputs), kept, len(lattice.levels))
        meshes = Meshes(lattice, self.layout.resolution_nm)
        objects = {segment: meshes.assemble(levels) for segment, levels in found.items() if any(levels[0].values())}
        return {"shard": np.frombuffer(pack_shard(objects), np.uint8)}, {"meshes": len(objects)}

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the file of the shard."""
        self._store.put(self._key(chunk), products["shard"].tobytes())

    def load(self, chunk: Chunk) -> Products:
        """See ``Stage``."""
        return {"shard": np.frombuffer(self._store.get(self._key(chunk)), np.uint8)}

    def prepare(self) -> None:
        """Nothing: ``publish`` writes what is beside the shards."""

    def publish(self) -> None:
        """Write the ``info``, without which no reader finds the shards."""
        info = Meshes(self.fragments.lattice, self.layout.resolution_nm).info(self.fragments.sharding.specification())
        self._store.put(f"{FOLDER}/info", json.dumps(info, indent=1).encode())

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """Delete the ``info``."""
        opened.store(setup.layout.home(cls.name)).delete(f"{FOLDER}/info")

    def confine(self, may_write: Callable[[], None]) -> None:
        """See ``Stage``: shards that another region of interest has had are deleted."""
        if not self.extent.is_confined:
            for key in self._stray_shards():
                may_write()
                self._store.delete(key)
        super().confine(may_write)

    def strays(self) -> Iterator[str]:
        """See ``Stage``."""
        yield from self._stray_shards()
        yield from super().strays()

    @property
    def _store(self) -> ObjectStore:
        return opened.store(self.layout.home(self.name))

    def _key(self, chunk: Chunk) -> str:
        return f"{FOLDER}/{self.fragments.sharding.file_name(chunk.index.x)}"

    def _stray_shards(self) -> Iterator[str]:
        mine = {self._key(chunk) for chunk in self.grids()[0]}
        return (key for key in self._store.list(f"{FOLDER}/") if SHARD.fullmatch(key) and key not in mine)
