"""CREMI's distances between two masks: how far predicted voxels lie from the truth, and true ones from the prediction.

ADGT  the mean distance of predicted voxels to the nearest true one: far inventions
ADF   the mean distance of true voxels to the nearest predicted one: misses

A voxel of both masks counts with distance 0. A voxel's distance is measured in one of two ways:

- whole: among all voxels of the box at once, in memory; up to ``WHOLE_VOXELS``;
- with a cap: block by block with a halo of the cap; a longer distance counts as the cap. Memory stays flat.

Distances are square roots of whole numbers: the sides of a voxel are rounded to picometres and divided by what they
have in common (40 x 4 x 4 nm are 10 x 1 x 1). Equal whole numbers are counted, so the mean does not depend on the
blocks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.pairs import BLOCK, Pair
from pipeline.geometry import BoundingBox, Vec, product
from pipeline.grid import ChunkGrid

if TYPE_CHECKING:
    from scipy.spatial import KDTree

WHOLE_VOXELS = 2**28
"""The most voxels that are measured at once, in about 3 GB; more need a cap."""
LARGEST_SQUARE = 2**62
"""The largest squared distance that an integer of 64 bits holds with room to spare."""
QUERIES = 2**20
"""Voxels whose nearest one is searched at once."""

Progress = Callable[[int, int], None]
Foreground = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Slices = tuple[slice, slice, slice]
Part = tuple[np.ndarray, np.ndarray, Slices]
"""The true and the predicted mask, and the part of them that is measured."""


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
    foreground: Foreground,
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
        block: voxels that are read at once, and measured at once with a cap.
        on_progress: called with (blocks done, blocks in all).

    Raises ``ConfigError`` for a cap that is not positive or whose halo does not fit into memory; ``VolumeError`` if the
    box is too large to be measured at once.
    """
    check_cap(pair.box, pair.resolution_nm, cap_nm, block)
    steps = Steps.of(pair.resolution_nm)
    grid = pair.grid(block) if cap_nm is None else pair.grid(block, steps.halo(cap_nm))
    read = _blocks if cap_nm is not None else _whole
    squares: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    longest = math.inf if cap_nm is None else cap_nm / steps.unit_nm + 1
    for true, found, core in read(pair, foreground, grid, on_progress):
        for count, (here, there) in zip(squares, ((found, true), (true, found)), strict=True):
            count.update(_squares(here, there, core, steps.sides, longest))
    if not all(squares):
        return None
    adgt, adf = (_mean(count, steps.unit_nm, cap_nm) for count in squares)
    return Distances(adgt, adf, cap_nm)


FAR = -1
"""In place of a squared distance: the other mask has no voxel up to the cap."""


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


@dataclass(frozen=True, eq=False)
class Search:
    """A search tree of voxels."""

    places: np.ndarray
    """int64 (n, 3), in units along each axis"""
    tree: KDTree
    sides: Vec
    longest: float
    """In units; voxels farther away need not be found"""

    @classmethod
    def among(cls, voxels: np.ndarray, sides: Vec, longest: float) -> Search:
        """The tree of voxels (n, 3), given by their indices."""
        from scipy.spatial import KDTree

        places = voxels * np.array(sides)
        return cls(places, KDTree(places, balanced_tree=False, compact_nodes=False), sides, longest)

    def squares(self, voxels: np.ndarray) -> np.ndarray:
        """The squared distance of each voxel (k, 3) to the nearest in the tree, in squares of the unit, or ``FAR``."""
        here = voxels * np.array(self.sides)
        _, nearest = self.tree.query(here, distance_upper_bound=self.longest)
        found, squares = nearest < len(self.places), np.full(len(here), FAR)
        squares[found] = np.square(self.places[nearest[found]] - here[found]).sum(1)
        return squares


def _blocks(pair: Pair, foreground: Foreground, grid: ChunkGrid, on_progress: Progress) -> Iterator[Part]:
    """Both masks block by block, each with its halo."""
    for number, chunk in enumerate(grid):
        yield *foreground(*pair.read(chunk.read_box)), chunk.core.slices(chunk.read_box.start)
        on_progress(number + 1, len(grid))


def _whole(pair: Pair, foreground: Foreground, grid: ChunkGrid, on_progress: Progress) -> Iterator[Part]:
    """Both masks of the whole box at once, read in blocks."""
    true, found = (np.zeros(pair.box.shape, bool) for _ in range(2))
    for number, chunk in enumerate(grid):
        place = chunk.core.slices(pair.box.start)
        true[place], found[place] = foreground(*pair.read(chunk.core))
        on_progress(number, len(grid))
    yield true, found, pair.box.slices(pair.box.start)
    on_progress(len(grid), len(grid))


def _squares(here: np.ndarray, there: np.ndarray, core: Slices, sides: Vec, longest: float) -> Counter[int]:
    """How often each squared distance occurs, of voxels of ``here`` in the core to the nearest one of ``there``."""
    counted = Counter({0: int(np.count_nonzero(here[core] & there[core]))})
    apart = np.argwhere(here[core] & ~there[core]) + [part.start for part in core]
    if len(apart):
        search = Search.among(np.argwhere(surface(there)), sides, longest)
        for first in range(0, len(apart), QUERIES):
            values, counts = np.unique(search.squares(apart[first : first + QUERIES]), return_counts=True)
            counted.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return +counted


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask with a face that another voxel of the array, outside the mask, touches.

    The nearest voxel of a mask to one outside is such a voxel: else a neighbour of it, a step closer, were nearer.
    """
    inner = mask.copy()
    for axis in range(3):
        before, after = (np.moveaxis(array, axis, 0) for array in (mask, inner))
        after[1:] &= before[:-1]
        after[:-1] &= before[1:]
    return mask & ~inner


def _mean(squares: Counter[int], unit_nm: float, cap_nm: float | None) -> float:
    """The mean distance in nm. Each length is counted before anything is rounded, so blocks do not matter."""
    cap = math.inf if cap_nm is None else cap_nm
    lengths: Counter[float] = Counter()
    for square, count in squares.items():
        lengths[cap if square == FAR else min(cap, math.sqrt(square) * unit_nm)] += count
    return math.fsum(length * count for length, count in lengths.items()) / lengths.total()
