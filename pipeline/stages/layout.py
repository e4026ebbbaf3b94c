"""The places of a run's files, and the part of its configuration that all stages share.

<run>/run.yaml                 the configuration as it was run, with absolute paths
<run>/affinities.zarr          volumes: one for each head of the network, and those of the stages that write voxels
<run>/fragments.zarr
<run>/supervoxels.zarr
<run>/labels.zarr
<run>/parts/<stage>/<chunk>    small arrays, one object for each chunk
<run>/ledger/<stage>/          the completed chunks, with checksums
<run>/environments/            the digest of what the first worker's network computes
<run>/precisions/              which precision was faster when the run began, if it was to be measured
<run>/report/                  tables and pictures
<run>/meshes/                  meshes of neurons, if the run file asks for them
<run>/skeletons/               their skeletons, if it asks for those
<run>/tables/                  tables of neurons, contacts and organelles, in the same way
<run>/beside/<name>/           of a segmentation beside the first, as <run>/<name>.zarr: ``LayoutBeside``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ZERO, Chunk, ChunkGrid
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.volumes import create_volume, describe_volume
from pipeline.volumes.base import VolumeSpec

BESIDE = "beside"
"""The folder in a run directory that holds what belongs to segmentations beside the first."""


@dataclass(frozen=True)
class Layout:
    """The voxels of a run and the places of its outputs."""

    run_url: str
    bounds: BoundingBox
    roi: BoundingBox
    chunk_shape: Vec
    storage_chunk_shape: Vec
    resolution_nm: tuple[float, float, float]

    @property
    def fingerprint(self) -> str:
        """Digest of the voxels and the grid; the place of the run directory has no effect."""
        boxes = [self.bounds.start, self.bounds.stop, self.roi.start, self.roi.stop]
        return fingerprint(boxes, self.chunk_shape, self.storage_chunk_shape, self.resolution_nm)

    def grid(self, halo: tuple[Vec, Vec] = (ZERO, ZERO)) -> ChunkGrid:
        """The grid of level 0 chunks, read with this halo."""
        return ChunkGrid(self.bounds, self.roi, self.chunk_shape, halo)

    def home(self, stage: str) -> str:
        """The URL of the folder that holds a stage's parts and records."""
        return self.run_url

    def volume_url(self, name: str) -> str:
        """The URL of an output volume."""
        return f"{self.run_url}/{name}.zarr"

    def create_volume(
        self, name: str, dtype: str, channels: int | None = None, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Create an output volume over the dataset's bounds; if it exists, only ``attributes`` are added.

        attributes: what its metadata say beside type and place.
        """
        spec = VolumeSpec(self.bounds, self.resolution_nm, np.dtype(dtype), channels, self.storage_chunk_shape)
        create_volume(self.volume_url(name), spec)
        if attributes:
            describe_volume(self.volume_url(name), attributes)

    def read(self, name: str, box: BoundingBox) -> np.ndarray:
        """Voxels of an output volume."""
        return opened.volume(self.volume_url(name)).read(box)

    def write(self, name: str, box: BoundingBox, data: np.ndarray) -> None:
        """Store voxels of an output volume."""
        opened.volume(self.volume_url(name)).write(box, data)

    def put_part(self, stage: str, chunk: Chunk, arrays: Mapping[str, np.ndarray]) -> None:
        """Store the small arrays of one chunk, all or nothing."""
        opened.store(self.home(stage)).put_arrays(part_key(stage, chunk), dict(arrays))

    def get_part(self, stage: str, chunk: Chunk) -> Products:
        """The small arrays of one chunk."""
        return opened.store(self.home(stage)).get_arrays(part_key(stage, chunk))

    def get_from_parts(self, stage: str, chunks: Sequence[Chunk], name: str) -> Sequence[np.ndarray | None]:
        """The small array of this name of each of these chunks; ``None`` for a chunk that has none."""
        store = opened.store(self.home(stage))
        return store.each(lambda chunk: store.get_array(part_key(stage, chunk), name), chunks)


@dataclass(frozen=True)
class LayoutBeside(Layout):
    """The layout of a second segmentation in a run directory: it has stages of its own, and shares all others.

    <run>/<name>.zarr             its labels
    <run>/beside/<name>/          parts and ledger of its own stages, its configuration and its report
    """

    name: str = ""
    own: tuple[str, ...] = ()
    """Names of the stages that belong to it alone."""
    volumes: tuple[str, ...] = ()
    """Names of the volumes that these write; here they have the name of the segmentation."""

    def home(self, stage: str) -> str:
        """See ``Layout``."""
        return f"{self.run_url}/{BESIDE}/{self.name}" if stage in self.own else self.run_url

    def volume_url(self, name: str) -> str:
        """See ``Layout``."""
        return super().volume_url(self.name if name in self.volumes else name)


def part_key(stage: str, chunk: Chunk) -> str:
    """The object that holds the small arrays of one chunk."""
    return f"parts/{stage}/{chunk.name}"
