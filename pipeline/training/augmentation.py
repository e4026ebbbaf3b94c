"""Random changes of a training patch, as electron microscopes and microtomes make them.

Geometry (and voxel size) is changed for image and labels together; brightness for the image alone. Images are float32
from 0 to 1.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.training.config import Augmentation


def augment(
    image: np.ndarray, labels: list[np.ndarray], config: Augmentation, isotropic: bool, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A randomly changed image (z, y, x) float32, and its label arrays, turned as the image was.

    isotropic: all three axes may be swapped; otherwise only y and x.
    """
    image, *labels = turn([image, *labels], config.transpose, isotropic, rng)
    if rng.random() < config.misalignment:
        image, *labels = misalign([image, *labels], rng)
    return np.clip(change_intensity(image, config, rng), 0, 1).astype(np.float32), labels


def turn(arrays: list[np.ndarray], transpose: bool, isotropic: bool, rng: np.random.Generator) -> list[np.ndarray]:
    """All arrays flipped and transposed in the same random way; shapes are kept, so only equal sides are swapped."""
    shape = arrays[0].shape
    axes = [0, 1, 2]
    if transpose and shape[1] == shape[2]:
        cubic = isotropic and len(set(shape)) == 1
        axes = list(rng.permutation(3)) if cubic else [0, *(rng.permutation(2) + 1)]
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    return [np.ascontiguousarray(np.flip(array.transpose(axes), flips)) for array in arrays]


def draw_factor(config: Augmentation, rng: np.random.Generator) -> float:
    """How many voxels of the volume make one voxel of the patch: 1 for one half, else log-uniform around it."""
    top = np.log1p(config.rescale)
    return float(np.exp(rng.uniform(-top, top))) if top and rng.random() < 0.5 else 1.0


def resample(image: np.ndarray, labels: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Both brought to a shape (z, y, x): the image by linear interpolation, labels by the nearest voxel."""
    if image.shape == shape:
        return image, labels
    nearest = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, image.shape, strict=True)]
    zoom = [n / m for n, m in zip(shape, image.shape, strict=True)]
    return ndimage.zoom(image, zoom, order=1, grid_mode=True, mode="nearest"), labels[np.ix_(*nearest)]


def misalign(arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One section, or all from it on, shifted in the plane; what is wrapped around has label 0: not known.

    arrays: the image, then labels; all (z, y, x). A single section has nothing to be shifted against.
    """
    if len(arrays[0]) < 2:
        return arrays
    first = int(rng.integers(1, len(arrays[0])))
    shift = [int(d) for d in rng.integers(-3, 4, size=2)]
    moved = slice(first, first + 1 if rng.random() < 0.5 else None)
    wrapped = [slice(0, d) if d >= 0 else slice(d, None) for d in shift]
    arrays = [array.copy() for array in arrays]
    for number, array in enumerate(arrays):
        array[moved] = np.roll(array[moved], shift, axis=(1, 2))
        if number:
            array[moved, wrapped[0]] = 0
            array[moved, :, wrapped[1]] = 0
    return arrays


def change_intensity(image: np.ndarray, config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Contrast, brightness, gamma, blur, noise, shading and missing sections."""
    c = config.contrast
    image = (image - 0.5) * (1 + rng.uniform(-c, c)) + 0.5 + rng.uniform(-c, c) / 2
    image = np.clip(image, 0, 1) ** (2 ** rng.uniform(-2 * c, 2 * c))
    if rng.random() < config.blur:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.1))
    if rng.random() < config.noise:
        image = image + rng.normal(0, rng.uniform(0, 0.07), image.shape)
    if rng.random() < config.shading:
        image = image + shading(image.shape, rng)
    if rng.random() < config.missing_sections:
        image = lose_sections(image, rng)
    return image


def shading(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A slow change of brightness, standard deviation 0.12 at its 3 x 3 x 3 supports."""
    zoom = [n / 3 for n in shape]
    return ndimage.zoom(rng.normal(0, 0.12, (3, 3, 3)), zoom, order=1, grid_mode=True, mode="nearest")


def lose_sections(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One or two sections are filled with one value, or dimmed."""
    image = image.copy()
    for section in rng.integers(len(image), size=rng.integers(1, 3)):
        image[section] = rng.uniform(0, 1) if rng.random() < 0.5 else image[section] * rng.uniform(0.5, 1.5)
    return image
