"""Labels and their levels -> the mesh fragments of every block that a chunk computes, and the voxels of its segments.

Blocks lie on a lattice of their own (``MeshLattice``), so fragments are the same whatever the chunks are. Level of
detail n is made of level n of the labels; a run without coarser levels has the finest alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk
from pipeline.shapes.fragments import Fragment, VoxelCounts
from pipeline.shapes.lattice import DetailLevel, MeshLattice, enclosing
from pipeline.shapes.meshing import block_labels, mesh_block
from pipeline.shapes.multilod import encode_fragment
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.downsample import DownsampleResult
from pipeline.stages.layout import Layout
from pipeline.stages.pyramid import PyramidLevel, pyramid_levels
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup
from pipeline.stages.shapes import ExtractShapes, is_connected
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.write_objects import WriteMask, WriteObjects


@dataclass(frozen=True, eq=False)
class LevelVoxels:
    """The labels of a level that the blocks of a chunk need."""

    origin: Vec
    labels: np.ndarray
    """Unsigned integers (z, y, x)."""


@dataclass(frozen=True)
class ExtractMeshes(ExtractShapes):
    """Labels -> mesh fragments."""

    lattice: MeshLattice
    urls: tuple[str, ...]
    """Where the labels of each level are; they have no effect on the products."""
    upstream: str
    """Fingerprint of the stage that wrote the coarser levels, or else the labels."""

    name = "extract_meshes"
    algorithm = 2
    reads = (Relabel.name, WriteObjects.name, WriteMask.name, TakeLabels.name, DownsampleResult.name)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run whose file has the table ``meshes``."""
        if setup.config.meshes is None:
            return None
        result = next(before[name] for name in cls.reads if name in before)
        levels, urls = _levels(setup.layout, result.volumes[0].name, before.get(DownsampleResult.name))
        upstream = before.get(DownsampleResult.name, result).fingerprint
        lattice = MeshLattice(setup.layout.roi, levels)
        smallest, connected = setup.config.meshes.smallest_voxels, is_connected(setup)
        return cls(setup.layout, smallest, lattice, urls, upstream, connected=connected)

    def depends_on(self) -> Sequence[Any]:
        """The voxels and the grid, the labels, the levels of detail, and which segments are left out."""
        levels = [(level.factor, level.roi.start, level.roi.stop) for level in self.lattice.levels]
        return self.layout.fingerprint, self.upstream, levels, self.smallest_voxels

    def read(self, chunk: Chunk) -> list[LevelVoxels | None]:
        """The labels that the blocks of each level need; ``None`` for a level without a block. At level 0, the core."""
        return [self._read(level, chunk.core) for level in self.lattice.levels]

    def _read(self, level: DetailLevel, core: BoundingBox) -> LevelVoxels | None:
        boxes = [block.voxels for block in self.lattice.blocks(level, core)]
        box = enclosing(iter([*boxes, core] if level.number == 0 else boxes))
        if box is None:
            return None
        box = box.intersect(level.roi)
        return LevelVoxels(box.start, opened.volume(self.urls[level.number]).read(box))

    def compute(self, chunk: Chunk, inputs: list[LevelVoxels | None]) -> tuple[Products, dict[str, float]]:
        """Mesh every block, and count the voxels of the core."""
        finest = inputs[0]
        assert finest is not None  # the core is read in any case
        counts = VoxelCounts.of(finest.labels[chunk.core.slices(finest.origin)])
        small = self.known_small(finest.labels, finest.origin)
        made = [
            piece
            for level, found in zip(self.lattice.levels, inputs, strict=True)
            if found is not None
            for piece in self._fragments(level, chunk.core, found, small)
        ]
        return self.by_shard(made, counts), {"fragments": len(made)}

    def _fragments(
        self, level: DetailLevel, core: BoundingBox, found: LevelVoxels, small: frozenset[int]
    ) -> Iterator[Fragment]:
        """The fragments of the blocks of a level, without those of segments that are known to be small."""
        for block in self.lattice.blocks(level, core):
            labels = block_labels(found.labels, found.origin, block.voxels)
            meshes = mesh_block(labels, level.spacing, level.number > 0, lambda segment: segment not in small)
            position = block.index - self.lattice.base(level.number)
            for segment, mesh in meshes.items():
                yield Fragment(segment, level.number, position, encode_fragment(mesh, level.cells))


def _levels(
    layout: Layout, name: str, downsampled: ChainStage | None
) -> tuple[tuple[DetailLevel, ...], tuple[str, ...]]:
    """Levels of detail and the places of their labels, up to the first level with a single block."""
    if isinstance(downsampled, DownsampleResult):
        levels, urls = downsampled.levels, [downsampled.stored(name, level).url for level in downsampled.levels]
    else:
        levels, urls = pyramid_levels(layout, 0), [layout.volume_url(name)]
    found = tuple(map(_detail, levels))
    count = next((n for n, level in enumerate(found, 1) if level.first == level.last), len(found))
    return found[:count], tuple(urls[:count])


def _detail(level: PyramidLevel) -> DetailLevel:
    return DetailLevel(level.number, level.factor, level.roi, level.resolution_nm)
