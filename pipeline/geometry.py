"""Boxes and vectors: z, y, x, half-open, in voxels of one mip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pipeline.errors import BoundsError, ConfigError

Vec: TypeAlias = tuple[int, int, int]
"""Three integers, z, y, x."""


def as_vec(value: object, name: str = "value") -> Vec:
    """Three integers out of any sequence of three integral numbers; ``ConfigError`` otherwise."""
    try:
        parts = tuple(value)  # type: ignore[arg-type,var-annotated]
        vec = tuple(int(p) for p in parts)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}; it must be three integers [z, y, x]") from None
    if len(vec) != 3 or any(v != p for v, p in zip(vec, parts, strict=True)):
        raise ConfigError(f"{name} is {value!r}; it must be three integers [z, y, x]")
    return vec  # type: ignore[return-value]


def product(vec: Vec) -> int:
    """The number of voxels of a box of this shape."""
    return vec[0] * vec[1] * vec[2]


@dataclass(frozen=True, order=True)
class BoundingBox:
    """A half-open box of voxels: ``start <= voxel < stop``, z, y, x, global coordinates of one mip."""

    start: Vec
    stop: Vec

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", as_vec(self.start, "box start"))
        object.__setattr__(self, "stop", as_vec(self.stop, "box stop"))
        if any(a > b for a, b in zip(self.start, self.stop, strict=True)):
            raise BoundsError(f"box {self} is inside out; each start must be at most its stop: swap them")

    @classmethod
    def from_shape(cls, shape: Vec, start: Vec = (0, 0, 0)) -> BoundingBox:
        """The box of ``shape`` voxels that begins at ``start``."""
        return cls(start, tuple(a + n for a, n in zip(start, shape, strict=True)))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return " x ".join(f"{a}..{b}" for a, b in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> Vec:
        """Voxels along z, y, x."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))  # type: ignore[return-value]

    @property
    def voxels(self) -> int:
        """The number of voxels inside."""
        return product(self.shape)

    @property
    def empty(self) -> bool:
        """True if no voxel is inside."""
        return self.voxels == 0

    def grow(self, low: Vec, high: Vec | None = None) -> BoundingBox:
        """This box with ``low`` more voxels before each start and ``high`` (default: ``low``) after each stop."""
        high = low if high is None else high
        return BoundingBox(
            tuple(a - n for a, n in zip(self.start, low, strict=True)),  # type: ignore[arg-type]
            tuple(b + n for b, n in zip(self.stop, high, strict=True)),  # type: ignore[arg-type]
        )

    def intersect(self, other: BoundingBox) -> BoundingBox:
        """The voxels in both boxes; an empty box where they do not meet."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(max(s, min(a, b)) for s, a, b in zip(start, self.stop, other.stop, strict=True))
        return BoundingBox(start, stop)  # type: ignore[arg-type]

    def contains(self, other: BoundingBox) -> bool:
        """True if every voxel of ``other`` is inside this box (an empty box is inside any)."""
        return other.empty or self.intersect(other) == other

    def translate(self, by: Vec) -> BoundingBox:
        """This box moved by ``by`` voxels."""
        return BoundingBox(
            tuple(a + n for a, n in zip(self.start, by, strict=True)),  # type: ignore[arg-type]
            tuple(b + n for b, n in zip(self.stop, by, strict=True)),  # type: ignore[arg-type]
        )

    def slices(self, origin: Vec = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Index of this box in an array whose first voxel is ``origin``; ``BoundsError`` before that voxel."""
        local = self.translate((-origin[0], -origin[1], -origin[2]))
        if any(a < 0 for a in local.start):
            raise BoundsError(f"box {self} begins before the array's origin {origin}")
        return tuple(slice(a, b) for a, b in zip(local.start, local.stop, strict=True))  # type: ignore[return-value]


def linear_index(voxel: Vec, bounds: BoundingBox) -> int:
    """The C-order index of a voxel in the dataset's full bounds: the same number in every run on that dataset."""
    z, y, x = (v - a for v, a in zip(voxel, bounds.start, strict=True))
    return (z * bounds.shape[1] + y) * bounds.shape[2] + x
