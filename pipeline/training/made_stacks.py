"""Made-up stacks of maps with true labels: what the second network of thick sections learns from, without any image.

1. Cells that fill the volume, in sections of 30 to 50 nm, voxels of 4 to 10 nm     ``neurites.make_cells``
2. Each section shifted and bent a little against the others                          ``_displaced``
3. The true maps of each section                                                      ``section_maps.true_maps``
4. The maps as a network errs: some cells of a section are merged, others cut, in     ``_erring``
   parts of it; membranes that the knife cut obliquely are wide and faint; rings as of
   mitochondria; blur, noise and a wrong calibration, another for each section

The labels of step 2 are the truth: errors and faults change the maps only.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.geometry import Vec
from pipeline.synthetic.neurites import connected_objects, make_cells
from pipeline.synthetic.noise import smooth_noise
from pipeline.training.section_maps import true_maps

THIN = 2
"""Thin sections that are drawn for one: where their cells differ, the knife has cut a membrane obliquely."""
MARGIN = 16
"""Voxels around each section that shifts bring in."""
FAULTY = 0.15
"""Share of the volumes' sections that are shifted against all others by up to ``MARGIN`` / 2 voxels."""
LEAST = 0.01
"""Probabilities are kept this far from 0 and 1 before their logits are taken."""


def make_stack(shape: Vec, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps uint8 (7, z, y, x), 255 times the probability, and the true labels uint32 (z, y, x).

    shape: sections, and their voxels (y, x).
    """
    rng = np.random.default_rng([seed, *shape])
    side = float(rng.uniform(4, 10))
    pitch = (float(rng.uniform(30, 50)) / THIN, side, side)
    wide = (shape[0] * THIN, shape[1] + 2 * MARGIN, shape[2] + 2 * MARGIN)
    sections = make_cells(wide, pitch, rng).reshape(shape[0], THIN, *wide[1:])
    worst = rng.uniform(0.2, 1)
    drift = rng.normal(0, 2 * worst, (shape[0], 2))
    found = [_displaced(pair, shift, worst, rng) for pair, shift in zip(sections, drift, strict=True)]
    maps = np.stack([_erring(thin, worst, rng) for thin in found], axis=1)
    labels = connected_objects(np.stack([thin[0] for thin in found]), smallest=20)
    return np.rint(255 * maps).astype(np.uint8), labels.astype(np.uint32)


def _displaced(pair: np.ndarray, drift: np.ndarray, worst: float, rng: np.random.Generator) -> np.ndarray:
    """The thin sections (thin, y, x) of one section, shifted and bent alike, without the margin."""
    jump = rng.uniform(-MARGIN / 2, MARGIN / 2, 2) if rng.random() < FAULTY * worst else 0.0
    inner = tuple(side - 2 * MARGIN for side in pair.shape[1:])
    grid = np.meshgrid(*map(np.arange, inner), indexing="ij")
    places = []
    for axis, move in enumerate(np.clip(drift + jump, -MARGIN + 4, MARGIN - 4)):
        bend = worst * _field(inner, 48.0, rng)
        places.append(np.clip(np.rint(grid[axis] + MARGIN + move + bend), 0, pair.shape[1 + axis] - 1).astype(np.intp))
    return pair[:, places[0], places[1]]


def _erring(thin: np.ndarray, worst: float, rng: np.random.Generator) -> np.ndarray:
    """The maps (7, y, x) of a section (thin, y, x) as a network finds them; ``worst`` is from 0 to 1."""
    labels = thin[0]
    true, wrong = true_maps(labels), true_maps(_confused(labels, rng))
    share = rng.uniform(0.02, 0.3) * worst
    where = _field(labels.shape, float(rng.uniform(10, 40)), rng)
    mixed = 1 / (1 + np.exp(np.clip((where - np.quantile(where, share)) / rng.uniform(0.05, 0.5), -30, 30)))
    maps = true + mixed * (wrong - true)
    oblique = ndimage.uniform_filter((thin != labels).any(0).astype(np.float32), 3) * rng.uniform(0, 0.8)
    maps[0] = np.maximum(np.maximum(maps[0], oblique), _rings(labels.shape, worst, rng))
    sharp = rng.uniform(0.4, 1.6)
    maps = ndimage.gaussian_filter(maps, (0, sharp, sharp))
    maps[0] = np.clip(maps[0] * (1 + sharp / 2), 0, 1)
    maps[0] = _calibrated(maps[0], worst, rng)
    spread = rng.uniform(0.01, 0.1) * worst
    return np.clip(
        maps + spread * np.stack([np.zeros_like(where), *(_grain(where.shape, rng) for _ in maps[1:])]), 0, 1
    )


def _confused(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labels (y, x) of a section, each third cell merged with a neighbour and each third cut along a line."""
    result = labels.astype(np.int64)
    ids = np.unique(labels)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    for cell in ids[rng.random(len(ids)) < 0.33]:
        inside = labels == cell
        middle, angle = (float(y[inside].mean()), float(x[inside].mean())), rng.uniform(0, np.pi)
        beyond = (y - middle[0]) * np.cos(angle) + (x - middle[1]) * np.sin(angle) > 0
        result[inside & beyond] += int(ids[-1]) + 1
    table = np.arange(result.max() + 1)
    for one, other in zip(labels[:, :-1][labels[:, 1:] != labels[:, :-1]], _right(labels), strict=True):
        if one % 3 == other % 3:
            table[other] = table[one]
    return table[result]


def _right(labels: np.ndarray) -> np.ndarray:
    """The right one of each two cells that touch along x."""
    return labels[:, 1:][labels[:, 1:] != labels[:, :-1]]


def _rings(shape: tuple[int, ...], worst: float, rng: np.random.Generator) -> np.ndarray:
    """Closed lines (y, x) that are no membranes of cells, as around mitochondria."""
    found = np.zeros(shape, np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.poisson(worst * shape[0] * shape[1] / 6000)):
        middle, radius = rng.uniform(0, shape), rng.uniform(3, 16)
        stretch, angle = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
        along = (y - middle[0]) * np.cos(angle) + (x - middle[1]) * np.sin(angle)
        across = (x - middle[1]) * np.cos(angle) - (y - middle[0]) * np.sin(angle)
        distance = abs(np.hypot(along, across / stretch) - radius)
        found = np.maximum(found, rng.uniform(0.1, 0.9) * (distance < 1.2))
    return found


def _calibrated(membranes: np.ndarray, worst: float, rng: np.random.Generator) -> np.ndarray:
    """Membranes (y, x) with noise, and too sure or too unsure, too wide or too narrow."""
    p = np.clip(membranes, LEAST, 1 - LEAST)
    noise = _grain(p.shape, rng) * rng.uniform(0.1, 1.5) * worst
    logits = np.log(p / (1 - p)) * rng.uniform(0.6, 1.3) + rng.normal(0, 0.7 * worst) + noise
    return 1 / (1 + np.exp(-logits))


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise (y, x) of standard deviation about 1, in grains of one to eight voxels."""
    return _field(shape, float(rng.uniform(1.5, 8)), rng)


def _field(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field (y, x) that varies over so many voxels."""
    return smooth_noise((1, shape[0], shape[1]), (1e6, 1.0, 1.0), length, rng)[0]
