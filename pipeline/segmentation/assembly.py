"""Join region graphs of adjacent boxes into one: unite their names, join cut supervoxels, close the faces between them.

A fragment that touches the face between two children is a port of both: of the child that holds it, and of the one that
saw it from outside. All regions that hold the same fragment are one region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.contacts import OUTSIDE
from pipeline.segmentation.region_graph import RegionGraph


class Assembly(NamedTuple):
    """The graph of a box before any merge. Regions are given as indices into ``regions``; contacts may be parallel or
    loops.
    """

    box: np.ndarray
    """int64 (2, 3)"""
    regions: np.ndarray
    """uint64 (n,), ascending: all regions of the children"""
    root: np.ndarray
    """int32 (n,): the region that each region is a part of: the smallest one of its supervoxel"""
    sizes: np.ndarray
    """int64 (n,): voxels, 0 unless a root"""
    is_open: np.ndarray
    """bool (n,): a root that may have parts or contacts outside the box"""
    edges: np.ndarray
    """int32 (m, 2): roots"""
    counts: np.ndarray
    sums: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    value_counts: np.ndarray
    ports: np.ndarray
    """uint64 (p,), ascending: those of the box"""
    port_regions: np.ndarray
    """int32 (p,): roots"""
    port_faces: np.ndarray


class Ports(NamedTuple):
    """Fragments that may continue outside a box."""

    fragments: np.ndarray
    """uint64 (p,), ascending"""
    regions: np.ndarray
    """int32 (p,)"""
    faces: np.ndarray
    """uint8 (p,): as in ``RegionGraph``"""


class Part(Protocol):
    """What is united of a child, as ``RegionGraph`` describes it."""

    @property
    def box(self) -> np.ndarray:
        """int64 (2, 3)"""

    @property
    def regions(self) -> np.ndarray:
        """uint64 (n,), ascending"""

    @property
    def joins(self) -> np.ndarray:
        """int32 (j, 2)"""

    @property
    def ports(self) -> np.ndarray:
        """uint64 (p,), ascending"""

    @property
    def port_regions(self) -> np.ndarray:
        """int32 (p,)"""

    @property
    def port_faces(self) -> np.ndarray:
        """uint8 (p,)"""


class Whole(NamedTuple):
    """The regions of adjacent boxes as those of one box; see ``Assembly``."""

    box: np.ndarray
    regions: np.ndarray
    places: list[np.ndarray]
    """int32, for each child: where its regions are among all"""
    root: np.ndarray
    is_open: np.ndarray
    ports: Ports


def assemble(children: Sequence[RegionGraph], *, histograms: bool) -> Assembly:
    """Unite the graphs of children that tile a box; their histograms are kept if ``histograms``."""
    box, regions, places, root, is_open, ports = unite_regions(children)
    sizes = added(root, places, [child.sizes for child in children])
    edges = np.concatenate([root[place[child.edges]] for child, place in zip(children, places, strict=True)])
    return Assembly(
        box,
        regions,
        root,
        sizes,
        is_open,
        edges,
        np.concatenate([child.counts for child in children]),
        np.concatenate([child.sums for child in children]),
        *_concatenated_histograms(children if histograms else []),
        *ports,
    )


def unite_regions(children: Sequence[Part]) -> Whole:
    """Name the regions of children that tile a box together, unite those that are one, and close the faces between."""
    box = np.array([np.min([c.box[0] for c in children], axis=0), np.max([c.box[1] for c in children], axis=0)])
    regions, places = _common_names([child.regions for child in children])
    ports = _sorted_ports(children, places)
    same = np.flatnonzero(ports.fragments[1:] == ports.fragments[:-1])
    held_twice = np.stack([ports.regions[same], ports.regions[same + 1]], axis=1)
    joins = [place[child.joins] for child, place in zip(children, places, strict=True)]
    root = np.arange(len(regions), dtype=np.int32)
    unite_pairs(root, np.concatenate([held_twice, *joins]))
    ports = _outer_ports(ports, root)
    is_open = np.zeros(len(regions), np.bool_)
    is_open[ports.regions] = True
    return Whole(box, regions, places, root, is_open, ports)


def added(root: np.ndarray, places: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    """The sums of the children's values over the parts of each root: int64 (n,), 0 unless a root."""
    total = np.zeros(len(root), np.int64)
    for place, own in zip(places, values, strict=True):
        np.add.at(total, root[place], own)
    return total


def _common_names(names: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All ids in ascending order, and for each child the places of its own, int32."""
    if len(names) == 1:
        return names[0], [np.arange(len(names[0]), dtype=np.int32)]
    regions = np.unique(np.concatenate(names))
    return regions, [np.searchsorted(regions, own).astype(np.int32) for own in names]


def _sorted_ports(children: Sequence[Part], places: list[np.ndarray]) -> Ports:
    """The ports of all children by fragment; faces that a sibling closes are cleared."""
    stop = np.max([child.box[1] for child in children], axis=0)
    faces = []
    for child in children:
        inner = [1 << k for k in range(3) if child.box[1, k] < stop[k]]
        faces.append(child.port_faces & np.uint8(255 - sum(inner)))
    fragments = np.concatenate([child.ports for child in children])
    order = np.argsort(fragments, kind="stable")
    regions = np.concatenate([place[child.port_regions] for child, place in zip(children, places, strict=True)])
    return Ports(fragments[order], regions[order], np.concatenate(faces)[order])


def _outer_ports(ports: Ports, root: np.ndarray) -> Ports:
    """The remaining ports, each fragment once; a fragment that a child holds no longer lies outside."""
    fragments, first = np.unique(ports.fragments, return_index=True)
    number = np.repeat(np.arange(len(fragments)), np.diff(first, append=len(ports.fragments)))
    held = np.zeros(len(fragments), np.bool_)
    held[number[(ports.faces & OUTSIDE) == 0]] = True
    faces = np.zeros(len(fragments), np.uint8)
    np.bitwise_or.at(faces, number, ports.faces)
    faces[held] &= np.uint8(OUTSIDE - 1)
    left = faces != 0
    return Ports(fragments[left], root[ports.regions[first[left]]], faces[left])


def _concatenated_histograms(children: Sequence[RegionGraph]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, values and counts of all edges, child after child; no offsets without children."""
    if not children:
        return np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64)
    lengths = np.concatenate([np.diff(child.offsets) for child in children])
    values = np.concatenate([child.values for child in children])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, values, np.concatenate([child.value_counts for child in children])


@kernel
def unite_pairs(root, pairs):  # type: ignore[no-untyped-def]
    """Turn 0 .. n - 1, int32 (n,), into the smallest member of each one's component; ``pairs`` are int32 (m, 2)."""
    for i in range(len(pairs)):
        a, b = root_of(root, pairs[i, 0]), root_of(root, pairs[i, 1])
        root[max(a, b)] = min(a, b)
    for i in range(root.size):
        root[i] = root[root[i]]


@part
def root_of(root, i):  # type: ignore[no-untyped-def]
    """The root of i, to which later searches come faster."""
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i
