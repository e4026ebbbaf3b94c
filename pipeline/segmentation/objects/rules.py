"""The rules that turn a landscape, a volume of uint8, into objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.geometry import ZERO, Vec
from pipeline.segmentation.supervoxels import RIM, check_range, crossed

HIGHEST = 254
"""The highest threshold: a voxel lies above a threshold, and 255 is the largest value."""
FACES = 6
CONNECTIVITIES = (FACES, 26)
DROP = "drop"
KEEP = "keep"


@dataclass(frozen=True)
class LandscapeRules:
    """How a landscape is divided into basins; other rules need other basins."""

    floor: int = 0
    """Voxels of at most this value are in no basin: the lowest ``mask`` that can be chosen later."""
    per_section: bool = False
    """Voxels of different sections are not neighbours."""
    connectivity: int = FACES
    """How many neighbours a voxel has across which objects and seeds go on: 6 share a face with it, 26 also an edge or
    a corner. Basins are the same with both: only the passes between them differ."""

    def __post_init__(self) -> None:
        check_range("floor", self.floor, 0, HIGHEST)
        if self.connectivity not in CONNECTIVITIES:
            raise ConfigError(f"connectivity is {self.connectivity}; it must be 6 or 26: choose one")

    @property
    def of_basins(self) -> dict[str, Any]:
        """The rules on which basins depend, for fingerprints."""
        return {"floor": self.floor, "per_section": self.per_section}

    @property
    def of_passes(self) -> tuple[int, ...]:
        """The rules on which passes depend beside that."""
        return () if self.connectivity == FACES else (self.connectivity,)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which voxels are neighbours."""
        return (1, 2) if self.per_section else (0, 1, 2)

    def halo(self) -> tuple[Vec, Vec]:
        """Voxels that ``extract_basins`` needs before and after a core, z, y, x: the exact minimum."""
        reach = (RIM + 1) * crossed(self.axes)
        return reach, reach

    def context(self) -> tuple[Vec, Vec]:
        """Voxels that ``build_basin_graph`` needs before and after a core."""
        return crossed(self.axes), ZERO


@dataclass(frozen=True)
class ObjectRules:
    """Which basins are one object, and which objects are kept."""

    mask: int
    """Voxels above this value belong to objects."""
    seed: int
    """Voxels above this value, where seeds may lie, are seeds; touching ones are one seed."""
    min_seed: int = 0
    """A seed of fewer voxels is none."""
    min_size: int = 0
    """An object of fewer voxels is dropped."""
    seedless: str = DROP
    """What becomes of a connected piece of the mask without a seed: ``drop`` or ``keep``."""

    def __post_init__(self) -> None:
        check_range("mask", self.mask, 0, HIGHEST)
        check_range("seed", self.seed, self.mask, HIGHEST)
        check_range("min_seed", self.min_seed, 0, 2**62)
        check_range("min_size", self.min_size, 0, 2**62)
        if self.seedless not in (DROP, KEEP):
            raise ConfigError(f"seedless is {self.seedless!r}; it must be {DROP!r} or {KEEP!r}: choose one")

    @property
    def least_seed(self) -> int:
        """The voxels of the smallest seed."""
        return max(1, self.min_seed)

    def check_floor(self, floor: int) -> None:
        """``ConfigError`` if basins above ``floor`` lack voxels that belong to objects."""
        if self.mask < floor:
            raise ConfigError(
                f"mask is {self.mask}, but basins were extracted above a floor of {floor}; choose a mask of at least "
                "that, or lower the floor and extract the basins again"
            )
