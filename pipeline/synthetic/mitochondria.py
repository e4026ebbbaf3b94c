"""Mitochondria in EM-like tissue with exact ground truth; many touch, so that a mask alone does not tell them apart.

1. Tissue with its cells, and with the other organelles as distractors      ``tissue.tissue_with``
2. Clusters of one to three mitochondria inside a cell                      ``_Clusters.add``
3. Where two of a cluster meet, each ends at the surface of equal distance  ``_apart``
       and has its own membrane there: a thin dark line in the image
4. Labels of the section's middle, one for each connected piece             ``_labels``
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from skimage import measure

from pipeline.config.base import Count, CountOrZero, Positive, Shape, Share, Table
from pipeline.geometry import Vec
from pipeline.synthetic.noise import smooth_noise
from pipeline.synthetic.organelles import Cytoplasm, Patch, add_organelles, frame, line, patch, ramp, room_of, shell
from pipeline.synthetic.sample import Sample, sample_rng
from pipeline.synthetic.tissue import subsections, tissue_with


class MitochondriaConfig(Table):
    """Numbers of the generator."""

    shape: Shape = Vec(64, 192, 192)
    """Voxels (z, y, x) of each volume."""
    resolution_nm: Shape = Vec(8, 8, 8)
    """Nanometres per voxel (z, y, x)."""
    clusters_per_um3: Positive = 30.0
    """Places for a cluster that are tried in a cubic micrometre; one is left out where there is no room."""
    touching: Share = 0.6
    """Share of the clusters with more than one mitochondrion."""
    most: Count = 3
    """Mitochondria of the largest clusters."""
    smallest: CountOrZero = 100
    """Pieces of fewer voxels, cut off at a border, have no label."""


DEFAULT = MitochondriaConfig()


def make_mitochondria_sample(index: int, *, seed: int = 0, config: MitochondriaConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set: image uint8 and mitochondria uint32, both (z, y, x).

    Labels are 1, 2, ...; each is one 6-connected piece. ``more`` counts ``mitochondria`` and ``touching``, those of
    them that share a face with another.
    """
    own = int(sample_rng(seed, index).integers(2**62))
    clusters = _Clusters(config)
    organelles = partial(add_organelles, mitochondria=clusters.add)
    tissue = tissue_with(organelles, config.shape, seed=own, resolution_nm=config.resolution_nm)
    thin = subsections(config.resolution_nm)
    labels = _labels(clusters.labels[thin // 2 :: thin], config.smallest)
    more = {"mitochondria": int(labels.max()), "touching": len(touching(labels)), "tissue_seed": str(own)}
    return Sample(tissue.image, labels, more)


@dataclass
class _Clusters:
    """Draws clusters, and keeps the number of the mitochondrion at every voxel that it drew."""

    config: MitochondriaConfig
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint32))
    """uint32, (z, y, x) of the thin sections; 0 outside."""

    def add(self, cytoplasm: Cytoplasm, taken: np.ndarray, rng: np.random.Generator) -> None:
        """Draw all clusters."""
        self.labels = np.zeros(cytoplasm.cells.shape, np.uint32)
        count = rng.poisson(self.config.clusters_per_um3 * cytoplasm.volume_um3)
        for centre in cytoplasm.places(60.0, count, rng):
            if not taken[tuple(centre)]:
                self._add_cluster(cytoplasm, taken, centre, rng)

    def _add_cluster(
        self, cytoplasm: Cytoplasm, taken: np.ndarray, centre: np.ndarray, rng: np.random.Generator
    ) -> None:
        several = self.config.most > 1 and rng.random() < self.config.touching
        number = int(rng.integers(2, self.config.most + 1)) if several else 1
        depth = float(cytoplasm.depth_nm[tuple(centre)])
        thick = min(rng.uniform(60, 130), max(depth * rng.uniform(0.7, 1.0), 50.0))
        part = patch(cytoplasm, centre, 2.2 * number * thick + 20)
        room = room_of(cytoplasm, taken, part, centre, rng.uniform(22, 34))
        near_membrane = np.float32(26) - cytoplasm.depth_nm[part.box]
        distances = [
            np.maximum(each, near_membrane) for each in _members(part, number, thick, cytoplasm, room.shape, rng)
        ]
        for distance in _apart(distances):
            _draw(cytoplasm, part, distance, room, rng)
            self.labels[part.box][(distance < 0) & room] = self.labels.max() + 1
        taken[part.box] |= (np.min(distances, axis=0) < 15) & room


def _members(
    part: Patch,
    number: int,
    thick: float,
    cytoplasm: Cytoplasm,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Signed distance in nm to each mitochondrion of a cluster, in a row, side by side or end to end."""
    axes, distances, place = frame(rng), [], -0.5 * (number - 1)
    way = axes[int(rng.integers(2))]  # along the sausages, or across
    for _ in range(number):
        radii = np.array([thick * rng.uniform(1.1, 1.8), thick * rng.uniform(0.8, 1.0), thick * rng.uniform(0.8, 1.0)])
        step = 1.75 * (radii[0] if way is axes[0] else radii[1])
        moved = Patch(part.box, tuple(o - place * step * w for o, w in zip(part.offset_nm, way, strict=True)))  # type: ignore[arg-type]
        wobble = 7 * smooth_noise(shape, cytoplasm.pitch_nm, 90.0, rng)  # type: ignore[arg-type]
        distances.append(shell(moved, radii, axes, wobble))
        place += 1
    return distances


def _apart(distances: list[np.ndarray]) -> list[np.ndarray]:
    """The same distances, where each mitochondrion ends halfway to any other of its cluster."""
    apart = []
    for number, own in enumerate(distances):
        others = [(own - other) / 2 for k, other in enumerate(distances) if k != number]
        apart.append(np.maximum.reduce([own, *others]))
    return apart


def _draw(cytoplasm: Cytoplasm, part: Patch, distance: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> None:
    """A dark body with folded cristae and a darker membrane, also where it touches another."""
    fold = part.along(frame(rng)[0]) + 30 * smooth_noise(room.shape, cytoplasm.pitch_nm, 70.0, rng)  # type: ignore[arg-type]
    matrix = rng.uniform(78, 108) + rng.uniform(3, 14) * np.sin(fold * np.float32(2 * np.pi / rng.uniform(42, 62)))
    matrix -= rng.uniform(26, 40) * line(distance + 4, 8)
    view = cytoplasm.image[part.box]
    view += ramp(distance, 10) * room * (matrix.astype(np.float32) - view)


def _labels(drawn: np.ndarray, smallest: int) -> np.ndarray:
    """One label for each connected piece, uint32; small pieces are background."""
    pieces = measure.label(drawn, connectivity=1, background=0)
    kept = np.bincount(pieces.ravel()) >= max(smallest, 1)
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    return numbers[pieces]


def touching(labels: np.ndarray) -> set[int]:
    """The labels (z, y, x) that share a face of a voxel with another label; 0 is background."""
    found: set[int] = set()
    for axis in range(3):
        a, b = (np.take(labels, range(start, labels.shape[axis] - 1 + start), axis=axis) for start in (0, 1))
        meet = (a != b) & (a > 0) & (b > 0)
        found |= {*np.unique(a[meet]).tolist(), *np.unique(b[meet]).tolist()}
    return found
