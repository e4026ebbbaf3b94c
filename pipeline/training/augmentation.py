"""Random changes of a training patch, as electron microscopes and microtomes make them.

Geometry is changed for image and labels together; brightness for the image alone. Images are float32 from 0 to 1.
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
