"""EM-like 3D tissue with exact ground truth. The demo segments it, and the bundled network was trained on it.

1. Cells that fill the volume                                        ``neurites.make_cells``
2. Brightness of the cytoplasm of each cell, with texture            ``_cytoplasm``
3. Organelles                                                        ``organelles.add_organelles``
4. Dark membranes where cells meet                                   ``_membranes``
5. Section thickness, staining, blur and noise of a microscope       ``_acquire``

A section thicker than a pixel is drawn as several thin ones and averaged, so that membranes cut obliquely are blurred
as in a real section; the labels are those of its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.errors import ConfigError
from pipeline.synthetic.borders import borders
from pipeline.synthetic.neurites import connected_objects, make_cells
from pipeline.synthetic.noise import smooth_noise
from pipeline.synthetic.organelles import Cytoplasm, add_organelles

MEMBRANE_NM = 15.0
"""Distance from the middle of the pair of membranes between two cells at which its darkness falls to 1/e."""

MAX_SUBSECTIONS = 4
"""The most thin sections that are drawn for one thick section; time grows with their number."""


Organelles = Callable[[Cytoplasm, np.random.Generator], None]


@dataclass(frozen=True)
class Tissue:
    """An image and its ground truth."""

    image: np.ndarray
    """uint8, (z, y, x); membranes are dark"""
    labels: np.ndarray
    """uint32, (z, y, x); 1, 2, ...; every voxel belongs to a cell, every cell is one 6-connected component"""
    resolution_nm: tuple[int, int, int]
    """nm per voxel, (z, y, x)"""


def make_tissue(shape: tuple[int, int, int], *, seed: int, resolution_nm: tuple[int, int, int] = (8, 8, 8)) -> Tissue:
    """Generate tissue: neurites of many calibres, organelles, uneven staining, blur and noise.

    The result depends on the arguments alone (with one version of numpy and scipy), not on the number of threads.
    Another shape gives other tissue, not a part of the same. Membranes are about 40 nm thick, as in the fly's brain at
    8 nm, so a resolution of 4 to 20 nm in y and x makes sense; thicker sections (z) are fine.

    Over 20 seeds of (64, 192, 192) at 8 nm: 36 to 58 cells (median 44), of 6,400, 22,600 and 50,100 voxels at the three
    quartiles and none under 420; the largest has 9 to 57 percent of the volume (median 19); brightness 128 +- 31. A
    piece of real FIB-SEM tissue of that size (fly medulla) has 38 cells with quartiles 3,400, 9,100 and 25,200, the
    largest with 30 percent, and brightness 128 +- 33.

    Args:
        shape: voxels, (z, y, x), each at least 1.
        seed: at least 0; another seed is another piece of tissue.
        resolution_nm: nm per voxel, (z, y, x).

    Raises:
        ConfigError: a shape or resolution below 1.
    """
    return tissue_with(add_organelles, shape, seed=seed, resolution_nm=resolution_nm)


def tissue_with(
    organelles: Organelles, shape: tuple[int, int, int], *, seed: int, resolution_nm: tuple[int, int, int]
) -> Tissue:
    """``make_tissue`` with other organelles: ``organelles(cytoplasm, rng)`` draws them before the microscope."""
    if len(shape) != 3 or min(shape) < 1 or len(resolution_nm) != 3 or min(resolution_nm) < 1:
        raise ConfigError(
            f"shape {shape}, resolution_nm {resolution_nm}: both need three numbers (z, y, x) of at least 1; "
            "for example (64, 192, 192) and (8, 8, 8)"
        )
    rng = np.random.default_rng([seed, *shape, *resolution_nm])
    thin = subsections(resolution_nm)
    pitch = (resolution_nm[0] / thin, float(resolution_nm[1]), float(resolution_nm[2]))
    cells = make_cells((shape[0] * thin, shape[1], shape[2]), pitch, rng)
    image = _draw(cells, pitch, organelles, rng)
    labels = connected_objects(cells[thin // 2 :: thin], 60.0**3 / float(np.prod(resolution_nm)))
    return Tissue(_acquire(image, thin, resolution_nm, rng), labels.astype(np.uint32), resolution_nm)


def subsections(resolution_nm: tuple[int, int, int]) -> int:
    """Thin sections that are drawn for a section; the middle one, ``subsections // 2``, has its labels."""
    return int(np.clip(round(resolution_nm[0] / min(resolution_nm[1:])), 1, MAX_SUBSECTIONS))


def _draw(
    cells: np.ndarray, pitch_nm: tuple[float, float, float], organelles: Organelles, rng: np.random.Generator
) -> np.ndarray:
    """The stained tissue itself, before a microscope sees it: float32, (z, y, x)."""
    depth = _depth(cells, pitch_nm)
    cytoplasm = Cytoplasm(_cytoplasm(cells, pitch_nm, rng), cells, depth, pitch_nm)
    organelles(cytoplasm, rng)
    return _membranes(cytoplasm.image, depth, pitch_nm, rng)


def _depth(cells: np.ndarray, pitch_nm: tuple[float, float, float]) -> np.ndarray:
    """Distance in nm of every voxel to the nearest face between two cells: float32, (z, y, x)."""
    border = borders(cells)
    if not border.any():
        return np.full(cells.shape, 1e4, np.float32)
    distance = ndimage.distance_transform_edt(~border, sampling=pitch_nm).astype(np.float32)
    return distance + np.float32(0.5 * min(pitch_nm))


def _cytoplasm(cells: np.ndarray, pitch_nm: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Brightness of the cells, pale and dark ones, with granules and clouds: float32, (z, y, x)."""
    base = rng.normal(156, 17, cells.max() + 1)
    dark = rng.random(len(base)) < 0.12
    base[dark] -= rng.uniform(15, 40, dark.sum())
    image = base.astype(np.float32)[cells]
    for length_nm, amplitude in ((22.0, 8.5), (55.0, 8.0), (220.0, 5.5)):
        image += amplitude * smooth_noise(cells.shape, pitch_nm, length_nm, rng)
    return image


def _membranes(
    image: np.ndarray, depth_nm: np.ndarray, pitch_nm: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Darken the borders of cells; their thickness and contrast drift, and some are dense as at synapses."""
    shape = image.shape
    width = MEMBRANE_NM * np.exp(0.18 * smooth_noise(shape, pitch_nm, 160.0, rng))
    density = smooth_noise(shape, pitch_nm, 130.0, rng)
    width += np.float32(14) * np.clip(density - np.float32(1.9), 0, 1)
    strength = np.clip(0.9 + 0.14 * smooth_noise(shape, pitch_nm, 120.0, rng), 0.4, 1.0)
    dark = 66 + 7 * smooth_noise(shape, pitch_nm, 300.0, rng)
    return image + strength * np.exp(-((depth_nm / width) ** 2)) * np.minimum(dark - image, -20)


def _acquire(image: np.ndarray, thin: int, resolution_nm: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """What the microscope records: uint8, (z, y, x), the thin sections averaged."""
    image = ndimage.gaussian_filter(image, [0 if thin > 1 else 0.8, 0.8, 0.8])
    image = image.reshape(-1, thin, *image.shape[1:]).mean(axis=1, dtype=np.float32)
    pitch = (float(resolution_nm[0]), float(resolution_nm[1]), float(resolution_nm[2]))
    image *= 1 + 0.05 * smooth_noise(image.shape, pitch, 900.0, rng)
    image += 5 * smooth_noise(image.shape, pitch, 600.0, rng)
    if thin > 1:
        image += rng.normal(0, 4, (len(image), 1, 1)).astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += 5.0 * ndimage.gaussian_filter(noise, 0.6) / np.float32(0.35) + 3.5 * rng.standard_normal(
        image.shape, dtype=np.float32
    )
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
