"""Labels -> the pieces of skeletons in every block that a chunk computes, and the voxels of its segments.

Blocks lie on a lattice of their own (``SkeletonLattice``), so pieces are the same whatever the chunks are. Labels with
fine voxels are made coarser first, as ``downsample`` does it; levels that are stored are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk
from pipeline.segmentation.pyramid import majority
from pipeline.segmentation.skeletons.rules import SkeletonRules
from pipeline.shapes.fragments import Fragment, VoxelCounts
from pipeline.shapes.lattice import enclosing
from pipeline.shapes.skeleton_lattice import SkeletonLattice
from pipeline.shapes.skeletons import block_pieces
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.layout import Layout
from pipeline.stages.pyramid import PyramidLevel, pyramid_levels
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup
from pipeline.stages.shapes import ExtractShapes, is_connected
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.write_objects import WriteMask, WriteObjects


@dataclass(frozen=True)
class ExtractSkeletons(ExtractShapes):
    """Labels -> pieces of skeletons."""

    lattice: SkeletonLattice
    steps: tuple[Vec, ...]
    """How the labels are made coarser, one step after another: 1 or 2 on each axis."""
    rules: SkeletonRules
    volume: str
    """The volume of the labels."""
    upstream: str
    """Fingerprint of the stage that writes it."""

    name = "extract_skeletons"
    reads = (Relabel.name, WriteObjects.name, WriteMask.name, TakeLabels.name)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run whose file has the table ``skeletons``."""
        table = setup.config.skeletons
        if table is None:
            return None
        stage = next(before[name] for name in cls.reads if name in before)
        lattice, steps = lattice_of(setup.layout, table.voxel_nm)
        rules = SkeletonRules(table.scale, table.const_nm)
        given = lattice, steps, rules, stage.outputs[0].name, stage.fingerprint
        return cls(setup.layout, table.smallest_voxels, *given, connected=is_connected(setup))

    def depends_on(self) -> Sequence[Any]:
        """The voxels and the grid, the labels, the lattice, the rules, and which segments are left out."""
        lattice = self.lattice.block, self.lattice.factor, self.rules.scale, self.rules.const_nm
        return self.layout.fingerprint, self.upstream, *lattice, self.smallest_voxels

    def read(self, chunk: Chunk) -> tuple[Vec, np.ndarray]:
        """The first voxel, and the labels of the core and of the blocks of a chunk."""
        boxes = [self.lattice.read_box(block.window) for block in self.lattice.blocks(chunk.core)]
        box = enclosing(iter([*boxes, chunk.core]))
        assert box is not None  # the core is read in any case
        return box.start, self.layout.read(self.volume, box)

    def compute(self, chunk: Chunk, inputs: tuple[Vec, np.ndarray]) -> tuple[Products, dict[str, float]]:
        """Find the pieces in every block, and count the voxels of the core."""
        start, labels = inputs
        counts = VoxelCounts.of(labels[chunk.core.slices(start)])
        small = self.known_small(labels, start)
        made = list(self._fragments(chunk, start, labels, small))
        return self.by_shard(made, counts), {"pieces": len(made)}

    def _fragments(self, chunk: Chunk, start: Vec, labels: np.ndarray, small: frozenset[int]) -> Iterator[Fragment]:
        """The pieces in the blocks of a chunk, without those of segments that are known to be small."""
        for block in self.lattice.blocks(chunk.core):
            coarse = self._coarser(labels[self.lattice.read_box(block.window).slices(start)], block.window.start)
            found = block_pieces(coarse, self.lattice, block, self.rules, lambda segment: segment not in small)
            for segment, piece in found:
                yield Fragment(segment, 0, block.index - self.lattice.first, piece.to_bytes())

    def _coarser(self, labels: np.ndarray, start: Vec) -> np.ndarray:
        """Labels as voxels of the lattice, of which ``start`` is the first one."""
        origin = self.lattice.read_box(BoundingBox(start, start + 1)).start
        for step in self.steps:
            labels, origin = majority(labels, step, origin), origin // step
        return labels


def lattice_of(layout: Layout, voxel_nm: float) -> tuple[SkeletonLattice, tuple[Vec, ...]]:
    """The lattice of a run and the steps to its voxels, whose shortest side is up to ``voxel_nm``."""
    levels = list(pyramid_levels(layout, 0))
    while min(levels[-1].next().resolution_nm) <= voxel_nm:
        levels.append(levels[-1].next())
    last: PyramidLevel = levels[-1]
    lattice = SkeletonLattice(layout.roi, last.roi, last.factor, last.resolution_nm)
    return lattice, tuple(level.step for level in levels[1:])
