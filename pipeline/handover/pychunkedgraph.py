"""A run as PyChunkedGraph's ingest reads it: supervoxels cut at the chunks of the graph, and edges of each chunk.

    <folder>/watershed/                     precomputed layer: the cut supervoxels
    <folder>/edges/edges_x_y_z.proto.zst    edges of a chunk: in, between, cross
    <folder>/components/components_x_y_z.proto    which supervoxels of a chunk and its neighbours are one neuron
    <folder>/nodes.parquet                  for each cut supervoxel, the supervoxel and the neuron of the run
    <folder>/config.yml                     the configuration of the ingest, except for its services

1. ``cut``             number the supervoxels of each chunk of the graph, and write the layer
2. ``find_low_edges``  contacts within a chunk, and with the chunks before it along each axis
3. ``write_chunk``     what is known of a chunk from its own side and from the chunks behind it

Memory is bounded by a chunk of the graph. Chunks lie from the start of the region of interest on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.geometry import BoundingBox, Triple, Vec
from pipeline.handover.chunk_ids import ChunkIds
from pipeline.handover.chunk_messages import pack_components, pack_edges
from pipeline.handover.source import SUPERVOXELS, Source
from pipeline.segmentation.region_graph import RegionGraph, build_region_graph
from pipeline.segmentation.remap import apply_remap
from pipeline.shapes.measure_tables import table_of, write_parquet
from pipeline.storage import ObjectStore
from pipeline.volumes import create_volume
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.slabs import Tally

GRAPH_CHUNK = Vec(256, 256, 256)
"""Voxels of a chunk of the graph, unless the user says others."""
WORK = "work"
"""The folder of what a step hands on to the next; it is deleted at the end."""
LAYER_CHUNK = 64
"""The longest side of a stored chunk of the layer."""
ENDS = np.dtype([("own", "u8"), ("other", "u8"), ("count", "i8"), ("sum", "i8"), ("cross", "?")])
"""An edge of a chunk: affinities and their sum, 0..255 each, and whether its ends are parts of one supervoxel."""
NODES = {
    "id": "id in the layer `watershed` and in the graph",
    "supervoxel": "id of the supervoxel of which this is the part in one chunk",
    "segment": "id of its neuron in the result",
}
"""Columns of ``nodes.parquet``, and what they mean."""


def write_pychunkedgraph(
    source: Source, place: Path, on_progress: Callable[[int, int], None], graph_chunk: Vec = GRAPH_CHUNK
) -> None:
    """Write the files into a folder that exists. ``graph_chunk``: voxels of a chunk of the graph, z y x."""
    roi = source.layout.roi
    export = _Export(source, place, ChunkIds.of(roi, graph_chunk))
    tally = Tally(on_progress, 2 * roi.voxels, 0)
    for folder in ("edges", "components"):
        (place / folder).mkdir()
    export.cut(tally)
    for chunk in export.ids.chunks():
        export.find_low_edges(chunk)
        tally.add(export.ids.box(chunk).voxels)
    for chunk in export.ids.chunks():
        export.write_chunk(chunk)
    write_parquet(place / "nodes.parquet", export.nodes(), NODES)
    (place / "config.yml").write_text(export.ids.ingest_config())
    shutil.rmtree(place / WORK)


class _Export:
    """The steps, each for one chunk; what they hand on is in ``work``."""

    def __init__(self, source: Source, place: Path, ids: ChunkIds) -> None:
        self.source, self.place, self.ids = source, place, ids
        self.work = ObjectStore(place / WORK)

    def cut(self, tally: Tally) -> None:
        """Number the supervoxels of each chunk in the order of their ids, and write the layer under these numbers."""
        layout = self.source.layout
        url = f"precomputed://{self.place / 'watershed'}"
        stored = Vec(*map(_divisor, self.ids.shape))
        layer = create_volume(url, VolumeSpec(layout.roi, layout.resolution_nm, np.dtype(np.uint64), None, stored))
        for chunk in self.ids.chunks():
            box = self.ids.box(chunk)
            voxels = layout.read(SUPERVOXELS, box)
            segment_of = self.source.segments(box, voxels)
            own = np.array(sorted(segment_of.keys() - {0}), np.uint64)
            segments = np.array([segment_of[name] for name in own.tolist()], np.uint64)
            self.ids.check_count(chunk, len(own))
            self.work.put_arrays(f"cut/{_name(chunk)}", {"own": own, "segments": segments})
            layer.write(box, apply_remap(voxels, own, self.ids.ids(chunk, len(own))))
            tally.add(box.voxels)

    def find_low_edges(self, chunk: Triple) -> None:
        """Store the edges of a chunk with itself and with the three chunks before it."""
        layout, core = self.source.layout, self.ids.box(chunk)
        box = core.grow((1, 1, 1), (0, 0, 0)).intersect(layout.roi)
        parts = _parts(layout.read(SUPERVOXELS, box), core, box, {c: self._cut(c) for c in self._with_low(chunk)})
        affinities = self.source.run.affinities.read(core)
        if not self.source.run.config.agglomeration.across_sections:
            affinities[0] = 0
        joins = np.empty((0, 2), np.int64)
        graph = build_region_graph(parts, affinities, joins, core=core, roi=layout.roi, bounds=layout.bounds)
        self.work.put_arrays(f"low/{_name(chunk)}", self._split(graph, chunk))

    def write_chunk(self, chunk: Triple) -> None:
        """Write edges and components of a chunk; none of a chunk without edges, as the ingest does it."""
        low = self.work.get_arrays(f"low/{_name(chunk)}")
        out = [low["out"]]
        for after in self._behind(chunk):
            theirs = self.work.get_arrays(f"low/{_name(after)}")["out"]
            mine = theirs[self.ids.chunk_of(theirs["other"]) == self.ids.chunk_id(chunk)]
            out.append(mine[["other", "own", "count", "sum", "cross"]].astype(ENDS))
        edges = np.concatenate(out)
        edges = edges[np.lexsort((edges["other"], edges["own"]))]
        if len(edges) or len(low["in"]):
            name = _xyz(chunk)
            data = pack_edges(low["in"], edges[~edges["cross"]], edges[edges["cross"]])
            (self.place / "edges" / f"edges_{name}.proto.zst").write_bytes(data)
            components = pack_components(*self._neurons(chunk, edges["other"]))
            (self.place / "components" / f"components_{name}.proto").write_bytes(components)

    def nodes(self) -> Iterator[object]:
        """The table of all cut supervoxels in the order of their ids."""
        for chunk in self.ids.chunks():
            numbers, own, segments = self._cut(chunk)
            yield table_of(NODES, [numbers, own, segments])

    def _cut(self, chunk: Triple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the supervoxels of a chunk: their ids in the graph, their ids in the run, ascending, and their neurons."""
        stored = self.work.get_arrays(f"cut/{_name(chunk)}")
        return self.ids.ids(chunk, len(stored["own"])), stored["own"], stored["segments"]

    def _split(self, graph: RegionGraph, chunk: Triple) -> dict[str, np.ndarray]:
        """The edges within a chunk, and those with others, of a graph whose regions are cut supervoxels."""
        known, origin, _ = (np.concatenate(each) for each in zip(*map(self._cut, self._with_low(chunk)), strict=True))
        order = np.argsort(known)
        supervoxels = origin[order][np.searchsorted(known, graph.regions, sorter=order)]
        inside = self.ids.chunk_of(graph.regions) == self.ids.chunk_id(chunk)
        first, second = graph.edges.T
        swapped = ~inside[first]
        rows = np.zeros(len(graph.edges), ENDS)
        rows["own"] = graph.regions[np.where(swapped, second, first)]
        rows["other"] = graph.regions[np.where(swapped, first, second)]
        rows["count"], rows["sum"] = graph.counts, graph.sums
        rows["cross"] = supervoxels[first] == supervoxels[second]
        within = inside[first] & inside[second]
        return {"in": rows[within], "out": rows[~within]}

    def _neurons(self, chunk: Triple, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The supervoxels of a chunk and those of others that touch them, with their neurons."""
        around = [chunk, *self._with_low(chunk)[1:], *self._behind(chunk)]
        ids, _, segments = (np.concatenate(each) for each in zip(*map(self._cut, around), strict=True))
        wanted = (self.ids.chunk_of(ids) == self.ids.chunk_id(chunk)) | np.isin(ids, others)
        return ids[wanted], segments[wanted]

    def _with_low(self, chunk: Triple) -> list[Triple]:
        """The chunk, and those before it along each axis."""
        return [chunk, *(before for before in _steps(chunk, -1) if min(before) >= 0)]

    def _behind(self, chunk: Triple) -> list[Triple]:
        return [after for after in _steps(chunk, 1) if Vec(*after).below(self.ids.counts)]


def _parts(
    voxels: np.ndarray, core: BoundingBox, box: BoundingBox, cut: dict[Triple, tuple[np.ndarray, ...]]
) -> np.ndarray:
    """The ids in the graph of a chunk and of one voxel before it along each axis, but not across edges and corners.

    voxels: the supervoxels of ``box``. cut: of the chunk and of those before it, the first in ``cut`` being the chunk.
    """
    first, *_ = cut
    result = np.zeros_like(voxels)
    for chunk, (numbers, own, _) in cut.items():
        before = Vec(*first) - chunk
        start = core.start - before
        stop = Vec(*(a if shifted else b for a, b, shifted in zip(core.start, core.stop, before, strict=True)))
        part = BoundingBox(start, stop).slices(box.start)
        result[part] = apply_remap(voxels[part], own, numbers)
    return result


def _steps(chunk: Triple, step: int) -> list[Triple]:
    z, y, x = chunk
    return [(z + step, y, x), (z, y + step, x), (z, y, x + step)]


def _divisor(side: int) -> int:
    """The longest side of a stored chunk that divides that of a chunk of the graph."""
    return next(length for length in range(min(side, LAYER_CHUNK), 0, -1) if side % length == 0)


def _name(chunk: Triple) -> str:
    return "-".join(map(str, chunk))


def _xyz(chunk: Triple) -> str:
    """How the ingest names a chunk."""
    return "_".join(map(str, chunk[::-1]))
