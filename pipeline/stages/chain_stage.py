"""A stage of a run's chain, which states what it reads, what it writes and what its products depend on.

From these statements follow the order of the stages, their fingerprints, their output volumes, how a chunk is stored
and loaded again, and what ``petaseg plan`` counts. ``pipeline.runs.chain`` lists the stages.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages import opened
from pipeline.stages.base import Products, Stage
from pipeline.stages.extent import Extent, Region
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class OutputVolume:
    """A volume that a stage writes, over the bounds of the dataset."""

    name: str
    dtype: str
    channels: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What its metadata say beside that."""

    @property
    def bytes_per_voxel(self) -> int:
        """Uncompressed bytes; label volumes compress to a few percent of this."""
        return np.dtype(self.dtype).itemsize * (self.channels or 1)


class ChainStage(Stage):
    """A stage that a run's chain can hold.

    A product that is named like one of ``outputs`` is stored as the voxels of the chunk's core in that volume; all
    other products of a chunk are small arrays, stored together as one object, its part.
    """

    layout: Layout

    reads: ClassVar[tuple[str, ...]] = ()
    """Names of the stages that come before this one: it reads their products, or its fingerprint holds theirs."""
    volumes: ClassVar[tuple[OutputVolume, ...]] = ()
    """The volumes that this stage writes in every run, and no other stage."""
    has_part: ClassVar[bool] = True
    """True if a chunk also has small arrays."""
    publishes: ClassVar[bool] = False
    """True if readers see the products only when all of them are stored: ``publish`` and ``withdraw``."""
    algorithm: ClassVar[int] = 1
    """Raised by every change of the arithmetic, so that chunks of the old arithmetic are computed again."""

    @classmethod
    @abstractmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run; ``None`` if that run does not need it.

        before: the stages named in ``reads``, by name, as far as the run has them.
        """

    @abstractmethod
    def depends_on(self) -> Sequence[Any]:
        """All facts that affect the products, as plain values: fingerprints of inputs, rules, digests."""

    def beside_inputs(self) -> tuple[str, ...] | None:
        """All that the products of a chunk depend on beside what the stages in ``reads`` have for it (``box_read``).

        ``None`` if a chunk also reads other chunks. Where it is known, a chunk whose inputs are the same under another
        configuration keeps what it has stored: ``pipeline.runs.unchanged``.
        """
        return None

    def box_read(self, chunk: Chunk) -> BoundingBox | None:
        """The voxels that a chunk is made of, where they are those of several chunks of the stages in ``reads``.

        ``None`` if they are the chunk of the same index. Only asked where ``beside_inputs`` is known.
        """
        return None

    @property
    def fingerprint(self) -> str:
        """Digest of the stage's name, its arithmetic, and everything that it depends on."""
        return fingerprint(self.name, self.algorithm, *self.depends_on())

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid without halo, unless a stage overrides this."""
        return [self.layout.grid()]

    @property
    def outputs(self) -> tuple[OutputVolume, ...]:
        """The volumes that it writes in this run."""
        return self.volumes

    @property
    def bytes_uncompressed(self) -> int:
        """Bytes of the voxels that it writes, before compression; a stage whose parts are large counts them here."""
        return sum(volume.bytes_per_voxel for volume in self.outputs) * self.layout.roi.voxels

    def volume_names(self) -> tuple[str, ...]:
        """See ``Stage``."""
        return tuple(volume.name for volume in self.outputs)

    def prepare(self) -> None:
        """Create the output volumes."""
        for volume in self.outputs:
            self.layout.create_volume(volume.name, volume.dtype, volume.channels, volume.attributes)

    def documents(self) -> Mapping[str, Callable[[], bytes]]:
        """The whole files that ``publish`` writes: by key, what makes their bytes from the stored products."""
        return {}

    def altered(self) -> Iterator[str]:
        """See ``Stage``."""
        store = opened.store(self.layout.home(self.name))
        for key, make in self.documents().items():
            if store.get_or_none(key) != make():
                yield key

    def publish(self) -> None:
        """Let readers see the products, in the driver, once every chunk is stored; may be repeated."""

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """Take back what ``publish`` did, before anything that it depends on is written; may be repeated.

        It is also called for stages that a run does without, which an earlier configuration may have published.
        """

    @property
    def extent(self) -> Extent:
        """Where its chunks store something."""
        return Extent(self.layout, self.name, self.regions(), self.grids())

    def regions(self) -> tuple[Region, ...]:
        """What it writes of volumes: of each output the region of interest."""
        return tuple(Region(volume.name, self.layout.roi) for volume in self.outputs)

    def confine(self, may_write: Callable[[], None]) -> None:
        """See ``Stage``; nothing is looked for if the last driver had the same layout."""
        if not self.extent.is_confined:
            self.extent.confine(may_write)

    def strays(self) -> Iterator[str]:
        """See ``Stage``."""
        return self.extent.strays()

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the voxels of the core, and the small arrays all or nothing."""
        small = dict(products)
        for volume in self.outputs:
            self.layout.write(volume.name, chunk.core, small.pop(volume.name))
        if self.has_part:
            self.layout.put_part(self.name, chunk, small)

    def load(self, chunk: Chunk) -> Products:
        """Load the stored products of a chunk."""
        voxels = {volume.name: self.layout.read(volume.name, chunk.core) for volume in self.outputs}
        return {**voxels, **(self.layout.get_part(self.name, chunk) if self.has_part else {})}


class TreeStage(ChainStage):
    """A stage over the tree of chunks: level 0 has the chunks, and each node above covers 2 x 2 x 2 nodes below."""

    def levels(self) -> list[ChunkGrid]:
        """The grids from the chunks up to the root."""
        return self.layout.grid().levels()

    def children(self, chunk: Chunk) -> list[Chunk]:
        """The chunks one level down that a node covers."""
        return self.levels()[chunk.level - 1].children(chunk)

    def parent(self, chunk: Chunk) -> Chunk | None:
        """The node one level up, or None at the root."""
        levels = self.levels()
        if chunk.level + 1 == len(levels):
            return None
        z, y, x = (i // 2 for i in chunk.index)
        return levels[chunk.level + 1].chunk((z, y, x))
