"""Basins -> the result: the id of its object for every voxel above the threshold, or a mask of these voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.grid import Chunk
from pipeline.segmentation.objects.union import write_objects
from pipeline.stages.assign_objects import AssignObjects
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.landscape import object_rules
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.valued_head import ValuedHead


@dataclass(frozen=True)
class WriteObjects(ChainStage):
    """Basins -> objects (uint64, 0 = none)."""

    layout: Layout
    head: ValuedHead
    threshold: int
    """Voxels of an object have a larger stored number than this."""
    upstream: str

    name = "write_objects"
    reads = (ExtractBasins.name, AssignObjects.name)
    volumes = (OutputVolume("objects", "uint64"),)
    has_part = False
    kind: ClassVar[str] = "objects"

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that ends in this kind of result and has basins."""
        table = before.get(AssignObjects.name)
        if table is None or setup.config.segmentation.kind != cls.kind:
            return None
        basins = before[ExtractBasins.name]
        assert isinstance(basins, ExtractBasins)
        rules = object_rules(basins.landscape.head, setup.config.segmentation)
        return cls(setup.layout, basins.landscape.head, rules.mask, table.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The table that is applied; the threshold is part of it."""
        return (self.upstream,)

    def beside_inputs(self) -> tuple[str, ...]:
        """Voxels and grid, the head and the threshold; the rest is in basins and table of the same chunk."""
        return self.layout.fingerprint, str(self.head.identity), str(self.threshold)

    def read(self, chunk: Chunk) -> tuple[np.ndarray, ...]:
        """Basins and landscape of the core, and the table of the chunk."""
        table = self.layout.get_part(AssignObjects.name, chunk)
        return self.layout.read("basins", chunk.core), self.head.read(chunk.core), table["fragment"], table["segment"]

    def compute(self, chunk: Chunk, inputs: tuple[np.ndarray, ...]) -> tuple[Products, dict[str, float]]:
        """Give every voxel above the threshold the id of its object."""
        basins, heights, fragments, objects = inputs
        found = write_objects(basins, heights, fragments, objects, self.threshold)
        return {self.volumes[0].name: self.voxels(found)}, {}

    def voxels(self, objects: np.ndarray) -> np.ndarray:
        """What is stored of objects, uint64 (z, y, x)."""
        return objects


class WriteMask(WriteObjects):
    """Basins -> a mask (uint8, 1 = within a piece that is large enough, 0 elsewhere)."""

    name = "write_mask"
    volumes = (OutputVolume("mask", "uint8"),)
    kind = "mask"

    def voxels(self, objects: np.ndarray) -> np.ndarray:
        """See ``WriteObjects``."""
        return (objects != 0).astype(np.uint8)
