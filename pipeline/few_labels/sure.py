"""The voxels of a finished run at which its network is sure, and agrees with the labels of the run.

A voxel is sure if its label is not 0 and, for each of its three affinities a = 255 p that lead to a labelled voxel,

    |2 p - 1| >= sure                         the network is sure of this affinity
    (p > 1/2) == (the labels' affinity)       it says what a training on these labels would teach

The labels' affinities are those of the training itself: objects are eroded where they touch, so that walls are sure
where the network sees a wall. The mask at a voxel depends on the voxels within ``halo`` alone, so it does not depend on
the chunks in which it is written.

Where a network predicts the foreground and makes no neurons, the run makes objects, label 0 is background, and the same
two conditions hold for the foreground, and for the contours if the network predicts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.stages import opened
from pipeline.training.target_kinds import Affinities, Contours, Foreground
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec

Progress = Callable[[int, int], None]
"""Called with how many chunks are done, and how many there are."""


@dataclass(frozen=True)
class SureRule:
    """When a voxel is sure."""

    sure: float
    """Least |2 p - 1| of a voxel's affinities p."""
    target: Affinities
    """The training's affinities; their erosion says what is a wall."""

    @property
    def targets(self) -> tuple[Affinities, ...]:
        """The targets whose heads are read."""
        return (self.target,)

    def read(self, run: Run, box: BoundingBox) -> np.ndarray:
        """The affinities of nearest neighbours of a run in a box, (3, z, y, x) uint8."""
        return run.affinities.read(box)

    @property
    def halo(self) -> Vec:
        """Voxels around a box on which its mask depends: an affinity's partner, and the erosion of both."""
        erosion = 1 + self.target.label_erosion
        return Vec(1, 1, 1) + Vec(1, erosion, erosion)

    def mask(self, affinities: np.ndarray, labels: np.ndarray, resolution_nm: tuple[float, float, float]) -> np.ndarray:
        """1 at sure voxels, 0 elsewhere, (z, y, x) uint8; it holds in the box without its halo.

        affinities: of the nearest neighbours, (3, z, y, x) uint8. labels: (z, y, x); 0 is not known.
        """
        nearest = self.target.model_copy(update={"offsets": NEAREST})
        wanted, known = nearest.target(labels.astype(np.int64), resolution_nm)
        doubled = 2 * affinities.astype(np.int16) - 255
        good = (np.abs(doubled) >= 255 * self.sure) & ((doubled > 0) == (wanted > 0))
        return ((good | (known == 0)).all(0) & (labels > 0)).astype(np.uint8)


@dataclass(frozen=True)
class SureObjects:
    """When a voxel of objects, or of the background, is sure."""

    sure: float
    """Least |2 p - 1| of a voxel's probabilities p."""
    targets: tuple[Foreground | Contours, ...]
    """The foreground, and contours if the network predicts them."""

    @property
    def halo(self) -> Vec:
        """Voxels around a box on which its mask depends: erosion of objects that touch, and the width of contours."""
        width = max(t.label_erosion + (t.dilation if isinstance(t, Contours) else 0) for t in self.targets)
        return Vec(1, width + 2, width + 2)

    def read(self, run: Run, box: BoundingBox) -> np.ndarray:
        """The heads of these targets in a box, (targets, z, y, x) uint8."""
        heads = [opened.source(run.layout.volume_url(target.what)).read(box) for target in self.targets]
        return np.concatenate([head.reshape(-1, *box.shape) for head in heads])

    def mask(self, heads: np.ndarray, labels: np.ndarray, resolution_nm: tuple[float, float, float]) -> np.ndarray:
        """1 at sure voxels, 0 elsewhere, (z, y, x) uint8; it holds in the box without its halo.

        heads: of the targets, (targets, z, y, x) uint8. labels: (z, y, x); 0 is background.
        """
        whole = labels.astype(np.int64)
        wanted = np.concatenate([target.target(whole, resolution_nm)[0] for target in self.targets])
        doubled = 2 * heads.astype(np.int16) - 255
        return ((np.abs(doubled) >= 255 * self.sure) & ((doubled > 0) == (wanted > 0.5))).all(0).astype(np.uint8)


def write_sure_mask(
    run: Run, url: str, rule: SureRule | SureObjects, tell: Progress = lambda done, total: None
) -> float:
    """Write the mask of a finished run as a volume, chunk by chunk; returns the share of sure voxels of its region.

    A call that was interrupted is repeated as a whole: the same bytes are written.
    """
    layout = run.layout
    spec = VolumeSpec(layout.bounds, layout.resolution_nm, np.dtype(np.uint8), storage_chunk=layout.storage_chunk_shape)
    target, labels = create_volume(url, spec), open_volume(run.layout.volume_url(run.kind.volume))
    grid, sure = layout.grid((rule.halo, rule.halo)), 0
    for number, chunk in enumerate(grid):
        box = chunk.read_box
        mask = rule.mask(rule.read(run, box), labels.read(box), layout.resolution_nm)
        core = mask[chunk.core.slices(box.start)]
        target.write(chunk.core, core)
        sure += int(core.sum())
        tell(number + 1, len(grid))
    return sure / layout.roi.voxels
