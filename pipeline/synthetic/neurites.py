"""Densely packed, tortuous cells: the geometry of synthetic tissue.

1. A few soma-like balls are placed                                            ``_add_somas``
2. Neurites of three calibres walk through what is free, with branches        ``_add_neurites``, ``_walk``
3. Every voxel left over goes to the nearest cell                              ``_fill``
4. Space is warped, so that contacts are wavy                                  ``_warp``
5. Fringes are smoothed away                                                   ``_smooth``
6. Cells become connected, specks go to their neighbours                       ``connected_objects``

Everything here is in nm on a grid of the given pitch; (z, y, x) throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import measure

from pipeline.geometry import Vec
from pipeline.synthetic.noise import smooth_noise

Triple = tuple[float, float, float]

MARGIN_NM = 120.0
"""Tissue generated around the picture, so that its border is no special place."""

WARPS_NM = ((420.0, 45.0), (110.0, 11.0))
"""(length, amplitude) of the displacements: large bends and small ripples."""


@dataclass(frozen=True)
class Calibre:
    """One class of neurites."""

    radius_nm: tuple[float, float]
    """Smallest and largest mean radius before the leftover space is given away."""
    share: float
    """Part of the volume that the class and the thicker ones together should fill."""
    bend: float
    """Change of direction in one step, in radians about."""
    branches: float
    """Mean number of branches of a neurite."""


SOMAS_PER_UM3 = 0.12
SOMA_RADIUS_NM = (380.0, 620.0)
CALIBRES = (
    Calibre(radius_nm=(120, 230), share=0.32, bend=0.22, branches=1.5),
    Calibre(radius_nm=(55, 110), share=0.52, bend=0.30, branches=1.2),
    Calibre(radius_nm=(24, 50), share=0.74, bend=0.38, branches=0.6),
)
MAX_FAILURES = 60
"""Places that may be found taken before a class counts as full."""


@dataclass
class Canvas:
    """Cells drawn so far; a voxel belongs to the first that took it."""

    cells: np.ndarray
    """int32, (z, y, x); 0 = free"""
    pitch_nm: Triple
    count: int = 0

    @property
    def size_nm(self) -> np.ndarray:
        """Extent, (z, y, x)."""
        return np.array(self.cells.shape) * np.array(self.pitch_nm)

    def at(self, points_nm: np.ndarray) -> np.ndarray:
        """Cells at ``points_nm`` (n, 3); -1 outside."""
        index = np.floor(points_nm / np.array(self.pitch_nm)).astype(np.intp)
        inside = ((index >= 0) & (index < np.array(self.cells.shape))).all(axis=1)
        found = np.full(len(index), -1, np.int32)
        found[inside] = self.cells[tuple(index[inside].T)]
        return found

    def ball(self, centre_nm: np.ndarray, radius_nm: float, cell: int) -> None:
        """Give the free voxels of a ball to ``cell``."""
        box, squares = [], []
        for axis in range(3):
            pitch = self.pitch_nm[axis]
            low = max(int((centre_nm[axis] - radius_nm) / pitch), 0)
            high = min(int((centre_nm[axis] + radius_nm) / pitch) + 1, self.cells.shape[axis])
            if high <= low:
                return
            box.append(slice(low, high))
            squares.append(((np.arange(low, high) + 0.5) * pitch - centre_nm[axis]) ** 2)
        near = squares[0][:, None, None] + squares[1][:, None] + squares[2] < radius_nm**2
        part = self.cells[tuple(box)]
        part[near & (part == 0)] = cell


def make_cells(shape: tuple[int, int, int], pitch_nm: Triple, rng: np.random.Generator) -> np.ndarray:
    """Cells that fill the volume without gaps.

    Args:
        shape: voxels, (z, y, x).
        pitch_nm: nm per voxel.
        rng: the source of randomness; it is advanced.

    Returns:
        int32, ``shape``; 1, 2, ..., each one 6-connected component.
    """
    margin = Vec(*(int(np.ceil(MARGIN_NM / pitch)) for pitch in pitch_nm))
    canvas = Canvas(np.zeros(margin * 2 + shape, np.int32), pitch_nm)
    _add_somas(canvas, rng)
    for calibre in CALIBRES:
        _add_neurites(canvas, calibre, rng)
    if canvas.count == 0:
        canvas.cells[:] = 1
    cells = _smooth(_warp(_fill(canvas), shape, pitch_nm, margin, rng))
    return connected_objects(cells, smallest=60.0**3 / float(np.prod(pitch_nm)))


def _add_somas(canvas: Canvas, rng: np.random.Generator) -> None:
    """Place soma-like cells: lumpy unions of overlapping balls, mostly cut by the border."""
    for _ in range(rng.poisson(SOMAS_PER_UM3 * float(np.prod(canvas.size_nm / 1000)))):
        canvas.count += 1
        radius = rng.uniform(*SOMA_RADIUS_NM)
        centre = rng.random(3) * canvas.size_nm
        for _ in range(5):
            canvas.ball(centre + rng.normal(0, 0.22 * radius, 3), rng.uniform(0.6, 1.0) * radius, canvas.count)


def _add_neurites(canvas: Canvas, calibre: Calibre, rng: np.random.Generator) -> None:
    """Draw neurites of one calibre until its share is filled or no place is found."""
    failures = 0
    while failures < MAX_FAILURES and np.count_nonzero(canvas.cells) < calibre.share * canvas.cells.size:
        radius = rng.uniform(*calibre.radius_nm)
        start = rng.random(3) * canvas.size_nm
        around = start + 0.8 * radius * _directions(12, rng)
        if (canvas.at(np.vstack([start, around])) > 0).any():
            failures += 1
            continue
        canvas.count += 1
        _add_neurite(canvas, start, radius, calibre, rng)


def _add_neurite(
    canvas: Canvas, start: np.ndarray, radius_nm: float, calibre: Calibre, rng: np.random.Generator
) -> None:
    """Draw one neurite both ways from ``start``, then its branches."""
    heading = _directions(1, rng)[0]
    path = [*_walk(canvas, start, heading, radius_nm, calibre.bend, rng)]
    path += _walk(canvas, start, -heading, radius_nm, calibre.bend, rng)
    for _ in range(rng.poisson(calibre.branches)):
        root = path[rng.integers(len(path))]
        twig = max(radius_nm * rng.uniform(0.3, 0.6), 22.0)
        _walk(canvas, root, _directions(1, rng)[0], twig, calibre.bend, rng)


def _walk(
    canvas: Canvas,
    start: np.ndarray,
    heading: np.ndarray,
    radius_nm: float,
    bend: float,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Walk from ``start`` for the newest cell, drawing as it goes; stop at the border or where everything is taken."""
    path, point, swelling = [start], start, 0.0
    canvas.ball(start, radius_nm, canvas.count)
    step = max(0.5 * radius_nm, max(canvas.pitch_nm))
    while True:
        wanted = heading + bend * np.linspace(0.6, 3.5, 8)[:, None] * rng.normal(size=(8, 3))
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        ahead = canvas.at(point + (step + 0.9 * radius_nm) * wanted)
        free = np.flatnonzero((ahead <= 0) | (ahead == canvas.count))
        if not len(free):
            return path
        heading = wanted[free[0]]
        point = point + step * heading
        if canvas.at(point[None])[0] < 0:
            return path
        swelling = 0.85 * swelling + 0.16 * rng.normal()
        canvas.ball(point, radius_nm * float(np.exp(np.clip(swelling, -0.6, 0.6))), canvas.count)
        path.append(point)


def _directions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors, (count, 3)."""
    vectors = rng.normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _fill(canvas: Canvas) -> np.ndarray:
    """Give every free voxel to the nearest cell."""
    nearest = ndimage.distance_transform_edt(
        canvas.cells == 0, sampling=canvas.pitch_nm, return_distances=False, return_indices=True
    )
    return canvas.cells[tuple(nearest)]


def _warp(
    cells: np.ndarray,
    shape: tuple[int, int, int],
    pitch_nm: Triple,
    margin: Vec,
    rng: np.random.Generator,
) -> np.ndarray:
    """Look ``cells`` up at randomly displaced places, and leave the margin away."""
    index = []
    for axis in range(3):
        shift = sum(amplitude * smooth_noise(shape, pitch_nm, length, rng) for length, amplitude in WARPS_NM)
        grid = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)]) + margin[axis]
        place = np.rint(shift / pitch_nm[axis]).astype(np.intp) + grid
        index.append(np.clip(place, 0, cells.shape[axis] - 1))
    return cells[tuple(index)]


def _smooth(cells: np.ndarray) -> np.ndarray:
    """Take away the fringes that rounding leaves: a voxel with at most two equal neighbours of six follows the most."""
    strides = np.array(cells.strides) // cells.itemsize
    for _ in range(2):
        flat = cells.ravel()
        inner = np.zeros(cells.shape, bool)
        inner[1:-1, 1:-1, 1:-1] = True
        equal = np.zeros(cells.shape, np.int8)
        for axis in range(3):
            same = np.diff(cells, axis=axis) == 0
            equal[(slice(None),) * axis + (slice(1, None),)] += same
            equal[(slice(None),) * axis + (slice(None, -1),)] += same
        fringe = np.flatnonzero(inner & (equal <= 2))
        around = flat[fringe[:, None] + np.concatenate([strides, -strides])]  # (n, 6)
        votes = (around[:, :, None] == around[:, None, :]).sum(axis=2)
        cells = flat.copy()
        cells[fringe] = around[np.arange(len(fringe)), votes.argmax(axis=1)]
        cells = cells.reshape(inner.shape)
    return cells


def connected_objects(cells: np.ndarray, smallest: float) -> np.ndarray:
    """Number the 6-connected components 1, 2, ... and give those under ``smallest`` voxels to their neighbours.

    A speck goes to the nearest large component voxel by voxel; what is then still apart from its cell is an object
    of its own, so every number is exactly one component. A volume of specks alone is left as it is.
    """
    parts = measure.label(cells, connectivity=1, background=-1)
    large = np.bincount(parts.ravel()) >= smallest
    large[0] = False
    specks = ~large[parts]
    if not specks.any() or specks.all():
        return parts.astype(np.int32)
    nearest = ndimage.distance_transform_edt(specks, return_distances=False, return_indices=True)
    return measure.label(parts[tuple(nearest)], connectivity=1, background=-1).astype(np.int32)
