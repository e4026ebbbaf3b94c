"""Draws meshes without a browser or a GPU: points on every triangle, the nearest one in each pixel, lit from the eye.

Every picture of a report must come out on any machine, so nothing but numpy is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.shapes.meshing import Mesh

AZIMUTH, ELEVATION = np.radians(35.0), np.radians(25.0)
"""From where the eye looks: turned about z, and then above the horizon."""
MARGIN = 0.04
"""The share of a picture that stays free on each side."""
SAMPLES = 2
"""Pixels are drawn so much finer along each axis, and averaged."""
STEP = 0.8
"""Distance of the points on a triangle, in the finer pixels."""
DIMMEST = 0.3
"""Brightness of a surface that is seen from the side."""
POINTS = 1 << 21
"""So many points are computed at once."""

Colour = tuple[float, float, float]


def render(meshes: Mapping[int, Mesh], colours: Mapping[int, Colour], spacing: Colour, side: int) -> np.ndarray:
    """A picture of meshes: float64 (side, side, 3), red, green and blue from 0 to 1, on white.

    meshes: vertices z, y, x in voxels. spacing: nanometres of a voxel, z, y, x. The picture holds all of them.
    """
    canvas = _Canvas.empty(side * SAMPLES)
    turned = {name: _turned(mesh.vertices * np.asarray(spacing)) for name, mesh in meshes.items()}
    frame = _Frame.around(np.concatenate(list(turned.values())), canvas.side)
    for name, points in turned.items():
        canvas.draw(frame.placed(points)[meshes[name].faces], np.asarray(colours[name]))
    return canvas.averaged()


def _turned(points: np.ndarray) -> np.ndarray:
    """Points z, y, x -> right, down, away from the eye."""
    z, y, x = points.T.astype(np.float64)
    right = np.cos(AZIMUTH) * x - np.sin(AZIMUTH) * y
    back = np.sin(AZIMUTH) * x + np.cos(AZIMUTH) * y
    down = np.cos(ELEVATION) * z + np.sin(ELEVATION) * back
    return np.stack([right, down, np.cos(ELEVATION) * back - np.sin(ELEVATION) * z], axis=1)


@dataclass(frozen=True, eq=False)
class _Frame:
    """How turned points become pixels."""

    centre: np.ndarray
    scale: float
    side: int

    @classmethod
    def around(cls, points: np.ndarray, side: int) -> _Frame:
        """The frame that holds all points in a square of ``side`` pixels."""
        low, high = points.min(0), points.max(0)
        return cls((low + high) / 2, (1 - 2 * MARGIN) * side / max(float((high - low)[:2].max()), 1e-9), side)

    def placed(self, points: np.ndarray) -> np.ndarray:
        """Column, row and depth in pixels."""
        middle = np.array([self.side / 2, self.side / 2, 0])
        placed: np.ndarray = (points - self.centre) * self.scale + middle
        return placed


@dataclass(eq=False)
class _Canvas:
    """The nearest surface of each pixel."""

    side: int
    depth: np.ndarray
    """float64 (side * side,)"""
    colour: np.ndarray
    """float64 (side * side, 3)"""

    @classmethod
    def empty(cls, side: int) -> _Canvas:
        return cls(side, np.full(side * side, np.inf), np.ones((side * side, 3)))

    def draw(self, triangles: np.ndarray, colour: np.ndarray) -> None:
        """Draw triangles, (n, corner, column / row / depth), where nothing nearer is there."""
        for points, brightness in _points_of(triangles):
            column, row = (points[:, axis].astype(np.int64).clip(0, self.side - 1) for axis in (0, 1))
            pixel = row * self.side + column
            np.minimum.at(self.depth, pixel, points[:, 2])
            nearest = self.depth[pixel] == points[:, 2]
            self.colour[pixel[nearest]] = brightness[nearest, None] * colour

    def averaged(self) -> np.ndarray:
        """The picture in its own pixels."""
        side = self.side // SAMPLES
        averaged: np.ndarray = self.colour.reshape(side, SAMPLES, side, SAMPLES, 3).mean((1, 3))
        return averaged


def _points_of(triangles: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points that cover triangles, (m, 3), and the brightness of each, (m,); triangles of one size together."""
    edges = triangles - np.roll(triangles, 1, axis=1)
    normals = np.cross(edges[:, 0], edges[:, 1])
    length = np.linalg.norm(normals, axis=1)
    towards = np.abs(normals[:, 2]) / np.maximum(length, 1e-12)
    parts = np.ceil(np.abs(edges[:, :, :2]).max((1, 2)) / STEP).astype(np.int64).clip(1)
    for count in np.unique(parts).tolist():
        weights = _weights(count)
        chosen = np.flatnonzero(parts == count)
        for some in np.array_split(chosen, -(-len(chosen) * len(weights) // POINTS)):
            points = weights @ triangles[some]
            light = DIMMEST + (1 - DIMMEST) * towards[some]
            yield points.reshape(-1, 3), np.repeat(light, len(weights))


def _weights(count: int) -> np.ndarray:
    """Shares of the three corners at points that part each edge into ``count``: (points, 3)."""
    first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    inside = first + second <= count
    first, second = first[inside], second[inside]
    return np.stack([first, second, count - first - second], axis=1) / count
