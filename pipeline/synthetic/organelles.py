"""Organelles inside cells: mitochondria, nuclei, vacuoles and vesicles, all with membranes of their own.

They are the distractors: dark lines and dark bodies that are not the border of a cell. Each is drawn in a small box of
the image, only where the voxels belong to its cell and keep clear of the cell's membrane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.noise import smooth_noise

Triple = tuple[float, float, float]
CLASSES = ("background", "mitochondrion", "vacuole", "nucleus")
"""What voxels can be, by the number of their class; vesicles count as background."""


@dataclass
class Cytoplasm:
    """An unfinished image, and the cell and depth of its voxels; (z, y, x)."""

    image: np.ndarray
    """float32 brightness, 0 to 255; organelles are drawn into it"""
    cells: np.ndarray
    """int32"""
    depth_nm: np.ndarray
    """float32, distance to the nearest border between cells"""
    pitch_nm: Triple
    classes: np.ndarray | None = None
    """uint8, the class of the organelle at each voxel (``CLASSES``), 0 outside; ``None`` if it is not noted"""

    def note(self, part: Patch, inside: np.ndarray, name: str) -> None:
        """Note the voxels of an organelle, bool in the shape of its box."""
        if self.classes is not None:
            self.classes[part.box][inside] = CLASSES.index(name)

    @property
    def volume_um3(self) -> float:
        """Cubic micrometres of the image."""
        return self.cells.size * float(np.prod(self.pitch_nm)) * 1e-9

    def places(self, depth_nm: float, count: int, rng: np.random.Generator) -> np.ndarray:
        """At most ``count`` random voxels deeper than ``depth_nm`` inside a cell, (n, 3)."""
        deep = np.flatnonzero(self.depth_nm.ravel() > depth_nm)
        if not len(deep) or not count:
            return np.zeros((0, 3), np.intp)
        return np.stack(np.unravel_index(rng.choice(deep, count), self.cells.shape), axis=1)


@dataclass
class Patch:
    """The box of one organelle: views into the cytoplasm and centred coordinates."""

    box: tuple[slice, slice, slice]
    offset_nm: tuple[np.ndarray, np.ndarray, np.ndarray]
    """coordinates from the centre, one array an axis, ready to broadcast"""

    def along(self, direction: np.ndarray) -> np.ndarray:
        """Coordinate along a unit vector, float32 (z, y, x), in nm."""
        z, y, x = self.offset_nm
        return (z * direction[0] + y * direction[1] + x * direction[2]).astype(np.float32)


def patch(cytoplasm: Cytoplasm, centre: np.ndarray, reach_nm: float) -> Patch:
    """The part of the volume within ``reach_nm`` of the voxel ``centre`` on each axis."""
    box, offset = [], []
    for axis in range(3):
        pitch = cytoplasm.pitch_nm[axis]
        reach = int(np.ceil(reach_nm / pitch))
        low, high = max(centre[axis] - reach, 0), min(centre[axis] + reach + 1, cytoplasm.cells.shape[axis])
        box.append(slice(low, high))
        offset.append(
            ((np.arange(low, high) - centre[axis]) * pitch).reshape([-1 if a == axis else 1 for a in range(3)])
        )
    return Patch((box[0], box[1], box[2]), (offset[0], offset[1], offset[2]))


Draw = Callable[[Cytoplasm, np.ndarray, np.random.Generator], None]
"""Draws organelles of one kind where ``taken`` (bool, z, y, x) is false, and marks their voxels there."""


def add_mitochondria(cytoplasm: Cytoplasm, taken: np.ndarray, rng: np.random.Generator) -> None:
    """Draw mitochondria that keep clear of each other."""
    for centre in cytoplasm.places(70.0, rng.poisson(24 * cytoplasm.volume_um3), rng):
        _add_mitochondrion(cytoplasm, taken, centre, rng)


def add_organelles(cytoplasm: Cytoplasm, rng: np.random.Generator, mitochondria: Draw = add_mitochondria) -> None:
    """Draw all kinds of organelles into ``cytoplasm.image``; their numbers are proportional to the volume."""
    volume_um3 = cytoplasm.volume_um3
    taken = np.zeros(cytoplasm.cells.shape, bool)
    _add_nuclei(cytoplasm, taken, rng)
    mitochondria(cytoplasm, taken, rng)
    for centre in cytoplasm.places(48.0, rng.poisson(14 * volume_um3), rng):
        _add_vacuole(cytoplasm, taken, centre, rng)
    for centre in _clusters(cytoplasm, rng.poisson(16 * volume_um3), rng):
        _add_vesicle(cytoplasm, taken, centre, rng)


def shell(part: Patch, radii_nm: np.ndarray, axes: np.ndarray, wobble: np.ndarray) -> np.ndarray:
    """Signed distance in nm (about; negative inside) to an ellipsoid with ``axes`` as rows and a wavy surface."""
    square = sum((part.along(axes[k]) / np.float32(radii_nm[k])) ** 2 for k in range(3))
    return (np.sqrt(square) - 1) * np.float32(radii_nm.min()) + wobble


def frame(rng: np.random.Generator) -> np.ndarray:
    """Three orthogonal unit vectors as rows, by Gram and Schmidt."""
    first, second = rng.normal(size=(2, 3))
    first /= np.linalg.norm(first)
    second -= first * (first * second).sum()
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


def room_of(cytoplasm: Cytoplasm, taken: np.ndarray, part: Patch, centre: np.ndarray, clear_nm: float) -> np.ndarray:
    """Where an organelle of the cell at ``centre`` may be drawn."""
    own = cytoplasm.cells[part.box] == cytoplasm.cells[tuple(centre)]
    return own & (cytoplasm.depth_nm[part.box] > clear_nm) & ~taken[part.box]


def ramp(distance_nm: np.ndarray, width_nm: float) -> np.ndarray:
    """1 inside, 0 outside, linear over ``width_nm`` around the surface."""
    return np.clip(0.5 - distance_nm / np.float32(width_nm), 0, 1)


def line(distance_nm: np.ndarray, width_nm: float) -> np.ndarray:
    """1 on the surface, falling to 0 like a Gaussian."""
    return np.exp(-((distance_nm / np.float32(width_nm)) ** 2))


def _add_mitochondrion(cytoplasm: Cytoplasm, taken: np.ndarray, centre: np.ndarray, rng: np.random.Generator) -> None:
    """A dark sausage with a darker double membrane and folded cristae."""
    depth = float(cytoplasm.depth_nm[tuple(centre)])
    thick = min(rng.uniform(60, 150), max(depth * rng.uniform(0.75, 1.15), 50.0))
    radii = np.array([thick * rng.uniform(1.2, 3.2), thick, thick * rng.uniform(0.8, 1.1)])
    axes = frame(rng)
    part = patch(cytoplasm, centre, float(radii.max()) * 1.1 + 20)
    room = room_of(cytoplasm, taken, part, centre, rng.uniform(22, 34))
    wobble = 9 * smooth_noise(room.shape, cytoplasm.pitch_nm, 90.0, rng)
    distance = np.maximum(shell(part, radii, axes, wobble), np.float32(26) - cytoplasm.depth_nm[part.box])
    body = ramp(distance, 10) * room
    fold = part.along(axes[0]) + 30 * smooth_noise(room.shape, cytoplasm.pitch_nm, 70.0, rng)
    cristae = np.sin(fold * np.float32(2 * np.pi / rng.uniform(42, 62)))
    matrix = rng.uniform(72, 104) + rng.uniform(3, 14) * cristae
    matrix -= rng.uniform(14, 30) * line(distance + 6, 8)
    view = cytoplasm.image[part.box]
    view += body * (matrix.astype(np.float32) - view)
    taken[part.box] |= (distance < 15) & room
    cytoplasm.note(part, (distance < 0) & room, "mitochondrion")


def _add_vacuole(cytoplasm: Cytoplasm, taken: np.ndarray, centre: np.ndarray, rng: np.random.Generator) -> None:
    """An endosome or a piece of reticulum: a pale lumen behind a single membrane; round, flat or tubular."""
    radius = min(rng.uniform(28, 80), 0.9 * float(cytoplasm.depth_nm[tuple(centre)]))
    radii = radius * np.array([rng.uniform(1.0, 3.5), 1.0, rng.uniform(0.35, 1.0)])
    part = patch(cytoplasm, centre, float(radii.max()) * 1.2 + 20)
    room = room_of(cytoplasm, taken, part, centre, 24.0)
    wobble = 8 * smooth_noise(room.shape, cytoplasm.pitch_nm, 70.0, rng)
    distance = shell(part, radii, frame(rng), wobble)
    view = cytoplasm.image[part.box]
    view += room * ramp(distance, 8) * (np.float32(rng.uniform(150, 205)) - view)
    view -= room * np.float32(rng.uniform(38, 62)) * line(distance, 9)
    taken[part.box] |= (distance < 12) & room
    cytoplasm.note(part, (distance < 0) & room, "vacuole")


def _add_nuclei(cytoplasm: Cytoplasm, taken: np.ndarray, rng: np.random.Generator) -> None:
    """A nucleus wherever a cell is deep enough: mottled chromatin behind a double membrane."""
    for centre in cytoplasm.places(300.0, 3, rng):
        depth = float(cytoplasm.depth_nm[tuple(centre)])
        part = patch(cytoplasm, centre, depth + 40)
        room = room_of(cytoplasm, taken, part, centre, 60.0)
        wobble = 25 * smooth_noise(room.shape, cytoplasm.pitch_nm, 250.0, rng)
        distance = shell(part, depth * rng.uniform(0.6, 0.8, 3), frame(rng), wobble)
        if taken[part.box][distance < 40].any():
            continue
        chromatin = 118 + 16 * smooth_noise(room.shape, cytoplasm.pitch_nm, 75.0, rng)
        view = cytoplasm.image[part.box]
        view += room * ramp(distance, 12) * (chromatin - view)
        view -= room * 45 * (line(distance - 14, 9) + line(distance + 14, 9))
        taken[part.box] |= (distance < 30) & room
        cytoplasm.note(part, (distance < 0) & room, "nucleus")


def _clusters(cytoplasm: Cytoplasm, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Voxels for vesicles, in clouds around ``count`` centres."""
    for heart in cytoplasm.places(45.0, count, rng):
        spread_nm = rng.uniform(60, 160)
        for _ in range(rng.integers(10, 50)):
            centre = np.rint(heart + rng.normal(0, spread_nm, 3) / np.array(cytoplasm.pitch_nm)).astype(np.intp)
            inside = ((centre >= 0) & (centre < np.array(cytoplasm.cells.shape))).all()
            if inside and cytoplasm.cells[tuple(centre)] == cytoplasm.cells[tuple(heart)]:
                yield centre


def _add_vesicle(cytoplasm: Cytoplasm, taken: np.ndarray, centre: np.ndarray, rng: np.random.Generator) -> None:
    """A ring of about 45 nm, sometimes with a dense core."""
    radius, dense = rng.uniform(14, 22), rng.random() < 0.25
    if cytoplasm.depth_nm[tuple(centre)] < radius + 16 or taken[tuple(centre)]:
        return
    part = patch(cytoplasm, centre, radius + 16)
    distance = np.sqrt(sum(axis.astype(np.float32) ** 2 for axis in part.offset_nm)) - np.float32(radius)
    room = room_of(cytoplasm, taken, part, centre, 14.0)
    view = cytoplasm.image[part.box]
    view -= room * np.float32(30) * (ramp(distance, 12) if dense else line(distance, 9))
