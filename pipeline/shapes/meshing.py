"""The surfaces of the segments in a block, by marching cubes, with fewer triangles inside and its rim as it was.

A vertex lies halfway between two voxels, so blocks that share a face have the same vertices on it. zmesh removes
vertices inside a block alone: it never moves an edge that belongs to one triangle only, and these are on the faces.
A level above the finest is made of eight parts, since a viewer shows its octants one by one: no triangle crosses them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product as cartesian

import numpy as np

from pipeline.geometry import BoundingBox, Vec

REDUCTION = 100
"""Triangles that simplification may make one of, if the shape allows it."""
MAX_ERROR = 2.0
"""How far simplification may move the surface, in voxels of the block's level."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles of one segment; they turn so that the enclosed volume is positive in z, y, x."""

    vertices: np.ndarray
    """float32 (n, 3): z, y, x in cells of the block, from its first"""
    faces: np.ndarray
    """uint32 (m, 3): vertices of each triangle"""

    @classmethod
    def joined(cls, parts: list[Mesh]) -> Mesh:
        """One mesh with the triangles of all parts."""
        starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        faces = [part.faces + np.uint32(start) for part, start in zip(parts, starts, strict=True)]
        return cls(np.concatenate([part.vertices for part in parts]), np.concatenate(faces))

    def moved(self, by: Vec) -> Mesh:
        """The same triangles, ``by`` cells further."""
        return Mesh(self.vertices + np.asarray(by, np.float32), self.faces)


def block_labels(labels: np.ndarray, origin: Vec, box: BoundingBox) -> np.ndarray:
    """The voxels of a box, as uint64 (z, y, x), with 0 where ``labels``, which begin at ``origin``, have none."""
    there = BoundingBox.from_shape(labels.shape, origin).intersect(box)
    found = np.zeros(box.shape, np.uint64)
    found[there.slices(box.start)] = labels[there.slices(origin)]
    return found


def mesh_block(
    labels: np.ndarray, spacing: tuple[float, float, float], octants: bool, wanted: Callable[[int], bool]
) -> dict[int, Mesh]:
    """The mesh of every wanted segment that has a surface in a block.

    labels: uint64 (z, y, x) of ``MeshBlock.voxels``, 0 = none. spacing: ``DetailLevel.spacing``. octants: whether no
    triangle may cross the planes through the block's middle.
    """
    parts: defaultdict[int, list[Mesh]] = defaultdict(list)
    for start, voxels in _parts(labels, 2 if octants else 1):
        for segment, mesh in _surfaces(voxels, spacing, wanted):
            parts[segment].append(mesh.moved(start))
    return {segment: Mesh.joined(parts[segment]) for segment in sorted(parts)}


def _parts(labels: np.ndarray, cuts: int) -> Iterator[tuple[Vec, np.ndarray]]:
    """The first cell, and the voxels, of each of ``cuts`` ** 3 parts of a block."""
    cells = (Vec(*labels.shape) - 1) // cuts
    for index in cartesian(range(cuts), repeat=3):
        start = cells * Vec(*index)
        yield start, np.ascontiguousarray(labels[BoundingBox(start, start + cells + 1).slices()])


def _surfaces(
    voxels: np.ndarray, spacing: tuple[float, float, float], wanted: Callable[[int], bool]
) -> Iterator[tuple[int, Mesh]]:
    """The simplified surface of each wanted segment."""
    import zmesh

    if (voxels == voxels[0, 0, 0]).all():
        return
    mesher = zmesh.Mesher(spacing)
    mesher.mesh(voxels, close=False)
    for segment in mesher.ids():  # all of them: what zmesh makes of one depends on those that were taken before
        found = mesher.get(segment, normals=False, reduction_factor=REDUCTION, max_error=MAX_ERROR)
        if len(found.faces) and wanted(segment):
            yield int(segment), Mesh(found.vertices / np.asarray(spacing, np.float32), found.faces.astype(np.uint32))
