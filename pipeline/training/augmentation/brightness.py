"""Changes of brightness, of the image alone: (z, y, x) from 0 to 1."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.training.augmentation.sections import (
    cut_blur,
    cut_noise,
    defocus_sections,
    lose_parts,
    lose_sections,
    smear_sections,
)
from pipeline.training.augmentation.settings import Augmentation


def change_intensity(image: np.ndarray, config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness, gamma, blur, noise, shading and sections; then what is off by default."""
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
        image = lose_sections(image, rng, config.missing_most, config.missing_partial)
    return add_defects(image, config, rng)


def add_defects(image: np.ndarray, config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Apply every further change with its own probability; a change that is off draws no random number."""
    c = config
    changes = (
        (c.grey, lambda: change_grey(image, rng)),
        (c.invert, lambda: 1 - image),
        (c.blurred_sections, lambda: defocus_sections(image, c, rng)),
        (c.motion_blur, lambda: smear_sections(image, c, rng)),
        (c.missing_parts, lambda: lose_parts(image, rng)),
        (c.cut_blur, lambda: cut_blur(image, c.cut_size, rng)),
        (c.cut_noise, lambda: cut_noise(image, c.cut_size, rng)),
    )
    for share, change in changes:
        if share and rng.random() < share:
            image = change()
    return image


def change_grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness and gamma as Lee et al. 2017: in half of the cases of the patch, else of each
    section.

    Gamma is applied between fixed black and white, as published; MONAI applies it between the patch's darkest and
    brightest voxel.
    """
    drawn = (len(image) if rng.random() < 0.5 else 1, 1, 1)
    contrast, brightness = 1 + rng.uniform(-0.15, 0.15, drawn), rng.uniform(-0.15, 0.15, drawn)
    changed: np.ndarray = np.clip(image * contrast + brightness, 0, 1) ** 2 ** rng.uniform(-1, 1, drawn)
    return changed


def shading(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A slow change of brightness, standard deviation 0.12 at its 3 x 3 x 3 supports."""
    zoom = [n / 3 for n in shape]
    return ndimage.zoom(rng.normal(0, 0.12, (3, 3, 3)), zoom, order=1, grid_mode=True, mode="nearest")
