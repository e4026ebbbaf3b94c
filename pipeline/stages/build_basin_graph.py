"""Basins and their landscape -> the basin graph: which basins touch, at what height, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.objects.basin_graph import build_basin_graph
from pipeline.segmentation.objects.rules import LandscapeRules
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.landscape import Landscape
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class BuildBasinGraph(ChainStage):
    """Basins and landscape -> passes, sizes and cuts of each chunk; one voxel before the core is read too."""

    layout: Layout
    landscape: Landscape
    rules: LandscapeRules
    upstream: str

    name = "build_basin_graph"
    reads = (ExtractBasins.name,)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has basins."""
        basins = before.get(ExtractBasins.name)
        if basins is None:
            return None
        assert isinstance(basins, ExtractBasins)
        return cls(setup.layout, basins.landscape, basins.rules, basins.fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """Basins, and thereby heads, conditions and rules; and which voxels are neighbours."""
        return self.upstream, self.rules.of_basins, *self.rules.of_passes

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid with one voxel of context on the low side."""
        return [self.layout.grid(self.rules.context())]

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Basins and landscape with their low neighbours, where seeds may be, and joins."""
        box = chunk.read_box
        joins = self.layout.get_part(ExtractBasins.name, chunk)["joins"]
        return self.layout.read("basins", box), self.landscape.head.read(box), self.landscape.seeds(box), joins

    def compute(
        self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]
    ) -> tuple[Products, dict[str, float]]:
        """Find the highest pass of every contact."""
        graph = build_basin_graph(
            *inputs, core=chunk.core, roi=self.layout.roi, bounds=self.layout.bounds, rules=self.rules
        )
        return graph.to_arrays(), {}
