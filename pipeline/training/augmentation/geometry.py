"""Changes of geometry, which move the image and all label arrays together. Voxels from outside the patch get label 0.

Arrays are lists: first the channels of the image, as many as ``images`` says, then labels; all (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from pipeline.training.augmentation.settings import Augmentation

if TYPE_CHECKING:
    from monai.transforms import Resample

DEFAULTS = Augmentation()


def turn(
    arrays: list[np.ndarray], transpose: bool, isotropic: bool, rng: np.random.Generator, *, flip: bool = True
) -> list[np.ndarray]:
    """Flip and transpose all arrays in the same random way; shapes are kept, so only equal sides are swapped."""
    shape = arrays[0].shape
    axes = [0, 1, 2]
    if transpose and shape[1] == shape[2]:
        cubic = isotropic and len(set(shape)) == 1
        axes = list(rng.permutation(3)) if cubic else [0, *(rng.permutation(2) + 1)]
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5) if flip else ()
    return [np.array(np.flip(array.transpose(axes), flips), order="C") for array in arrays]


def draw_factor(config: Augmentation, rng: np.random.Generator) -> float:
    """Voxels of the volume for one voxel of the patch: 1 in half of the cases, else log-uniform around 1."""
    top = np.log1p(config.rescale)
    return float(np.exp(rng.uniform(-top, top))) if top and rng.random() < 0.5 else 1.0


def resample(image: np.ndarray, labels: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Resample both to a shape (z, y, x): the image by linear interpolation, labels by the nearest voxel.

    image: (z, y, x), or (c, z, y, x), of which each channel is resampled.
    """
    if image.ndim == 4:
        return np.stack([resample(channel, labels, shape)[0] for channel in image]), nearest(labels, shape)
    if image.shape == shape:
        return image, labels
    zoom = [n / m for n, m in zip(shape, image.shape, strict=True)]
    return ndimage.zoom(image, zoom, order=1, grid_mode=True, mode="nearest"), nearest(labels, shape)


def nearest(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample labels to a shape (z, y, x): each voxel takes the label of the voxel in which it lies."""
    places = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, labels.shape, strict=True)]
    return labels[np.ix_(*places)]


def misalign(
    arrays: list[np.ndarray], rng: np.random.Generator, config: Augmentation = DEFAULTS, images: int = 1
) -> list[np.ndarray]:
    """Shift or rotate one section, or all from it on, in the plane. A patch of a single section is not changed.

    The first section is never moved.
    """
    if len(arrays[0]) < 2:
        return arrays
    most = config.misalignment_voxels
    first = int(rng.integers(1, len(arrays[0])))
    shift = [int(d) for d in rng.integers(-most, most + 1, size=2)]
    moved = slice(first, first + 1 if rng.random() < config.misalignment_slip else None)
    if config.misalignment_rotation and rng.random() < config.misalignment_rotation:
        corner = np.hypot(*arrays[0].shape[1:]) / 2
        return rotated(arrays, moved, rng.uniform(-1, 1) * most / corner, images)
    return shifted(arrays, moved, shift, images)


def shifted(arrays: list[np.ndarray], sections: slice, shift: list[int], images: int = 1) -> list[np.ndarray]:
    """Move these sections by whole voxels; voxels that are wrapped around get label 0, not known."""
    wrapped = [slice(0, d) if d >= 0 else slice(d, None) for d in shift]
    arrays = [array.copy() for array in arrays]
    for number, array in enumerate(arrays):
        array[sections] = np.roll(array[sections], shift, axis=(1, 2))
        if number >= images:
            array[sections, wrapped[0]] = 0
            array[sections, :, wrapped[1]] = 0
    return arrays


def rotated(arrays: list[np.ndarray], sections: slice, angle: float, images: int = 1) -> list[np.ndarray]:
    """Rotate these sections about their middle, by ``angle`` radians."""
    from monai.transforms import AffineGrid

    grid = torch.as_tensor(AffineGrid(rotate_params=angle)(spatial_size=arrays[0].shape[1:])[0])
    arrays = [array.copy() for array in arrays]
    for number, array in enumerate(arrays):
        array[sections] = sampled(array[sections], grid, labels=number >= images)
    return arrays


def warp(arrays: list[np.ndarray], config: Augmentation, rng: np.random.Generator, images: int = 1) -> list[np.ndarray]:
    """Apply rotation, shear, stretch and twist (with probability ``warp``) and a smooth deformation (``elastic``)."""
    plane = arrays[0].shape[1:]
    bend = bool(config.warp) and rng.random() < config.warp
    smooth = bool(config.elastic) and rng.random() < config.elastic
    grid = deformation(plane, config, rng) if smooth else None
    grids = affine(len(arrays[0]), plane, grid, config, rng) if bend else [] if grid is None else [grid]
    return [along(array, grids, labels=number >= images) for number, array in enumerate(arrays)] if grids else arrays


def along(array: np.ndarray, grids: Sequence[torch.Tensor], *, labels: bool) -> np.ndarray:
    """Sample each section at the places of its grid, or all sections at those of a single grid."""
    if len(grids) == 1:
        return sampled(array, grids[0], labels=labels)
    sections = zip(array, grids, strict=True)
    return np.concatenate([sampled(section[None], grid, labels=labels) for section, grid in sections])


def affine(
    sections: int, plane: tuple[int, ...], grid: torch.Tensor | None, config: Augmentation, rng: np.random.Generator
) -> list[torch.Tensor]:
    """Source positions of each section's voxels: a rotation, shear and stretch, and a twist from first to last."""
    from monai.transforms import AffineGrid, create_grid

    turn, twist = np.radians(rng.uniform(-config.warp_degrees, config.warp_degrees, 2))
    shear = rng.uniform(-config.warp_stretch, config.warp_stretch, 2).tolist()
    scale = np.exp(rng.uniform(-1, 1, 2) * np.log1p(config.warp_stretch)).tolist()
    angles = (turn + twist * (np.linspace(-0.5, 0.5, sections) if sections > 1 else np.zeros(1))).tolist()
    places = torch.as_tensor(create_grid(plane)) if grid is None else grid
    transforms = (AffineGrid(rotate_params=a, shear_params=shear, scale_params=scale) for a in angles)
    return [torch.as_tensor(transform(grid=places)[0]) for transform in transforms]


def deformation(plane: tuple[int, ...], config: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """Source positions of voxels: random moves of supports, cubic between them, as in MONAI's ``Rand2DElastic``."""
    from monai.transforms import CenterSpatialCrop, RandDeformGrid

    spacing = (float(config.elastic_spacing),) * 2
    deform = RandDeformGrid(spacing, (0, config.elastic_voxels))
    deform.set_random_state(int(rng.integers(2**31)))
    supports = deform(plane)[None]
    dense = torch.nn.functional.interpolate(
        supports, scale_factor=list(spacing), mode="bicubic", align_corners=False, recompute_scale_factor=True
    )
    return CenterSpatialCrop(roi_size=plane)(dense[0])


def sampled(array: np.ndarray, grid: torch.Tensor, *, labels: bool) -> np.ndarray:
    """Sections (z, y, x) at the places of a grid (2 or 3, y, x), in voxels from the middle.

    The image is interpolated, and its border is repeated outside; labels take the nearest voxel, and are 0 outside.
    """
    if not labels:
        image = torch.from_numpy(np.ascontiguousarray(array, np.float32))
        return _resampler()(image, grid, mode="bilinear", padding_mode="border").numpy().astype(array.dtype)
    ids, codes = np.unique(array, return_inverse=True)  # float32 cannot hold large labels
    places = torch.from_numpy(1 + codes.reshape(array.shape).astype(np.float32))
    found = _resampler()(places, grid, mode="nearest", padding_mode="zeros").numpy()
    return np.concatenate([np.zeros(1, array.dtype), ids])[found.astype(int)]


@cache
def _resampler() -> Resample:
    from monai.data import set_track_meta
    from monai.transforms import Resample

    set_track_meta(False)
    return Resample(dtype=np.float32)
