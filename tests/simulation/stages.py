"""A chain of two small stages: one writes two objects a chunk, the other climbs the tree of chunks over them.

Every product is a digest of the configuration and of what was read, so one stale or foreign byte shows everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages.base import Products, Stage
from pipeline.storage import ObjectStore
from tests.simulation.world import World


class Setting(NamedTuple):
    """The run file's settings: another first number recomputes everything, another second one only the tree."""

    paint: int = 1
    gather: int = 1


@dataclass(frozen=True)
class SimulatedStage(Stage):
    """The common part of both stages."""

    world: World = field(repr=False, compare=False)
    store: ObjectStore = field(repr=False, compare=False)
    grid: ChunkGrid
    setting: Setting

    def write(self, chunk: Chunk, products: Products) -> None:
        """Write an object for each product."""
        for name in sorted(products):
            self.store.put(self.key(name, chunk), products[name].tobytes())

    def load(self, chunk: Chunk) -> Products:
        """Read the objects."""
        return {name: self.get(name, chunk) for name in self.products}

    def get(self, name: str, chunk: Chunk) -> np.ndarray:
        """Read one object."""
        return np.frombuffer(self.store.get(self.key(name, chunk)), np.uint8)

    def key(self, name: str, chunk: Chunk) -> str:
        """Where a product of a chunk is stored."""
        return f"{name}/{chunk.name}"

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products."""
        raise NotImplementedError

    def misbehave(self, chunk: Chunk) -> None:
        """Fail, if that is the chunk's fate."""
        fault, times = self.world.faults.get((self.name, chunk.name), ("", 0))
        if times < 1 or (fault == "memory" and self.world.generous):
            return
        self.world.faults[self.name, chunk.name] = (fault, times - 1)
        self.world.tell("chunk fails", f"{self.name} {chunk.name}: {fault}")
        if fault == "kill":
            self.world.acting.die()
        if fault == "config":
            raise ConfigError(f"chunk {chunk.name} has a wrong option")
        if fault in ("memory", "more memory"):
            raise MemoryError("cannot allocate")
        raise ValueError(f"{chunk.name} cannot be computed")


@dataclass(frozen=True)
class PaintVoxels(SimulatedStage):
    """A stage that writes two objects a chunk and reads nothing."""

    name = "paint_voxels"
    products = ("edges", "voxels")

    @property
    def fingerprint(self) -> str:
        """The digest of the grid and the number."""
        return digest(self.name, self.grid.counts, self.setting.paint).hex()

    def grids(self) -> Sequence[ChunkGrid]:
        """The grid of the chunks."""
        return [self.grid]

    def read(self, chunk: Chunk) -> None:
        """Read nothing."""

    def compute(self, chunk: Chunk, inputs: None) -> tuple[Products, dict[str, float]]:
        """Compute digests of the chunk's place."""
        self.misbehave(chunk)
        return {name: array_of(name, self.setting.paint, chunk.index) for name in self.products}, {"painted": 1}


@dataclass(frozen=True)
class GatherTotals(SimulatedStage):
    """A stage that writes one object a node of the tree: a digest of those below it."""

    name = "gather_totals"
    products = ("totals",)

    @property
    def fingerprint(self) -> str:
        """The digest of the first stage and the number."""
        upstream = PaintVoxels(self.world, self.store, self.grid, self.setting)
        return digest(self.name, upstream.fingerprint, self.setting.gather).hex()

    def grids(self) -> Sequence[ChunkGrid]:
        """All levels, from the chunks to the whole."""
        return levels(self.grid)

    def read(self, chunk: Chunk) -> list[bytes]:
        """Read both objects of a chunk, or the totals of a node's children."""
        if chunk.level == 0:
            return [self.get(name, chunk).tobytes() for name in PaintVoxels.products]
        below = self.grids()[chunk.level - 1]
        return [self.get("totals", child).tobytes() for child in below.children(chunk)]

    def compute(self, chunk: Chunk, inputs: list[bytes]) -> tuple[Products, dict[str, float]]:
        """Compute the digest of everything that was read."""
        self.misbehave(chunk)
        return {"totals": array_of("totals", self.setting.gather, *inputs)}, {"read": len(inputs)}


def chain(world: World, store: ObjectStore, grid: ChunkGrid, setting: Setting) -> list[SimulatedStage]:
    """Both stages, in order."""
    return [PaintVoxels(world, store, grid, setting), GatherTotals(world, store, grid, setting)]


@cache
def levels(grid: ChunkGrid) -> list[ChunkGrid]:
    """A grid and all levels above it."""
    return grid.levels()


@cache
def chunks_of(grid: ChunkGrid) -> tuple[Chunk, ...]:
    """The chunks of a grid, made once because thousands of runs ask for them."""
    return tuple(grid)


def digest(*parts: object) -> bytes:
    """Sixteen bytes that depend on all arguments."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def array_of(*parts: object) -> np.ndarray:
    """The digest as an array."""
    return np.frombuffer(digest(*parts), np.uint8)
