"""The bytes of Neuroglancer's multi-resolution meshes (``neuroglancer_multilod_draco``): fragments and manifests.

A mesh is the fragments of its blocks, the finest level first and in Z-curve order, and a manifest that tells where
each one is. A node of the octree that has finer fragments below it, but no triangle of its own, is an empty fragment.
Arrays here are z, y, x; ``encode_fragment`` and ``Meshes.manifest`` write x, y, z, the order of the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.geometry import Vec
from pipeline.shapes.lattice import BLOCK, MeshLattice
from pipeline.shapes.meshing import Mesh

BITS = 10
"""Bits of a coordinate in a fragment: a sixteenth of a voxel. The format has 10 and 16."""
COMPRESSION = 7
"""Draco's level, 0 to 10."""

Position = tuple[int, int, int]


def encode_fragment(mesh: Mesh, cells: Vec) -> bytes:
    """The Draco bytes of a mesh in a block of ``cells``; empty if no triangle is left.

    Both blocks of a shared face round its vertices to the same numbers.
    """
    import DracoPy

    most = (1 << BITS) - 1
    points = np.floor(mesh.vertices.astype(np.float64) * most / np.asarray(cells) + 0.5).astype(np.float32)
    points, place = np.unique(points, axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    if not len(faces):
        return b""
    turned = np.ascontiguousarray(faces[:, ::-1], np.uint32)  # x, y, z is the mirror image of z, y, x
    exact = {"quantization_bits": BITS, "quantization_range": most, "quantization_origin": [0, 0, 0]}  # steps of 1
    data = DracoPy.encode(np.ascontiguousarray(points[:, ::-1]), turned, compression_level=COMPRESSION, **exact)
    return bytes(data)


def z_order(position: Position) -> int:
    """The place of a block on the Z-curve: bits of z, y and x, in turn, the highest first."""
    z, y, x = position
    return _spread(x) | _spread(y) << 1 | _spread(z) << 2


def _spread(number: int) -> int:
    """The bits of a number, two apart."""
    return int("".join(f"00{bit}" for bit in f"{number:b}"), 2)


@dataclass(frozen=True)
class Meshes:
    """What the meshes of a run have in common."""

    lattice: MeshLattice
    resolution_nm: tuple[float, float, float]

    def info(self, sharding: Mapping[str, Any]) -> dict[str, Any]:
        """The ``info`` of the folder: vertices are stored in voxels, and the transform makes nanometres of them."""
        z, y, x = self.resolution_nm
        return {
            "@type": "neuroglancer_multilod_draco",
            "vertex_quantization_bits": BITS,
            "transform": [x, 0, 0, 0, 0, y, 0, 0, 0, 0, z, 0],
            "lod_scale_multiplier": 1,
            "sharding": dict(sharding),
        }

    def assemble(self, levels: Sequence[Mapping[Position, bytes]]) -> tuple[bytes, bytes]:
        """The fragments of a mesh one behind another, and its manifest.

        levels: the fragments of each level of detail, the finest first, by block, counted from ``MeshLattice.base``.
        """
        nodes = _octree(levels)
        data = b"".join(data for level in nodes for data in level.values())
        return data, self._manifest(nodes)

    def _manifest(self, nodes: Sequence[Mapping[Position, bytes]]) -> bytes:
        used = self.lattice.levels[: len(nodes)]
        origin = self.lattice.base(0) * BLOCK
        offsets = [[-side / 2 for side in level.factor[::-1]] for level in used]  # cells begin half a voxel earlier
        head = [
            np.asarray([BLOCK] * 3, "<f4"),
            np.asarray(origin[::-1], "<f4"),
            np.asarray([len(nodes)], "<u4"),
            np.asarray([2**level.number for level in used], "<f4"),
            np.asarray(offsets, "<f4"),
            np.asarray([len(level) for level in nodes], "<u4"),
        ]
        return b"".join(array.tobytes() for array in head) + b"".join(map(_level_table, nodes))


def _level_table(fragments: Mapping[Position, bytes]) -> bytes:
    """Positions x, y, z, each axis together, and the sizes of the fragments."""
    positions = np.asarray(list(fragments), "<u4")[:, ::-1]
    sizes = np.asarray([len(data) for data in fragments.values()], "<u4")
    return positions.tobytes(order="F") + sizes.tobytes()


def _octree(levels: Sequence[Mapping[Position, bytes]]) -> list[dict[Position, bytes]]:
    """The fragments in Z-curve order, with the empty ones that are missing; up to the level at which one is left."""
    nodes: list[dict[Position, bytes]] = []
    below: set[Position] = set()
    for fragments in levels:
        filled = {position: data for position, data in fragments.items() if data}
        if not filled:  # at this level the segment is too thin to be seen
            break
        places = sorted(filled.keys() | {_parent(position) for position in below}, key=z_order)
        nodes.append({position: filled.get(position, b"") for position in places})
        below = set(places)
        if len(below) == 1:
            break
    return nodes


def _parent(position: Position) -> Position:
    z, y, x = position
    return z >> 1, y >> 1, x >> 1
