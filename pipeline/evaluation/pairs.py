"""Two volumes that are compared voxel by voxel: what fits together, and how it is read in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from pipeline.errors import VolumeError, counted
from pipeline.geometry import ZERO, BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.volumes.base import Volume
from pipeline.volumes.coarser import same_size
from pipeline.volumes.presence import require_stored
from pipeline.volumes.resemblance import refuse_image_as_labels

BLOCK = Vec(256, 256, 256)
"""Voxels that are read at once; no score depends on them."""


@dataclass(frozen=True)
class Pair:
    """A volume of truth and a predicted one, and the voxels of both that are compared."""

    truth: Volume
    predicted: Volume
    box: BoundingBox
    minus_one_is_background: bool = False
    """-1 and the largest uint32 and uint64 are read as 0, as CREMI's files of clefts mean them."""

    def read(self, box: BoundingBox) -> tuple[np.ndarray, np.ndarray]:
        """The voxels of a box, (z, y, x): true and predicted ones."""
        true, predicted = self.truth.read(box), self.predicted.read(box)
        if self.minus_one_is_background:
            true, predicted = _without_minus_one(true), _without_minus_one(predicted)
        return true, predicted if predicted.ndim == 3 else predicted[0]

    def grid(self, block: Vec = BLOCK, halo: Vec = ZERO) -> ChunkGrid:
        """The blocks in which the box is read."""
        return ChunkGrid(self.box, self.box, block, (halo, halo))

    def require_scored(self, voxels: int) -> None:
        """Raise ``VolumeError`` if no voxel of the box is scored."""
        if not voxels:
            raise VolumeError(
                f"0 voxels of {self.truth.url} in {self.box} are to be scored: a score needs at least one; check the "
                "box. If -1 or the largest number is the background there, as in CREMI's clefts, say so: "
                "--minus-one-is-background"
            )

    @property
    def resolution_nm(self) -> tuple[float, float, float]:
        """Nanometres per voxel, z, y, x."""
        return self.truth.spec.resolution_nm

    @property
    def title(self) -> str:
        """What is compared, for people."""
        return f"{self.predicted.url} against {self.truth.url}, {self.box}"


def layers(grid: ChunkGrid) -> Iterator[list[Chunk]]:
    """The chunks of a grid layer by layer along z, so that whole sections are done before the next layer begins."""
    return (list(chunks) for _, chunks in groupby(grid, lambda chunk: chunk.index.z))


def require_labels(volume: Volume) -> None:
    """Raise ``VolumeError`` unless a volume holds integers without channels that do not look like an image."""
    if volume.spec.dtype.kind not in "ui" or volume.spec.channels is not None:
        raise VolumeError(
            f"{volume.url} holds {volume.spec.dtype} in {counted(volume.spec.channels or 1, 'channel')}; labels are "
            "integers without channels"
        )
    refuse_image_as_labels(volume)


def common_box(truth: Volume, predicted: Volume, box: BoundingBox | None) -> BoundingBox:
    """The voxels to compare; ``VolumeError`` if the two volumes do not fit each other or the box."""
    require_stored(truth)
    require_stored(predicted)
    if not same_size(truth.spec.resolution_nm, predicted.spec.resolution_nm):
        raise VolumeError(
            f"{truth.url} has voxels of {list(truth.spec.resolution_nm)} nm, {predicted.url} of "
            f"{list(predicted.spec.resolution_nm)} nm; only equal voxels can be compared: choose another mip (#mip=1)"
        )
    common = truth.spec.bounds.intersect(predicted.spec.bounds)
    if common.empty or (box is not None and (box.empty or not common.contains(box))):
        raise VolumeError(
            f"{'the volumes' if box is None else f'box {box}'} must lie in both {truth.url} ({truth.spec.bounds}) and "
            f"{predicted.url} ({predicted.spec.bounds}): correct --box, or the offset of a volume (#offset=z,y,x)"
        )
    return box or common


def _without_minus_one(labels: np.ndarray) -> np.ndarray:
    """The labels with 0 in place of -1, or of what -1 is without a sign; small unsigned types and floats have none."""
    kind, size = labels.dtype.kind, labels.dtype.itemsize
    if kind not in "iu" or (kind == "u" and size < 4):
        return labels
    minus_one = -1 if kind == "i" else np.iinfo(labels.dtype).max
    return np.where(labels == minus_one, labels.dtype.type(0), labels)
