"""The stored products of a finished run as rows, chunk by chunk: sums over parts of supervoxels and of contacts.

A supervoxel or contact that several chunks see has a row in each; all columns add up, except boxes, which unite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import ZERO, BoundingBox, Vec
from pipeline.grid import Chunk
from pipeline.runs.chain import build_chain
from pipeline.runs.run import Run
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.shapes.measures import Measures, measure
from pipeline.stages import opened
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import Relabel
from pipeline.stages.write_supervoxels import WriteSupervoxels

NEEDED = (BuildRegionGraph, Agglomerate, AssignSegments, WriteSupervoxels, Relabel)
"""The stages whose products are handed on."""
SUPERVOXELS = WriteSupervoxels.volumes[0].name

SUPERVOXEL = np.dtype(
    [("id", "u8"), ("segment", "u8"), ("voxels", "i8"), ("sums", "i8", 3), ("low", "i8", 3), ("high", "i8", 3)]
)
"""A part of a supervoxel: sums of the positions of its voxels, its first and its last voxel, z y x."""
CONTACT = np.dtype([("a", "u8"), ("b", "u8"), ("faces", "i8", 3), ("places", "i8", 3), ("count", "i8"), ("sum", "i8")])
"""A part of a contact of two supervoxels, a < b: voxel faces across each axis, sums of twice the positions of their
centres, affinities and their sum, 0..255 each."""
VALUE = np.dtype([("a", "u8"), ("b", "u8"), ("value", "u1"), ("count", "i8")])
"""How often an affinity occurs on a contact; only runs with quantile linkage have these rows."""


class Part(NamedTuple):
    """What a chunk knows."""

    supervoxels: np.ndarray
    """``SUPERVOXEL`` (n,)"""
    contacts: np.ndarray
    """``CONTACT`` (m,)"""
    values: np.ndarray
    """``VALUE`` (v,)"""


@dataclass(frozen=True)
class Source:
    """A finished run with a merge tree."""

    run: Run
    tree: Agglomerate

    @classmethod
    def of(cls, run: Run, to: str) -> Source:
        """Check a run; ``ConfigError`` if it has no supervoxels, or is not finished. ``to``: the format's name."""
        if run.kind.name != "neurons":
            raise ConfigError(
                f"{run.source} makes {run.kind.words}, and --to {to} hands on supervoxels and their merge tree, which "
                f"only runs of neurons have: export its volume, or take the tables of `{run.hint('add', 'measures')}`"
            )
        stages = {stage.name: stage for stage in build_chain(run.setup)}
        for needed in NEEDED:
            if not run.is_complete(stages[needed.name]):
                raise ConfigError(
                    f"{run.source} has not finished {needed.name} under this configuration, and only finished runs "
                    f"are handed on: first `{run.command}`"
                )
        tree = stages[Agglomerate.name]
        assert isinstance(tree, Agglomerate)
        return cls(run, tree)

    @property
    def layout(self) -> Layout:
        """The voxels of the run."""
        return self.run.layout

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader must know about the run; nothing that depends on its chunks."""
        layout, linkage = self.layout, self.tree.linkage
        return {
            "resolution_nm": list(layout.resolution_nm),
            "bounds": [list(layout.bounds.start), list(layout.bounds.stop)],
            "region_of_interest": [list(layout.roi.start), list(layout.roi.stop)],
            "linkage": linkage.kind,
            **({"quantile": linkage.quantile} if linkage.needs_histograms else {}),
            "stop_score": self.tree.stop_score,
            "threshold": self.run.threshold,
        }

    def parts(self) -> Iterator[tuple[Chunk, Part]]:
        """What each chunk knows, in the order of chunks."""
        for chunk in self.layout.grid((ZERO, Vec(1, 1, 1))):
            yield chunk, self._part(chunk)

    def merges(self) -> Iterator[np.ndarray]:
        """The merges of each node of the tree, ``MERGE`` (n,)."""
        for chunk in (chunk for grid in self.tree.grids() for chunk in grid):
            yield self.tree.merges(chunk)

    def first_voxels(self, ids: np.ndarray) -> np.ndarray:
        """The first voxel of each supervoxel, z y x: int64 (n, 3). An id is one more than its linear index."""
        bounds = self.layout.bounds
        places = np.stack(np.unravel_index((ids - np.uint64(1)).astype(np.int64), bounds.shape), axis=1)
        return places + np.array(bounds.start, np.int64)

    def segments(self, box: BoundingBox, supervoxels: np.ndarray) -> dict[int, int]:
        """The segment of each supervoxel of a box, as the result has it; ``supervoxels``: its voxels, (z, y, x)."""
        import fastremap

        labels = opened.source(self.run.result_url).read(box)
        found = fastremap.component_map(np.ascontiguousarray(supervoxels), labels)
        return {int(supervoxel): int(segment) for supervoxel, segment in found.items()}

    def _part(self, chunk: Chunk) -> Part:
        voxels = self.layout.read(SUPERVOXELS, chunk.read_box)
        measures = measure(voxels, chunk.core, self.layout.roi)
        segment_of = self.segments(chunk.core, voxels[chunk.core.slices(chunk.core.start)])
        graph = RegionGraph.from_arrays(self.layout.get_part(BuildRegionGraph.name, chunk))
        table = self.layout.get_part(AssignSegments.name, chunk)
        regions = table["supervoxel"][np.searchsorted(table["fragment"], graph.regions)]
        contacts, values = _contacts(graph, regions)
        return Part(_supervoxels(measures, segment_of), np.concatenate([_faces(measures), contacts]), values)


def _supervoxels(measures: Measures, segment_of: Mapping[int, int]) -> np.ndarray:
    """The rows of the supervoxels that have voxels in a chunk."""
    here = measures.voxels > 0
    rows = np.zeros(int(here.sum()), SUPERVOXEL)
    rows["id"] = measures.ids[here]
    for name in ("voxels", "sums", "low", "high"):
        rows[name] = getattr(measures, name)[here]
    rows["segment"] = [segment_of[name] for name in rows["id"].tolist()]
    return rows


def _faces(measures: Measures) -> np.ndarray:
    rows = np.zeros(len(measures.pairs), CONTACT)
    rows["a"], rows["b"] = measures.pairs.T
    rows["faces"], rows["places"] = measures.areas, measures.places
    return rows


def _contacts(graph: RegionGraph, supervoxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The affinities of the contacts of a region graph, whose regions belong to ``supervoxels``, uint64 (n,)."""
    ends = np.sort(supervoxels[graph.edges], axis=1).reshape(-1, 2)
    apart = ends[:, 0] != ends[:, 1]
    rows = np.zeros(int(apart.sum()), CONTACT)
    rows["a"], rows["b"] = ends[apart].T
    rows["count"], rows["sum"] = graph.counts[apart], graph.sums[apart]
    if not graph.has_histograms:
        return rows, np.zeros(0, VALUE)
    edge = np.repeat(np.arange(len(ends)), np.diff(graph.offsets))
    values = np.zeros(len(edge), VALUE)
    values["a"], values["b"] = ends[edge].T
    values["value"], values["count"] = graph.values, graph.value_counts
    return rows, values[apart[edge]]
