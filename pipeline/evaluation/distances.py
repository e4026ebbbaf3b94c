"""CREMI's distances between two masks: how far predicted voxels lie from the truth, and true ones from the prediction.

ADGT  the mean distance of predicted voxels to the nearest true one: far inventions
ADF   the mean distance of true voxels to the nearest predicted one: misses

A voxel of both masks counts with distance 0. A voxel's distance is measured in one of two ways:

- whole: the distance transform of all voxels at once, in memory; up to ``WHOLE_VOXELS``;
- with a cap: block by block with a halo of the cap; a longer distance counts as the cap. Memory stays flat.

Distances are square roots of whole numbers: the sides of a voxel are rounded to picometres and divided by what they
have in common (40 x 4 x 4 nm are 10 x 1 x 1). Equal whole numbers are counted, so the mean does not depend on the
blocks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.pairs import BLOCK, Pair
from pipeline.geometry import BoundingBox, Vec, product

WHOLE_VOXELS = 2**28
"""The most voxels that are measured at once, in about 4 GB; more need a cap."""
LARGEST_SQUARE = 2**62

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Distances:
    """Mean distances between two masks in nanometres; 0 is best."""

    adgt_nm: float
    """Of predicted voxels to the nearest true one"""
    adf_nm: float
    """Of true voxels to the nearest predicted one"""
    cap_nm: float | None
    """What a longer distance counts as; ``None`` where all were measured"""

    @property
    def cremi_nm(self) -> float:
        """CREMI's score of synaptic clefts: the mean of both."""
        return (self.adgt_nm + self.adf_nm) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: getattr(self, name) for name in ("adgt_nm", "adf_nm", "cremi_nm", "cap_nm")}


@dataclass(frozen=True)
class Steps:
    """The sides of a voxel as whole numbers of a common unit."""

    sides: Vec
    unit_nm: float

    @classmethod
    def of(cls, resolution_nm: tuple[float, float, float]) -> Steps:
        """The sides rounded to picometres, without their common divisor."""
        picometres = [max(1, round(1000 * side)) for side in resolution_nm]
        common = math.gcd(*picometres)
        z, y, x = (side // common for side in picometres)
        return cls(Vec(z, y, x), common / 1000)

    def halo(self, cap_nm: float) -> Vec:
        """Voxels along each axis within which every voxel up to a distance lies."""
        return Vec(*(math.floor(cap_nm / (side * self.unit_nm)) + 1 for side in self.sides))


def measure(
    pair: Pair,
    foreground: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    cap_nm: float | None = None,
    block: Vec = BLOCK,
    on_progress: Progress = lambda done, total: None,
) -> Distances | None:
    """Distances between the masks of two volumes; ``None`` if a mask has no voxel, since none is then defined.

    Args:
        pair: both volumes and the box; nothing outside the box counts.
        foreground: voxels of both -> the true and the predicted mask, bool.
        cap_nm: the longest distance; if left out, the whole box is measured at once.
        block: voxels that are measured at once with a cap.
        on_progress: called with (blocks done, blocks in all).

    Raises ``ConfigError`` for a cap that is not positive or whose halo does not fit into memory; ``VolumeError`` if the
    box is too large to be measured at once.
    """
    check_cap(pair.box, pair.resolution_nm, cap_nm, block)
    steps = Steps.of(pair.resolution_nm)
    grid = pair.grid(pair.box.shape) if cap_nm is None else pair.grid(block, steps.halo(cap_nm))
    squares: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for number, chunk in enumerate(grid):
        true, found = foreground(*pair.read(chunk.read_box))
        core = chunk.core.slices(chunk.read_box.start)
        for count, (here, there) in zip(squares, ((found, true), (true, found)), strict=True):
            count.update(_squares(here, there, core, steps.sides))
        on_progress(number + 1, len(grid))
    if not all(squares):
        return None
    adgt, adf = (_mean(count, steps.unit_nm, cap_nm) for count in squares)
    return Distances(adgt, adf, cap_nm)


FAR = -1
"""In place of a squared distance: the other mask has no voxel in the part that was read."""


def check_cap(box: BoundingBox, resolution_nm: tuple[float, float, float], cap_nm: float | None, block: Vec) -> None:
    """Refuse a cap that is no length, and blocks, with their halo, that do not fit into memory."""
    if cap_nm is not None and not 0 < cap_nm < math.inf:
        raise ConfigError(f"the cap is {cap_nm:g}; it must be a length above 0 in nm: --cap-nm 500")
    steps = Steps.of(resolution_nm)
    reads = box.shape if cap_nm is None else (block + steps.halo(cap_nm) * 2).minimum(box.shape)
    squared = sum((voxels * side) ** 2 for voxels, side in zip(reads, steps.sides, strict=True))
    if product(reads) > WHOLE_VOXELS or squared > LARGEST_SQUARE:
        remedy = "give the longest distance that counts, --cap-nm 500 (nm)" if cap_nm is None else "give a shorter one"
        raise (VolumeError if cap_nm is None else ConfigError)(
            f"distances {'without a cap' if cap_nm is None else f'up to a cap of {cap_nm:g} nm'} need "
            f"{product(reads):,} voxels in memory at once, and at most {WHOLE_VOXELS:,} are read: {remedy}"
        )


def _squares(here: np.ndarray, there: np.ndarray, core: tuple[slice, ...], sides: Vec) -> dict[int, int]:
    """How often each squared distance occurs, of voxels of ``here`` in the core to the nearest one of ``there``."""
    counted = {0: int(np.count_nonzero(here[core] & there[core]))}
    apart = np.zeros(here.shape, bool)
    apart[core] = here[core] & ~there[core]
    places = np.nonzero(apart)
    if len(places[0]):
        if not there.any():
            return {FAR: len(places[0])}
        values, counts = np.unique(_nearest(there, places, sides), return_counts=True)
        counted |= dict(zip(values.tolist(), counts.tolist(), strict=True))
    return {square: count for square, count in counted.items() if count}


def _nearest(there: np.ndarray, places: tuple[np.ndarray, ...], sides: Vec) -> np.ndarray:
    """Squared distances of some voxels to the nearest voxel of a mask, in squares of the unit, int64."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~there, sampling=sides, return_distances=False, return_indices=True)
    apart = [(nearest[axis][places] - places[axis]).astype(np.int64) * sides[axis] for axis in range(3)]
    return np.asarray(sum(each * each for each in apart))


def _mean(squares: Counter[int], unit_nm: float, cap_nm: float | None) -> float:
    """The mean distance in nm. Each length is counted before anything is rounded, so blocks do not matter."""
    cap = math.inf if cap_nm is None else cap_nm
    lengths: Counter[float] = Counter()
    for square, count in squares.items():
        lengths[cap if square == FAR else min(cap, math.sqrt(square) * unit_nm)] += count
    return math.fsum(length * count for length, count in lengths.items()) / lengths.total()
