"""Random changes of a training patch, as electron microscopes and microtomes make them.

    settings     which changes, how often, how strong; presets
    geometry     changes of image and labels together: flips, size, misaligned sections, warps
    brightness   changes of the image alone
    sections     changes of the image alone: defects of sections and of boxes

Images are float32 from 0 to 1. A patch depends on its random generator alone. A change that is off draws no number, so
switching a change on or off does not alter the patches to which it is not applied.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from pipeline.training.augmentation.brightness import change_grey, change_intensity, shading
from pipeline.training.augmentation.geometry import draw_factor, misalign, nearest, resample, turn, warp
from pipeline.training.augmentation.sections import lose_sections
from pipeline.training.augmentation.settings import PRESETS, Augmentation

__all__ = [
    "PRESETS",
    "Augmentation",
    "augment",
    "change_grey",
    "change_intensity",
    "draw_factor",
    "lose_sections",
    "misalign",
    "nearest",
    "resample",
    "shading",
    "turn",
    "warp",
]


def augment(
    image: np.ndarray, labels: list[np.ndarray], config: Augmentation, isotropic: bool, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A randomly changed image (z, y, x) or (c, z, y, x) float32, and its label arrays, moved as the image was.

    All channels are moved and changed alike. isotropic: all three axes may be swapped; otherwise only y and x. A margin
    is not yet cut off.
    """
    channels = [image] if image.ndim == 3 else list(image)
    count = len(channels)
    arrays = warp(turn([*channels, *labels], config.transpose, isotropic, rng, flip=config.flips), config, rng, count)
    if rng.random() < config.misalignment:
        arrays = misalign(arrays, rng, config, count)
    changed = [np.clip(each, 0, 1).astype(np.float32) for each in _changed_alike(arrays[:count], config, rng)]
    return changed[0] if image.ndim == 3 else np.stack(changed), arrays[count:]


def _changed_alike(channels: list[np.ndarray], config: Augmentation, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The changes of brightness, with the same random numbers for each channel."""
    before = copy.deepcopy(rng)
    yield change_intensity(channels[0], config, rng)
    for channel in channels[1:]:
        yield change_intensity(channel, config, copy.deepcopy(before))
