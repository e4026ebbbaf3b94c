"""Skeletons of neurons: their pieces in the blocks of a lattice, and whole ones.

    labels of a block, and of some voxels around it -> ``block_pieces``
    the pieces of a neuron in all blocks            -> ``assemble``

Vertices of pieces are voxels. Blocks that share a plane have the same vertices where they cross it, so the pieces of
neighbours hang together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.segmentation.skeletons.block_paths import block_paths
from pipeline.segmentation.skeletons.distances import squared_distances
from pipeline.segmentation.skeletons.rules import SkeletonRules
from pipeline.segmentation.skeletons.trees import trees
from pipeline.shapes.skeleton_lattice import SkeletonBlock, SkeletonLattice


@dataclass(frozen=True, eq=False)
class Piece:
    """What the blocks know of the skeleton of a segment."""

    voxels: np.ndarray
    """int32 (n, 3): z, y, x of each vertex, in voxels of the lattice"""
    radii_nm: np.ndarray
    """float32 (n,): from the vertex to the nearest voxel of another label"""
    edges: np.ndarray
    """uint32 (m, 2): places of the two vertices"""

    def to_bytes(self) -> bytes:
        """The numbers of vertices and edges, and the arrays."""
        head = np.array([len(self.voxels), len(self.edges)], "<u4")
        arrays = (self.voxels.astype("<i4"), self.radii_nm.astype("<f4"), self.edges.astype("<u4"))
        return b"".join(array.tobytes() for array in (head, *arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> Piece:
        """The inverse of ``to_bytes``."""
        n, m = np.frombuffer(data, "<u4", 2).tolist()
        voxels = np.frombuffer(data, "<i4", 3 * n, 8).reshape(-1, 3)
        radii = np.frombuffer(data, "<f4", n, 8 + 12 * n)
        return cls(voxels, radii, np.frombuffer(data, "<u4", 2 * m, 8 + 16 * n).reshape(-1, 2))


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The trees of a neuron, one for each of its pieces that do not touch; each vertex stands behind its parent."""

    places_nm: np.ndarray
    """float32 (n, 3): z, y, x of each vertex in nanometres, from the corner of voxel 0"""
    radii_nm: np.ndarray
    """float32 (n,): from its voxel to the nearest one with another label, centre to centre"""
    parents: np.ndarray
    """int64 (n,): the place of the vertex before; -1 for a root"""

    @property
    def edges(self) -> np.ndarray:
        """int64 (m, 2): parents and their children, in the order of the children."""
        children = np.flatnonzero(self.parents >= 0)
        return np.stack([self.parents[children], children], axis=1)

    @property
    def degrees(self) -> np.ndarray:
        """int64 (n,): the number of edges of each vertex."""
        return np.bincount(self.edges.reshape(-1), minlength=len(self.parents))

    @property
    def path_length_nm(self) -> float:
        """The length of all edges."""
        parents, children = self.places_nm.astype(np.float64)[self.edges].transpose(1, 0, 2)
        return float(np.sqrt(((parents - children) ** 2).sum(axis=1)).sum())


def block_pieces(
    labels: np.ndarray,
    lattice: SkeletonLattice,
    block: SkeletonBlock,
    rules: SkeletonRules,
    wanted: Callable[[int], bool],
) -> Iterator[tuple[int, Piece]]:
    """The piece of each wanted segment in a block, in the order of segments.

    labels: unsigned integers (z, y, x) of ``block.window``, 0 = none.
    """
    ids, numbers = _numbered(labels, wanted)
    if len(ids) == 1:
        return
    inner, sides = block.voxels.slices(block.window.start), lattice.resolution_nm
    squares = np.minimum(squared_distances(numbers, sides)[inner], np.float32(lattice.farthest_nm**2))
    places, parents = block_paths(np.ascontiguousarray(numbers[inner]), squares, sides, rules)
    which = numbers[inner][tuple(places.T)]
    radii = np.sqrt(squares[tuple(places.T)].astype(np.float64))
    order = np.argsort(which, kind="stable")
    cuts = np.flatnonzero(np.diff(which[order], prepend=-1, append=-1))
    for start, stop in pairwise(cuts):
        chosen = order[start:stop]
        voxels = (places[chosen] + np.array(block.voxels.start)).astype(np.int32)
        yield int(ids[which[chosen[0]]]), Piece(voxels, radii[chosen].astype(np.float32), _edges(chosen, parents))


def _numbered(labels: np.ndarray, wanted: Callable[[int], bool]) -> tuple[np.ndarray, np.ndarray]:
    """The wanted ids in their order, behind 0, and int32 (z, y, x): the place of each voxel's id among them, or 0."""
    import fastremap

    every = fastremap.unique(labels)
    ids = np.array([0, *filter(wanted, every[every > 0].tolist())], np.uint64)
    places = {int(name): 0 for name in every} | {int(name): place for place, name in enumerate(ids)}
    if len(ids) == 1:
        return ids, np.zeros(labels.shape, np.int32)
    numbers = fastremap.remap(np.ascontiguousarray(labels), places)
    return ids, numbers.astype(np.int32)


def _edges(chosen: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The edges between chosen vertices, ascending, as places among them: uint32 (m, 2)."""
    children = np.flatnonzero(parents[chosen] >= 0)
    return np.stack([np.searchsorted(chosen, parents[chosen][children]), children], axis=1).astype(np.uint32)


def assemble(pieces: Sequence[Piece], resolution_nm: tuple[float, float, float], rules: SkeletonRules) -> Skeleton:
    """The whole skeleton of a segment out of its pieces, of which there is at least one.

    resolution_nm: the sides of a voxel of the lattice.
    """
    starts = np.cumsum([0, *(len(piece.voxels) for piece in pieces)])
    every = np.concatenate([piece.voxels for piece in pieces]).astype(np.int64)
    edges = np.concatenate([piece.edges + start for piece, start in zip(pieces, starts, strict=False)])
    voxels, place = np.unique(every, axis=0, return_inverse=True)
    radii = np.full(len(voxels), np.inf)
    np.minimum.at(radii, place.reshape(-1), np.concatenate([piece.radii_nm for piece in pieces]))
    joined = place.reshape(-1)[edges.astype(np.int64)]
    kept, parents, smooth = trees(voxels, radii, joined, resolution_nm, rules)
    places = (smooth + 0.5) * np.array(resolution_nm)
    return Skeleton(places.astype(np.float32), radii[kept].astype(np.float32), parents)
