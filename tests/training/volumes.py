"""Small labelled volumes for the tests of training."""

from __future__ import annotations

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.training.config import Augmentation, LabelledVolume
from pipeline.volumes import create_volume
from pipeline.volumes.base import VolumeSpec

OFF = Augmentation(
    transpose=False, rescale=0, misalignment=0, contrast=0, blur=0, noise=0, shading=0, missing_sections=0
)
"""With these settings, patches are flipped and otherwise unchanged."""


def store(
    name: str,
    image: np.ndarray,
    labels: np.ndarray,
    box: BoundingBox | None = None,
    *,
    offset: Vec = (0, 0, 0),
    resolution_nm: tuple[float, float, float] = (8.0, 8.0, 8.0),
) -> LabelledVolume:
    """Volumes in memory, with the box of them that is used (all if left out)."""
    bounds = BoundingBox.from_shape(image.shape, offset)  # type: ignore[arg-type]
    used = bounds if box is None else box
    urls = {}
    for kind, array in (("image", image), ("labels", labels)):
        urls[kind] = f"memory://training-{name}-{kind}"
        spec = VolumeSpec(bounds, resolution_nm, array.dtype, storage_chunk=(16, 16, 16))
        create_volume(urls[kind], spec, overwrite=True).write(bounds, array)
    return LabelledVolume(**urls, start=used.start, stop=used.stop)


def cubes(shape: Vec, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """An image of bright cubes with dark walls, and their labels: tissue that a small network learns at once."""
    place = np.indices(shape)
    number = (place // side).transpose(1, 2, 3, 0) @ np.array([10_000, 100, 1]) + 1
    wall = ((place % side == 0) | (place % side == side - 1)).any(0)
    return np.where(wall, 60, 190).astype(np.uint8), number.astype(np.uint32)
