"""The protocol of a stage: a small picklable value that lists its chunks and can process one of them.

    read(chunk)  ->  compute(chunk, inputs)  ->  write(chunk, products)       run_chunk = all three + a report
      I/O              pure, one at a time         I/O

The split lets an executor overlap the three and lets ``verify`` recompute a chunk without writing it. Products are
arrays with names; their checksum is taken over dtype, shape and bytes, so it does not depend on how they are stored.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.geometry import Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.needs import Needs
from pipeline.stages.timing import Laps, computing

Products = Mapping[str, np.ndarray]
"""Named arrays that one chunk produces; names are stable, order does not matter."""


@dataclass(frozen=True)
class ChunkReport:
    """The record of a finished chunk: proof (checksum) and provenance (seconds, counters)."""

    level: int
    index: Vec
    checksum: str
    """Hex digest of the products: ``checksum_of``."""
    seconds: float
    voxels: int
    bytes_written: int
    counters: dict[str, float] = field(default_factory=dict)
    """Numbers that a stage counts, for example patches run and skipped; summed over chunks for display."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds to ``read``, to ``wait`` for the compute slot, to ``compute``, to ``write``; and ``idle``, the seconds
    before it in which this process computed no chunk of the stage, as when a network waits for input. They are not
    recorded.
    """


def checksum_of(products: Products) -> str:
    """BLAKE2b-128 over the names, types, shapes and bytes of all products, in the order of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(products):
        array = np.ascontiguousarray(products[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def may_always_write() -> None:
    """Never raise; for a stage that runs without a lease."""


class Stage(ABC):
    """A step of the pipeline over a chunk grid.

    Stages are frozen dataclasses of configuration that are sent to workers; arrays are not sent. Volumes and models are
    opened once in a process, through the caches of ``stages/opened.py``.
    """

    name: str
    """verb_noun: the same word for file, Luigi task, ledger folder, log field and configuration table."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of everything that its products depend on: configuration, inputs, weights, algorithm version."""

    @abstractmethod
    def grids(self) -> Sequence[ChunkGrid]:
        """The grids in the order in which they must be finished: one, or in tree stages one for each level."""

    @abstractmethod
    def read(self, chunk: Chunk) -> Any:
        """Load the inputs of ``compute``, without arithmetic."""

    @abstractmethod
    def compute(self, chunk: Chunk, inputs: Any) -> tuple[Products, dict[str, float]]:
        """The products of one chunk and counters for display; a pure function of the inputs."""

    @abstractmethod
    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the products; may be repeated at any time with the same result."""

    @abstractmethod
    def load(self, chunk: Chunk) -> Products:
        """Read the stored products back, exactly as ``compute`` returned them."""

    def prepare(self) -> None:  # noqa: B027  (most stages need nothing)
        """Create output volumes, once, in the driver, before the first chunk; may be repeated."""

    def warm_up(self) -> None:  # noqa: B027
        """Do what a process does once before its first chunk of a stage with a network: load it and measure it."""

    def confine(self, may_write: Callable[[], None]) -> None:  # noqa: B027
        """Remove what an earlier configuration has stored where no chunk writes now; called after the old marks ended.

        may_write: called before each change; raises ``LeaseError`` if another driver has taken over.
        """

    def strays(self) -> Iterator[str]:
        """The keys, within the run directory, of what ``confine`` would remove."""
        return iter(())

    def altered(self) -> Iterator[str]:
        """The keys of published files that are missing, or that hold other bytes than the stored products give."""
        return iter(())

    def volume_names(self) -> tuple[str, ...]:
        """Names, within the run directory, of the volumes that it writes."""
        return ()

    def needs(self) -> Needs:
        """The needs of one chunk while it runs."""
        return Needs()

    def compute_slot(self) -> AbstractContextManager[Any]:
        """A context held during ``compute``; a stage that uses one device returns a lock, so that only I/O overlaps."""
        return nullcontext()

    def run_chunk(self, chunk: Chunk, may_write: Callable[[], None] = may_always_write) -> ChunkReport:
        """Read, compute and write one chunk; the report is returned after the data are stored.

        may_write: called before the products are stored; raises ``LeaseError`` if another driver has taken over.
        """
        laps = Laps()
        inputs = self.read(chunk)
        laps.lap("read")
        with self.compute_slot(), computing(self.name).inside() as idle:
            laps.lap("wait")
            products, counters = self.compute(chunk, inputs)
            laps.lap("compute")
        may_write()
        self.write(chunk, products)
        laps.lap("write")
        return ChunkReport(
            level=chunk.level,
            index=chunk.index,
            checksum=checksum_of(products),
            seconds=laps.total,
            voxels=chunk.core.voxels,
            bytes_written=sum(array.nbytes for array in products.values()),
            counters=counters,
            timings={**laps.seconds, "idle": idle},
        )


DEVICE_LOCK = threading.Lock()
"""The lock by which one network runs at a time in a process; other threads read and write meanwhile."""
