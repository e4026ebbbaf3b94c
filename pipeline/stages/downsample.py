"""Volumes -> their coarser levels, chunk by chunk; level n + 1 is made of level n.

<run>/labels.zarr/1, 2, ...    of the result, the heads and the supervoxels, beside level 0
<run>/image.zarr/1, 2, ...     of the image, whose level 0 is the user's and is only read

A volume lists its levels when all of them are complete, and no longer once its voxels are to change. Each level has a
grid of its own, which begins at the level's first voxel: level n of the grid writes level n of the pyramid.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.pyramid import majority, mean, most_frequent
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.extent import Region
from pipeline.stages.layout import Layout
from pipeline.stages.predict_heads import PredictHeads
from pipeline.stages.pyramid import PyramidLevel, pyramid_levels
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.write_classes import WriteClasses
from pipeline.stages.write_objects import WriteMask, WriteObjects
from pipeline.stages.write_supervoxels import WriteSupervoxels
from pipeline.storage import ObjectStore
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.levels import StoredLevel, list_levels, make_group, remove_levels_above


@dataclass(frozen=True)
class Downsample(ChainStage):
    """Volumes -> their levels: the majority of a block of labels, the mean of a block of an image or a head.

    Zero does not count in a block of labels, and counts like any other class in a block of a class map.
    """

    layout: Layout
    levels: tuple[PyramidLevel, ...]
    """From level 0, which is only read."""
    sources: tuple[OutputVolume, ...]
    """The volumes of which levels are made."""
    upstream: str
    """Fingerprint of the stage that writes them, or of the image."""

    has_part = False
    publishes = True
    what: ClassVar[str]
    """Its word in ``downsample.volumes``."""
    reduce: ClassVar[Any] = staticmethod(majority)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run whose file has the table ``downsample`` and whose volumes have more than one chunk."""
        table = setup.config.downsample
        if table is None or not cls.is_wanted(table.volumes):
            return None
        levels, found = pyramid_levels(setup.layout, table.levels), cls.source(setup, before)
        if found is None and table.volumes is not None:
            raise ConfigError(
                f"downsample.volumes names {cls.what}, and this run has none: leave it out there, or leave "
                "downsample.volumes out for all that the run has"
            )
        return None if found is None or len(levels) == 1 else cls(setup.layout, levels, *found)

    @classmethod
    def is_wanted(cls, volumes: Sequence[str] | None) -> bool:
        """True if the run file names these volumes, or names none; supervoxels only if it names them."""
        return volumes is None or cls.what in volumes

    @classmethod
    @abstractmethod
    def source(cls, setup: Setup, before: Mapping[str, ChainStage]) -> tuple[tuple[OutputVolume, ...], str] | None:
        """``sources`` and ``upstream`` of a run; ``None`` if it has no such volume."""

    def depends_on(self) -> Sequence[Any]:
        """What is read, and the levels."""
        return self.upstream, self.beside_inputs()

    def beside_inputs(self) -> tuple[str, ...] | None:
        """Voxels and grid, the volumes and the levels."""
        plain = [[level.step, level.bounds.start, level.bounds.stop] for level in self.levels]
        return self.layout.fingerprint, fingerprint([volume.name for volume in self.sources], plain)

    def box_read(self, chunk: Chunk) -> BoundingBox:
        """The voxels of level 0 below a chunk; so level 2 is kept only where nothing below level 1 changes."""
        factor = self.levels[chunk.level].factor
        return BoundingBox(chunk.core.start * factor, chunk.core.stop * factor).intersect(self.layout.roi)

    def grids(self) -> Sequence[ChunkGrid]:
        """A grid for each level above 0, in voxels of that level."""
        shape = self.layout.chunk_shape
        return [ChunkGrid(level.bounds, level.roi, shape, level=level.number) for level in self.levels[1:]]

    def stored(self, name: str, level: PyramidLevel) -> StoredLevel:
        """A level of one of the volumes."""
        source = next(volume for volume in self.sources if volume.name == name)
        dtype, chunk = np.dtype(source.dtype), self.layout.storage_chunk_shape
        spec = VolumeSpec(level.bounds, level.resolution_nm, dtype, source.channels, chunk)
        return StoredLevel(self.layout.volume_url(name), level.number, spec)

    def stored_levels(self, name: str) -> list[StoredLevel]:
        """All levels of one of the volumes."""
        return [self.stored(name, level) for level in self.levels]

    def prepare(self) -> None:
        """Create the arrays of all levels, and delete those of levels that are not made any more."""
        for source in self.sources:
            for level in self.stored_levels(source.name)[1:]:
                level.create()
            remove_levels_above(self.layout.volume_url(source.name), self.levels[-1].number)

    def publish(self) -> None:
        """List the levels in the metadata of the volumes."""
        for source in self.sources:
            list_levels(self.layout.volume_url(source.name), self.stored_levels(source.name))

    @property
    def bytes_uncompressed(self) -> int:
        """See ``ChainStage``: those of all levels above the finest."""
        voxels = sum(level.roi.voxels for level in self.levels[1:])
        return sum(source.bytes_per_voxel for source in self.sources) * voxels

    def regions(self) -> tuple[Region, ...]:
        """See ``ChainStage``."""
        return tuple(
            Region(source.name, level.roi, self.stored(source.name, level))
            for source in self.sources
            for level in self.levels[1:]
        )

    def read(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """The voxels of the level below, of each volume."""
        box = self._below(chunk)
        return {source.name: self.read_level(source.name, chunk.level - 1, box) for source in self.sources}

    def read_level(self, name: str, number: int, box: BoundingBox) -> np.ndarray:
        """Voxels of a level."""
        return opened.volume(self.stored(name, self.levels[number]).url).read(box)

    def compute(self, chunk: Chunk, inputs: dict[str, np.ndarray]) -> tuple[Products, dict[str, float]]:
        """Make one voxel of each block."""
        start, step = self._below(chunk).start, self.levels[chunk.level].step
        return {name: self.reduce(voxels, step, start) for name, voxels in inputs.items()}, {}

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the voxels of the core in the level."""
        for name, voxels in products.items():
            opened.volume(self.stored(name, self.levels[chunk.level]).url).write(chunk.core, voxels)

    def load(self, chunk: Chunk) -> Products:
        """See ``Stage``."""
        return {source.name: self.read_level(source.name, chunk.level, chunk.core) for source in self.sources}

    def _below(self, chunk: Chunk) -> BoundingBox:
        """The voxels of the level below of which a chunk is made; none outside of the region of interest."""
        step, below = self.levels[chunk.level].step, self.levels[chunk.level - 1]
        return BoundingBox(chunk.core.start * step, chunk.core.stop * step).intersect(below.roi)


RESULTS: tuple[type[ChainStage], ...] = (Relabel, WriteObjects, WriteMask, WriteClasses, TakeLabels)
"""The stages that write the voxels of a result; a run has one of them."""


class DownsampleResult(Downsample):
    """Labels, objects, a mask or a class map -> their levels."""

    name = "downsample_result"
    reads = tuple(kind.name for kind in RESULTS)
    what = "result"

    @property
    def reduce(self) -> Any:
        """See ``Downsample``; the background is a class, too."""
        return most_frequent if self.sources == WriteClasses.volumes else majority

    @classmethod
    def source(cls, setup: Setup, before: Mapping[str, ChainStage]) -> tuple[tuple[OutputVolume, ...], str] | None:
        """See ``Downsample``."""
        stage = next(before[name] for name in cls.reads if name in before)
        return stage.outputs, stage.fingerprint

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """See ``ChainStage``."""
        _hide_levels(setup.layout, [kind.volumes[0].name for kind in RESULTS])


class DownsampleSupervoxels(Downsample):
    """Supervoxels -> their levels; only where the run file names them."""

    name = "downsample_supervoxels"
    reads = (WriteSupervoxels.name,)
    what = "supervoxels"

    @classmethod
    def is_wanted(cls, volumes: Sequence[str] | None) -> bool:
        """See ``Downsample``."""
        return volumes is not None and cls.what in volumes

    @classmethod
    def source(cls, setup: Setup, before: Mapping[str, ChainStage]) -> tuple[tuple[OutputVolume, ...], str] | None:
        """See ``Downsample``."""
        stage = before.get(WriteSupervoxels.name)
        return None if stage is None else (stage.outputs, stage.fingerprint)

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """See ``ChainStage``."""
        _hide_levels(setup.layout, [WriteSupervoxels.volumes[0].name])


class DownsampleHeads(Downsample):
    """The heads that a network predicted -> their levels; heads that were given stay as they are."""

    name = "downsample_heads"
    reads = (PredictHeads.name,)
    what = "heads"
    reduce = staticmethod(mean)

    @classmethod
    def source(cls, setup: Setup, before: Mapping[str, ChainStage]) -> tuple[tuple[OutputVolume, ...], str] | None:
        """See ``Downsample``."""
        stage = before.get(PredictHeads.name)
        return None if stage is None else (stage.outputs, stage.fingerprint)

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """See ``ChainStage``."""
        network = setup.inputs.network
        _hide_levels(setup.layout, [] if network is None else [head.name for head in network.heads])


@dataclass(frozen=True)
class DownsampleImage(Downsample):
    """The image -> its levels."""

    image_url: str = ""

    name = "downsample_image"
    volumes = (OutputVolume("image", "uint8"),)
    what = "image"
    reduce = staticmethod(mean)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage with the place of the image, which has no effect on its products."""
        made = super().of(setup, before)
        return None if made is None else replace(made, image_url=setup.inputs.image_url or "")

    @classmethod
    def source(cls, setup: Setup, before: Mapping[str, ChainStage]) -> tuple[tuple[OutputVolume, ...], str] | None:
        """See ``Downsample``."""
        inputs = setup.inputs
        if inputs.image_url is None:
            return None
        spec = inputs.spec if inputs.image_url == inputs.url else opened.source(inputs.image_url).spec
        volume = OutputVolume(cls.volumes[0].name, spec.dtype.name, spec.channels)
        return (volume,), inputs.image_fingerprint

    def stored_levels(self, name: str) -> list[StoredLevel]:
        """All levels but the finest, which is elsewhere."""
        return [self.stored(name, level) for level in self.levels[1:]]

    @property
    def outputs(self) -> tuple[OutputVolume, ...]:
        """The image in the run directory, which has coarser levels only."""
        return self.sources

    def prepare(self) -> None:
        """Make the volume and its arrays."""
        make_group(self.layout.volume_url("image"))
        for level in self.stored_levels("image"):
            level.create()
        remove_levels_above(self.layout.volume_url("image"), self.levels[-1].number)

    def depends_on(self) -> Sequence[Any]:
        """The image and the levels."""
        return self.upstream, super().beside_inputs()

    def beside_inputs(self) -> None:
        """Nothing is known of the chunks of the image."""

    def read_level(self, name: str, number: int, box: BoundingBox) -> np.ndarray:
        """Voxels of a level; those of the finest are the user's."""
        return opened.source(self.image_url).read(box) if number == 0 else super().read_level(name, number, box)

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """See ``ChainStage``: the volume stays, and lists no level."""
        url = setup.layout.volume_url("image")
        if ObjectStore(url).exists("zarr.json"):
            list_levels(url, [])


def _hide_levels(layout: Layout, names: Sequence[str]) -> None:
    """List only level 0 of volumes, of those that are there and list more."""
    from pipeline.volumes import open_volume

    for name in names:
        url = layout.volume_url(name)
        if ObjectStore(url).exists("zarr.json"):
            list_levels(url, [StoredLevel(url, 0, open_volume(url, mode="r+").spec)])
