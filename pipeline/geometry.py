"""Boxes and vectors: z, y, x, half-open, in voxels of one mip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add, floordiv, index, mod, mul, neg, sub
from typing import NamedTuple, TypeAlias

from pipeline.errors import BoundsError, ConfigError

Triple: TypeAlias = tuple[int, int, int]
"""Three integers, z, y, x, in a plain tuple; a ``Vec`` is one too."""


class Vec(NamedTuple):
    """Three integers, z, y, x, that add, subtract, multiply and divide axis by axis.

    The other operand is a vector, a plain tuple of three integers, or one integer for all axes; floats are refused.
    In all else it is the tuple (z, y, x): it equals it, and hashes, sorts, prints and serialises as it does.
    """

    z: int
    y: int
    x: int

    def __repr__(self) -> str:
        return tuple.__repr__(self)

    def __add__(self, other: Triple | int) -> Vec:  # type: ignore[override]  # a tuple would be longer
        return _each(add, self, other)

    def __sub__(self, other: Triple | int) -> Vec:
        return _each(sub, self, other)

    def __mul__(self, other: Triple | int) -> Vec:  # type: ignore[override]  # a tuple would repeat itself
        return _each(mul, self, other)

    def __floordiv__(self, other: Triple | int) -> Vec:
        return _each(floordiv, self, other)

    def __mod__(self, other: Triple | int) -> Vec:
        return _each(mod, self, other)

    def __radd__(self, other: Triple | int) -> Vec:
        return _each(add, other, self)

    def __rsub__(self, other: Triple | int) -> Vec:
        return _each(sub, other, self)

    def __rmul__(self, other: Triple | int) -> Vec:  # type: ignore[override]
        return _each(mul, other, self)

    def __neg__(self) -> Vec:
        return _vec(map(neg, self))

    def __abs__(self) -> Vec:
        return _vec(map(abs, self))

    def ceil_div(self, other: Triple | int) -> Vec:
        """Division rounded up: how many pieces of length ``other`` cover this length."""
        return -(-self // other)

    def minimum(self, other: Triple | int) -> Vec:
        """The smaller of both numbers on each axis."""
        return _choose(min, self, other)

    def maximum(self, other: Triple | int) -> Vec:
        """The larger of both numbers on each axis."""
        return _choose(max, self, other)

    def at_most(self, other: Triple | int) -> bool:
        """True if no number is larger than that of ``other`` on its axis; ``<=`` compares as tuples do."""
        return min(other - self) >= 0

    def below(self, other: Triple | int) -> bool:
        """True if each number is smaller than that of ``other`` on its axis; ``<`` compares as tuples do."""
        return min(other - self) > 0

    def indexes(self, shape: Triple) -> bool:
        """True if this is the index of a voxel in an array of ``shape``: on each axis 0 <= number < side."""
        return min(self) >= 0 and self.below(shape)


ZERO = Vec(0, 0, 0)

_vec = Vec._make


def _each(operate: Callable[[int, int], int], a: Triple | int, b: Triple | int) -> Vec:
    """``operate`` on each axis; ``NotImplemented`` if either is no vector, then Python names both types."""
    left, right = _spread(a), _spread(b)
    return NotImplemented if left is None or right is None else _vec(map(operate, left, right))


def _choose(choose: Callable[[int, int], int], vec: Vec, other: Triple | int) -> Vec:
    result = _each(choose, vec, other)
    if result is NotImplemented:
        raise TypeError(f"{other!r} is a {type(other).__name__}; it must be a Vec, three integers in a tuple or an int")
    return result


def _spread(operand: Triple | int) -> Triple | None:
    """An operand as three integers; None if it is neither one integer nor three."""
    if type(operand) is Vec:
        return operand
    if isinstance(operand, int):
        return operand, operand, operand
    is_vector = isinstance(operand, tuple) and len(operand) == 3
    return _vec(map(index, operand)) if is_vector else None


def as_vec(value: object, name: str = "value") -> Vec:
    """Three integers out of any sequence of three integral numbers; ``ConfigError`` otherwise."""
    if type(value) is Vec:
        return value
    try:
        parts = tuple(value)  # type: ignore[arg-type,var-annotated]
        numbers = tuple(map(int, parts))
    except TypeError:
        raise ConfigError(f"{name} is {value!r}; it must be three integers [z, y, x]") from None
    if len(numbers) != 3 or numbers != parts:
        raise ConfigError(f"{name} is {value!r}; it must be three integers [z, y, x]")
    return Vec(*numbers)


def product(vec: Triple) -> int:
    """The number of voxels of a box of this shape."""
    return vec[0] * vec[1] * vec[2]


@dataclass(frozen=True, order=True, init=False)
class BoundingBox:
    """A half-open box of voxels: ``start <= voxel < stop``, z, y, x, global coordinates of one mip."""

    start: Vec
    stop: Vec

    def __init__(self, start: Triple, stop: Triple) -> None:
        object.__setattr__(self, "start", as_vec(start, "box start"))
        object.__setattr__(self, "stop", as_vec(stop, "box stop"))
        if not self.start.at_most(self.stop):
            raise BoundsError(f"box {self} is inside out; each start must be at most its stop: swap them")

    @classmethod
    def from_shape(cls, shape: Sequence[int], start: Sequence[int] = ZERO) -> BoundingBox:
        """The box of ``shape`` voxels that begins at ``start``."""
        first = as_vec(start, "box start")
        return cls(first, first + as_vec(shape, "box shape"))

    def __str__(self) -> str:
        return " x ".join(map("{}..{}".format, self.start, self.stop))

    @property
    def shape(self) -> Vec:
        """Voxels along z, y, x."""
        return self.stop - self.start

    @property
    def voxels(self) -> int:
        """The number of voxels inside."""
        return product(self.shape)

    @property
    def middle(self) -> Vec:
        """The voxel in the middle; the later of two."""
        return (self.start + self.stop) // 2

    @property
    def empty(self) -> bool:
        """True if no voxel is inside."""
        return self.voxels == 0

    def grow(self, low: Triple, high: Triple | None = None) -> BoundingBox:
        """This box with ``low`` more voxels before each start and ``high`` (default: ``low``) after each stop."""
        return BoundingBox(self.start - low, self.stop + (low if high is None else high))

    def intersect(self, other: BoundingBox) -> BoundingBox:
        """The voxels in both boxes; an empty box where they do not meet."""
        start = self.start.maximum(other.start)
        return BoundingBox(start, self.stop.minimum(other.stop).maximum(start))

    def contains(self, other: BoundingBox) -> bool:
        """True if every voxel of ``other`` is inside this box (an empty box is inside any)."""
        return other.empty or self.intersect(other) == other

    def translate(self, by: Triple) -> BoundingBox:
        """This box moved by ``by`` voxels."""
        return BoundingBox(self.start + by, self.stop + by)

    def slices(self, origin: Triple = ZERO) -> tuple[slice, slice, slice]:
        """Index of this box in an array whose first voxel is ``origin``; ``BoundsError`` before that voxel."""
        start, stop = self.start - origin, self.stop - origin
        if min(start) < 0:
            raise BoundsError(f"box {self} begins before the array's origin {origin}")
        z, y, x = map(slice, start, stop)
        return z, y, x
