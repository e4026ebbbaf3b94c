"""Defects of sections and of parts of them, as microtomes, dirt and microscopes make them; images (z, y, x), 0 to 1."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from pipeline.training.augmentation.settings import Augmentation


def lose_sections(image: np.ndarray, rng: np.random.Generator, most: int, partial: float) -> np.ndarray:
    """Up to ``most`` sections are filled with one value, or dimmed; a share of them in quarters only."""
    image = image.copy()
    for section in rng.integers(len(image), size=rng.integers(1, most + 1)):
        lost = rng.uniform(0, 1) if rng.random() < 0.5 else image[section] * rng.uniform(0.5, 1.5)
        where = quarters(image.shape[1:], rng) if partial and rng.random() < partial else np.True_
        image[section] = np.where(where, lost, image[section])
    return image


def quarters(plane: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One to three of the four quarters around a random point; a mask (y, x)."""
    point = [int(rng.integers(1, max(2, n))) for n in plane]
    y, x = np.ogrid[: plane[0], : plane[1]]
    which = 2 * (y >= point[0]) + (x >= point[1])
    return np.isin(which, rng.choice(4, rng.integers(1, 4), replace=False))


def lose_parts(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A band through up to a quarter of the sections, never two in a row, has the section's mean."""
    image = image.copy()
    free = list(range(len(image)))
    for _ in range(rng.integers(1, max(2, len(image) // 4 + 1))):
        if free:
            section = int(rng.choice(free))
            free = [other for other in free if abs(other - section) > 1]
            image[section][band(image.shape[1:], rng)] = image[section].mean()
    return image


def band(plane: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A band across a section, up to a quarter as wide, at most 128 voxels; a mask (y, x)."""
    point = [rng.uniform(0, n) for n in plane]
    angle, half = rng.uniform(0, np.pi), rng.uniform(1, max(2, min(64, min(plane) / 8)))
    y, x = np.ogrid[: plane[0], : plane[1]]
    return np.asarray(abs((y - point[0]) * np.cos(angle) + (x - point[1]) * np.sin(angle)) <= half)


def defocus_sections(image: np.ndarray, config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Up to ``blurred_most`` sections, half of them in quarters only, are blurred by a Gaussian."""
    from monai.transforms import GaussianSmooth

    image = image.copy()
    most = min(config.blurred_most, len(image))
    for section in rng.choice(len(image), rng.integers(1, most + 1), replace=False):
        smooth = GaussianSmooth(rng.uniform(0, config.blurred_voxels))
        blurred = np.asarray(smooth(torch.from_numpy(image[section][None].astype(np.float32))))[0]
        where = quarters(image.shape[1:], rng) if rng.random() < 0.5 else np.True_
        image[section] = np.where(where, blurred, image[section])
    return image


def smear_sections(image: np.ndarray, config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Two sections are averaged along y or x, as if the stage had moved."""
    image = image.copy()
    for section in rng.choice(len(image), min(2, len(image)), replace=False):
        axis = int(rng.integers(2))
        image[section] = ndimage.uniform_filter1d(image[section], config.motion_voxels, axis, mode="nearest")
    return image


def cut(shape: tuple[int, ...], size: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A random box whose sides are this share of a patch's."""
    sides = [max(1, round(n * size)) for n in shape]
    starts = [int(rng.integers(n - s + 1)) for n, s in zip(shape, sides, strict=True)]
    return tuple(slice(a, a + s) for a, s in zip(starts, sides, strict=True))


def cut_blur(image: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """A box has every second to every eighth voxel of the plane, repeated."""
    image, box, step = image.copy(), cut(image.shape, size, rng), int(rng.integers(2, 9))
    kept = [np.arange(n) // step * step for n in image[box].shape[1:]]
    image[box] = image[box][:, kept[0][:, None], kept[1]]
    return image


def cut_noise(image: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """A box has uniform noise of up to 0.3."""
    image, box = image.copy(), cut(image.shape, size, rng)
    image[box] += rng.uniform(-0.3, 0.3, image[box].shape)
    return image
