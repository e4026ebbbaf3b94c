"""Fragments and affinities -> the region graph: which regions touch, and with which affinities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.config.run_file import Agglomeration
from pipeline.geometry import ZERO
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.agglomeration import Linkage
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.segmentation.region_graph import RegionGraph, build_region_graph
from pipeline.stages.affinities import AnyAffinities, affinity_source
from pipeline.stages.base import Products
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup


@dataclass(frozen=True)
class BuildRegionGraph(ChainStage):
    """Fragments and affinities -> regions, contacts and cuts of each chunk; one voxel before the core is read too."""

    layout: Layout
    affinities: AnyAffinities
    upstream: str
    histograms: bool
    """Whether the affinities of each contact are kept as a histogram, for quantile linkage."""
    across_sections: bool = True
    """False if regions of different sections are never one neuron: affinities between sections count as 0."""

    name = "build_region_graph"
    reads = (BlendHeads.name, ExtractSupervoxels.name)

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run with supervoxels, for the linkage of the run file."""
        if ExtractSupervoxels.name not in before:
            return None
        upstream = before[ExtractSupervoxels.name].fingerprint
        affinities = affinity_source(setup, before.get(BlendHeads.name))
        table = setup.config.agglomeration
        return cls(setup.layout, affinities, upstream, linkage_of(table).needs_histograms, table.across_sections)

    def depends_on(self) -> Sequence[Any]:
        """Fragments (and thereby affinities), whether histograms are kept and sections are apart, and far offsets."""
        apart, far = () if self.across_sections else ("sections are apart",), self.affinities.far
        return self.upstream, self.histograms, *apart, *(("far", far) if far else ())

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid with as much context on the low side as the affinities reach, mostly one voxel."""
        return [self.layout.grid((self.affinities.reach, ZERO))]

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fragments with their low neighbours, affinities and joins."""
        joins = self.layout.get_part(ExtractSupervoxels.name, chunk)["joins"]
        affinities = self.affinities.read_all(chunk.core)
        if not self.across_sections:
            affinities = np.concatenate([np.zeros_like(affinities[:1]), affinities[1:]])
        return self.layout.read("fragments", chunk.read_box), affinities, joins

    def compute(
        self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[Products, dict[str, float]]:
        """Count and sum the affinities on every contact."""
        fragments, affinities, joins = inputs
        graph = build_region_graph(
            fragments,
            affinities,
            joins,
            core=chunk.core,
            roi=self.layout.roi,
            bounds=self.layout.bounds,
            histograms=self.histograms,
            offsets=(*NEAREST, *self.affinities.far),
        )
        return graph.to_arrays(), {"contacts": len(graph.edges)}

    def graph(self, chunk: Chunk) -> RegionGraph:
        """The stored graph of a chunk."""
        return RegionGraph.from_arrays(self.load(chunk))


def linkage_of(table: Agglomeration) -> Linkage:
    """The linkage that a run file names."""
    return Linkage(table.linkage, table.quantile)
