"""A small real stage: it writes one object a chunk, and can be told to fail, to hang or to kill its process."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import ConfigError, StorageError
from pipeline.execution.base import node_name
from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.needs import Needs
from pipeline.stages.base import Products, Stage
from pipeline.storage import ObjectStore

WHOLE = BoundingBox((2, -3, 5), (14, 13, 25))
SHAPE = (4, 4, 5)
"""These shapes give 3 x 4 x 4 = 48 chunks; the two levels above have 8 and 1."""


@dataclass(frozen=True)
class ToyStage(Stage):
    """Distances of voxels from the origin, one object a chunk; above level 0 the sum over the chunks below.

    ``faults`` says what chunks do (by name): ``"fail"``, ``"config"``, ``"full"``, ``"read-only"``, ``"hang"``,
    ``"kill"``, ``"memory"``. With ``times`` only that many first tries fail, counted in the store over all processes.
    On ``bad_node`` every chunk fails.
    """

    store: ObjectStore
    roi: BoundingBox = WHOLE
    shape: tuple[int, int, int] = SHAPE
    level_count: int = 1
    version: int = 1
    """Part of the fingerprint; another version gives other voxels."""
    faults: Mapping[str, str] = field(default_factory=dict)
    times: int = 1_000_000
    name: str = "measure_distances"
    network: bool = False
    """True if the stage needs the workers that run networks."""
    bad_node: str = ""

    @property
    def fingerprint(self) -> str:
        """The digest of what decides the voxels; faults are no part of it, since mending them changes no voxel."""
        text = f"{self.name}:{self.roi}:{self.shape}:{self.level_count}:{self.version}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def grids(self) -> Sequence[ChunkGrid]:
        """The grids of all levels, from the voxels up."""
        return ChunkGrid(WHOLE, self.roi, self.shape).levels()[: self.level_count]

    def read(self, chunk: Chunk) -> np.ndarray:
        """Read the coordinates of the core, (3, z, y, x); above level 0 the sums of the children, (n,)."""
        self._misbehave(chunk)
        if chunk.level == 0:
            axes = (range(a, b) for a, b in zip(chunk.core.start, chunk.core.stop, strict=True))
            return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.int64)
        below = self.grids()[chunk.level - 1]
        return np.array([self.load(child)["total"] for child in below.children(chunk)])

    def compute(self, chunk: Chunk, inputs: np.ndarray) -> tuple[Products, dict[str, float]]:
        """Compute squared distances and their sum."""
        if chunk.level:
            return {"total": np.array(inputs.sum())}, {"sums": 1}
        distances = (inputs**2).sum(0) + self.version
        return {"distances": distances.astype(np.uint32), "total": np.array(distances.sum())}, {"corners": 8}

    def write(self, chunk: Chunk, products: Products) -> None:
        """Write one object."""
        self.store.put_arrays(self.key(chunk), products)

    def load(self, chunk: Chunk) -> Products:
        """Read the object."""
        return self.store.get_arrays(self.key(chunk))

    def needs(self) -> Needs:
        """The default needs."""
        return Needs(network=self.network)

    def key(self, chunk: Chunk) -> str:
        """The key under which a chunk is stored."""
        return f"toy/{chunk.name}.npz"

    def chunks(self, level: int = 0) -> list[Chunk]:
        """All chunks of a level."""
        return list(self.grids()[level])

    def stored(self) -> dict[str, bytes]:
        """Everything that the stage has stored, by key."""
        return {key: self.store.get(key) for key in self.store.list("toy/")}

    def _misbehave(self, chunk: Chunk) -> None:
        place = f"{node_name()}:{os.environ.get('PETASEG_POOL', '')}".encode()
        self.store.put(f"tries/{chunk.name}/{os.getpid()}-{time.monotonic_ns()}", place)
        if node_name() == self.bad_node:
            raise OSError(f"the disk of {self.bad_node} is gone")
        if self.tries(chunk) <= self.times and chunk.name in self.faults:
            misbehave(self.faults[chunk.name], chunk)

    def tries(self, chunk: Chunk) -> int:
        """The number of times that a chunk was begun, in any process."""
        return len(self.store.list(f"tries/{chunk.name}/"))

    def places(self) -> set[tuple[str, str]]:
        """Node and pool of every try since ``forget_tries``."""
        places = [self.store.get(key).decode().rpartition(":") for key in self.store.list("tries/")]
        return {(node, pool) for node, _, pool in places}

    def tried(self) -> dict[str, int]:
        """The number of times that each chunk was begun since ``forget_tries``, by name."""
        names = [key.split("/")[1] for key in self.store.list("tries/")]
        return {name: names.count(name) for name in names}

    def forget_tries(self) -> None:
        """Count tries from zero again."""
        for key in self.store.list("tries/"):
            self.store.delete(key)


def misbehave(fault: str, chunk: Chunk) -> None:
    """Do what the name of a fault says."""
    if fault == "fail":
        raise ValueError(f"chunk {chunk.name} cannot be computed")
    if fault == "config":
        raise ConfigError(f"chunk {chunk.name} has a wrong option")
    if fault in ("full", "read-only"):
        number = errno.ENOSPC if fault == "full" else errno.EROFS
        raise StorageError(f"cannot write chunk {chunk.name}") from OSError(number, os.strerror(number))
    if fault == "memory" and not os.environ.get("PETASEG_POOL", "").endswith("-large"):
        raise MemoryError(f"chunk {chunk.name} is too large")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(3600)
