"""A run as a dataset of WEBKNOSSOS: supervoxels as a segmentation, and its neurons as an agglomerate attachment.

1. ``Numbers``      supervoxels are called 1 .. n in the order of their ids, neurons 1 .. m; both tables are files
2. ``_write_voxels``  the supervoxels under their new ids, and the image, as layers
3. ``_Sorting``     members and contacts of each neuron together, on disk
4. ``_write_agglomerates``  seven arrays, neuron by neuron

An attachment (``artifact_schema_version`` 4) is a zarr v3 group of sharded arrays; n segments, m agglomerates, e edges:

    segment_to_agglomerate           (n + 1,)  agglomerate of a segment; 0 -> 0
    agglomerate_to_segments_offsets  (m + 2,)  agglomerate i has the entries [i] to [i + 1]; 0 has none
    agglomerate_to_segments          (n,)      segments of one agglomerate after the other, ascending
    agglomerate_to_positions         (n, 3)    a voxel of each of these, x, y, z
    agglomerate_to_edges_offsets     (m + 2,)  as above
    agglomerate_to_edges             (e, 2)    two places within the agglomerate, the first < the second, ascending
    agglomerate_to_affinities        (e,)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.handover.sorting import Sorted, by_id, group_starts
from pipeline.handover.source import SUPERVOXELS, Source
from pipeline.handover.tables import Tables, gather
from pipeline.segmentation.remap import apply_remap
from pipeline.stages import opened
from pipeline.volumes.slabs import Tally
from pipeline.volumes.webknossos import (
    IMAGE_TYPES,
    Layer,
    RowWriter,
    check_place,
    shard_boxes,
    write_box,
    write_group,
    write_properties,
)

NAME = "neurons"
"""The name of the attachment."""
ATTRIBUTES = {"voxelytics": {"artifact_schema_version": 4, "artifact_class": "AgglomerateViewArtifact"}}
BY_HAND = 1.0
"""Affinity of edges between parts of a neuron that do not touch."""
MEMBER = np.dtype([("neuron", "u8"), ("segment", "u8"), ("position", "i4", 3)])
"""A supervoxel of a neuron, under its new id, with a voxel, x y z."""
EDGE = np.dtype([("neuron", "u8"), ("a", "u8"), ("b", "u8"), ("affinity", "f4")])
"""A contact within a neuron; new ids, a < b."""


@dataclass(frozen=True)
class Numbers:
    """Ids of the run in ascending order, as files: the place of an id, counted from 1, is its new one."""

    supervoxels: np.ndarray
    """uint64 (n,)"""
    neuron_of: np.ndarray
    """uint64 (n,): the id of the neuron of each supervoxel"""
    neurons: np.ndarray
    """uint64 (m,)"""

    @classmethod
    def of(cls, tables: Tables, folder: Path) -> Numbers:
        """Write the files, and map them into memory."""
        with open(folder / "ids", "wb") as ids, open(folder / "neuron_of", "wb") as neuron_of:
            for rows in tables.supervoxels():
                rows["id"].tofile(ids)
                rows["segment"].tofile(neuron_of)
        with open(folder / "neuron_ids", "wb") as neurons:
            for rows in tables.neurons():
                rows["id"].tofile(neurons)
        return cls(*(_mapped(folder / name) for name in ("ids", "neuron_of", "neuron_ids")))

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds the new ids and that WEBKNOSSOS has."""
        return np.dtype(np.uint32 if len(self.supervoxels) < 2**32 else np.uint64)

    def segments(self, supervoxels: np.ndarray) -> np.ndarray:
        """The new ids of supervoxels, uint64."""
        return np.searchsorted(self.supervoxels, supervoxels).astype(np.uint64) + np.uint64(1)


def write_webknossos(source: Source, place: Path, on_progress: Callable[[int, int], None]) -> None:
    """Write the dataset into a folder that exists."""
    roi = source.layout.roi
    check_place(roi)
    sorting = place / "sorting"
    tables = gather(source, sorting, lambda done, total: on_progress(done, 2 * total))
    numbers = Numbers.of(tables, sorting)
    attached = {"name": NAME, "path": f"./segmentation/agglomerates/{NAME}", "dataFormat": "zarr3"}
    more = {"largestSegmentId": len(numbers.supervoxels), "attachments": {"agglomerates": [attached]}}
    layers = [Layer("segmentation", "segmentation", numbers.dtype, roi, more), *_image_layer(source)]
    _write_voxels(source, place, layers, numbers, Tally(on_progress, 2 * roi.voxels, roi.voxels))
    folder = place / "segmentation" / "agglomerates" / NAME
    folder.mkdir(parents=True)
    _write_agglomerates(folder, _Sorting.of(source, tables, numbers, sorting), numbers)
    write_properties(place, layers, source.layout.resolution_nm)
    shutil.rmtree(sorting)


def _image_layer(source: Source) -> list[Layer]:
    """The layer of the image of a run, if it has one with one channel of a type that WEBKNOSSOS has."""
    if source.run.config.input.image is None:
        return []
    spec = opened.source(source.run.inputs.url).spec
    fits = spec.channels is None and spec.dtype.name in IMAGE_TYPES
    return [Layer("color", "color", spec.dtype, source.layout.roi, {})] if fits else []


def _write_voxels(source: Source, place: Path, layers: list[Layer], numbers: Numbers, tally: Tally) -> None:
    import fastremap

    segments, *images = [layer.create(place) for layer in layers]
    for box in shard_boxes(layers[0]):
        ids = source.layout.read(SUPERVOXELS, box)
        known = fastremap.unique(ids)
        known = known[known > 0]
        write_box(segments, box, apply_remap(ids, known, numbers.segments(known)).astype(numbers.dtype))
        for image in images:
            write_box(image, box, opened.source(source.run.inputs.url).read(box))
        tally.add(box.voxels)


@dataclass(frozen=True)
class _Sorting:
    """Members and edges of neurons; those of one neuron lie in buckets of the same number."""

    members: Sorted
    edges: Sorted

    @classmethod
    def of(cls, source: Source, tables: Tables, numbers: Numbers, folder: Path) -> _Sorting:
        bucket = by_id("neuron", source.layout.bounds)
        members = Sorted(folder / "members", MEMBER, ["neuron", "segment"], bucket)
        edges = Sorted(folder / "edges", EDGE, ["neuron", "a", "b"], bucket)
        for rows in tables.supervoxels():
            members.add(_members(source, rows[rows["segment"] > 0], numbers))
        for rows, scores in tables.contacts():
            edges.add(_edges(rows, scores, numbers))
        return cls(members, edges)


def _members(source: Source, rows: np.ndarray, numbers: Numbers) -> np.ndarray:
    found = np.zeros(len(rows), MEMBER)
    found["neuron"], found["segment"] = rows["segment"], numbers.segments(rows["id"])
    found["position"] = source.first_voxels(rows["id"])[:, ::-1]
    return found


def _edges(contacts: np.ndarray, scores: np.ndarray, numbers: Numbers) -> np.ndarray:
    """The contacts of supervoxels of one neuron."""
    a, b = numbers.segments(contacts["a"]), numbers.segments(contacts["b"])
    neurons = numbers.neuron_of[a - np.uint64(1)]
    within = (neurons == numbers.neuron_of[b - np.uint64(1)]) & (neurons > 0)
    found = np.zeros(int(within.sum()), EDGE)
    for name, column in (("neuron", neurons), ("a", a), ("b", b), ("affinity", scores)):
        found[name] = column[within]
    return found


def _write_agglomerates(folder: Path, rows: _Sorting, numbers: Numbers) -> None:
    write_group(folder, ATTRIBUTES)
    segment_to_agglomerate = RowWriter(folder / "segment_to_agglomerate", "u8")
    segment_to_agglomerate.add(np.zeros(1, np.uint64))
    for start in range(0, len(numbers.supervoxels), 1 << 20):
        neurons = numbers.neuron_of[start : start + (1 << 20)]
        segment_to_agglomerate.add(np.searchsorted(numbers.neurons, neurons) + (neurons > 0))
    segments = RowWriter(folder / "agglomerate_to_segments", numbers.dtype)
    positions = RowWriter(folder / "agglomerate_to_positions", "i4", 3)
    edges = RowWriter(folder / "agglomerate_to_edges", numbers.dtype, 2)
    affinities = RowWriter(folder / "agglomerate_to_affinities", "f4")
    segments_offsets, edges_offsets = (_Offsets(folder / f"agglomerate_to_{name}_offsets") for name in _COUNTED)
    for number in rows.members.numbers:
        members, within = rows.members.bucket(number), rows.edges.bucket(number)
        places, scores, counts = local_edges(members, within)
        segments.add(members["segment"])
        positions.add(members["position"])
        segments_offsets.add(np.diff(group_starts(members, ["neuron"]), append=len(members)))
        edges.add(places)
        affinities.add(scores)
        edges_offsets.add(counts)
    for array in (segment_to_agglomerate, segments, positions, edges, affinities, segments_offsets, edges_offsets):
        array.close()


_COUNTED = ("segments", "edges")


class _Offsets:
    """Where the entries of each agglomerate end; agglomerate 0 has none."""

    def __init__(self, folder: Path) -> None:
        self._rows, self._end = RowWriter(folder, "u8"), 0
        self._rows.add(np.zeros(2, np.uint64))

    def add(self, counts: np.ndarray) -> None:
        """Add the numbers of entries of some agglomerates."""
        self._rows.add(self._end + np.cumsum(counts))
        self._end += int(counts.sum())

    def close(self) -> None:
        """Write what waits."""
        self._rows.close()


def local_edges(members: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges as places within their neurons, int64 (e, 2), their affinities, and how many each neuron has.

    members: ``MEMBER`` rows of some neurons, sorted. edges: ``EDGE`` rows of the same. A part of a neuron that no edge
    connects to its first supervoxel gets an edge to that one, so that each neuron is connected.
    """
    starts = group_starts(members, ["neuron"])
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(members)))
    by_name = np.argsort(members["segment"])
    ends = np.stack([edges["a"], edges["b"]], axis=1)
    rows = by_name[np.searchsorted(members["segment"], ends, sorter=by_name)].reshape(-1, 2)
    lone = _first_of_parts(len(members), rows)
    lone = lone[starts[group[lone]] != lone]
    rows = np.concatenate([rows, np.stack([starts[group[lone]], lone], axis=1)])
    scores = np.concatenate([edges["affinity"], np.full(len(lone), BY_HAND, np.float32)])
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    rows, scores = rows[order], scores[order]
    return rows - starts[group[rows[:, :1]]], scores, np.bincount(group[rows[:, 0]], minlength=len(starts))


def _first_of_parts(count: int, rows: np.ndarray) -> np.ndarray:
    """The first row of each connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(rows), bool), tuple(rows.T)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    first: np.ndarray = np.unique(component, return_index=True)[1]
    return first


def _mapped(path: Path) -> np.ndarray:
    """The ids of a file, without reading them; no file of zero bytes can be mapped."""
    return np.memmap(path, np.uint64, "r") if path.stat().st_size else np.zeros(0, np.uint64)
