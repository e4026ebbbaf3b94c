"""Faults of a stack of sections, as knife, water bath and microscope make them; uint8 image and labels, both (z, y, x).

    shifted     a section lies up to ``shift_voxels`` beside its place; its labels with it
    folded      tissue along a line lies in a dark fold and is hidden; what is beside it is drawn together
    dark        a section is darker, with less contrast
    missing     a section is black

Labels follow what the image shows: they move with shifts and folds, and are 0 under a fold. In dark and missing
sections they stay, since neurons go on there.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.config.base import CountOrZero, Share, Table

FOLD_VOXELS = (8.0, 28.0)
"""Least and largest width of the tissue that a fold hides."""
BAND = 0.35
"""Width of the dark band, as a share of what it hides."""
REACH = 4.0
"""A fold draws tissue together up to this many of its widths."""


class Faults(Table):
    """How many sections have which fault; none by default."""

    shift_voxels: CountOrZero = 0
    """The largest shift of each section in its plane, in voxels along y and x."""
    folds: Share = 0.0
    """Share of the sections with a fold."""
    dark: Share = 0.0
    """Share of the sections that are dark."""
    missing: Share = 0.0
    """Share of the sections that are missing, never two in a row."""

    @property
    def margin(self) -> int:
        """Voxels of tissue around the picture that shifts and folds bring in."""
        return self.shift_voxels + (int(FOLD_VOXELS[1] / 2) + 1 if self.folds else 0)


def add_faults(
    image: np.ndarray, labels: np.ndarray, faults: Faults, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, list[int]]]:
    """Image and labels with faults, without the ``margin`` around them; and which sections have which fault."""
    count, edge = len(image), faults.margin
    shares = {"folds": faults.folds, "dark": faults.dark, "missing": faults.missing}
    drawn = {name: _chosen(count, share, rng) for name, share in shares.items()}
    missing = _apart(drawn["missing"])
    found = {name: missing if name == "missing" else _without(zs, missing) for name, zs in drawn.items()}
    inner = (count, image.shape[1] - 2 * edge, image.shape[2] - 2 * edge)
    pictures, truth = np.empty(inner, np.uint8), np.empty(inner, labels.dtype)
    for z in range(count):
        places, band = _places(inner[1:], z in found["folds"], rng)
        places = places + edge + rng.integers(-faults.shift_voxels, faults.shift_voxels + 1, (2, 1, 1))
        picture = ndimage.map_coordinates(image[z].astype(np.float32), places, order=1, mode="nearest")
        picture = np.where(band, 0.25 * picture + 8, picture)
        picture = picture * rng.uniform(0.3, 0.6) if z in found["dark"] else picture
        pictures[z] = 0 if z in found["missing"] else np.clip(np.rint(picture), 0, 255)
        near = np.rint(places).astype(np.intp)
        truth[z] = np.where(
            band, 0, labels[z][near[0].clip(0, len(labels[z]) - 1), near[1].clip(0, labels.shape[2] - 1)]
        )
    return pictures, truth, found


def _chosen(count: int, share: float, rng: np.random.Generator) -> list[int]:
    """The sections that have a fault, each with probability ``share``."""
    return [int(z) for z in np.flatnonzero(rng.random(count) < share)]


def _without(sections: list[int], others: list[int]) -> list[int]:
    return [z for z in sections if z not in others]


def _apart(sections: list[int]) -> list[int]:
    """Those sections of which the one before is not kept."""
    kept: list[int] = []
    for z in sections:
        if not kept or z > kept[-1] + 1:
            kept.append(z)
    return kept


def _places(shape: tuple[int, ...], folded: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where each voxel of a section (y, x) comes from, float64 (2, y, x), and the band of a fold, bool (y, x)."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    if not folded:
        return grid, np.zeros(shape, bool)
    width, angle = rng.uniform(*FOLD_VOXELS), rng.uniform(0, np.pi)
    normal, middle = np.array([np.cos(angle), np.sin(angle)]), rng.uniform(0.2, 0.8, 2) * shape
    wave = 3 * np.sin((grid[0] * normal[1] - grid[1] * normal[0]) / rng.uniform(20, 60))
    away = (grid[0] - middle[0]) * normal[0] + (grid[1] - middle[1]) * normal[1] + wave
    pull = 0.5 * width * np.sign(away) * np.exp(-abs(away) / (REACH * width))
    return grid + pull * normal[:, None, None], abs(away) <= 0.5 * BAND * width
