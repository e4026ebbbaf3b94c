"""Indices as numpy writes them, ``volume[10:20, :, 5]``: the box of voxels that must be read, and what to take of it.

An index counts from the volume's own first voxel, as in an array of the volume's shape, wherever its bounds begin.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Triple, Vec

Part: TypeAlias = int | slice


@dataclass(frozen=True)
class Selection:
    """The voxels that an index selects."""

    box: BoundingBox
    """The smallest box that holds them, counted from the volume's first voxel."""
    parts: tuple[Part, ...]
    """The index of the selected voxels in the array (z, y, x) or (c, z, y, x) of the box."""

    @property
    def is_whole(self) -> bool:
        """True if every value of the box is selected, in its own order."""
        return all(not isinstance(part, slice) or part.step in (None, 1) for part in self.parts[-3:]) and all(
            part == slice(None) for part in self.parts[:-3]
        )


def select(key: Any, shape: Sequence[int]) -> Selection:
    """The voxels that ``array[key]`` selects of an array (z, y, x) or (c, z, y, x).

    Raises ``IndexError`` for an index outside of the array, and for lists, masks and new axes, which arrays alone take.
    """
    full = _expanded(key if isinstance(key, tuple) else (key,), len(shape))
    channel = tuple(full[:-3])
    for part, side in zip(channel, shape[:-3], strict=True):
        _along(part, side)  # refuses a channel that does not exist
    z, y, x = (_along(part, side) for part, side in zip(full[-3:], shape[-3:], strict=True))
    box = BoundingBox((z[0], y[0], x[0]), (z[1], y[1], x[1]))
    return Selection(box, (*channel, z[2], y[2], x[2]))


def fitted(value: Any, selection: Selection, dtype: np.dtype, shape: tuple[int, ...], url: str) -> np.ndarray:
    """What ``volume[key] = value`` stores: an array of ``shape``, that of the selection's box.

    A plain number takes the volume's type; an array keeps its own, and is repeated along axes as numpy does.
    Raises ``IndexError`` for an index with steps or of single channels, ``VolumeError`` for an array that does not fit.
    """
    if not selection.is_whole:
        raise IndexError(
            f"{url} is written by whole boxes and all channels at once: leave steps and channels out of the index"
        )
    array = np.asarray(value, dtype if isinstance(value, bool | int | float) else None)
    kept = tuple(side for side, part in zip(shape, selection.parts, strict=True) if isinstance(part, slice))
    try:
        return np.ascontiguousarray(np.broadcast_to(array, kept).reshape(shape))
    except ValueError:
        raise VolumeError(
            f"an array of shape {array.shape} cannot fill {kept} of {url}; both must be equal: crop it, or the index"
        ) from None


def _expanded(parts: tuple[Any, ...], axes: int) -> list[Part]:
    """One part for each axis; ``...`` stands for all axes that are not named."""
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    missing = axes - (len(parts) - len(dots))
    if missing < 0 or len(dots) > 1:
        raise IndexError(f"the index has {len(parts)} parts, for {axes} axes; give at most one for each, and one ...")
    place = dots[0] if dots else len(parts)
    return [*map(_part, parts[:place]), *[slice(None)] * missing, *map(_part, parts[place + 1 :])]


def _part(part: Any) -> Part:
    if isinstance(part, slice):
        return part
    try:
        if isinstance(part, bool | np.bool_):
            raise TypeError
        return operator.index(part)
    except TypeError:
        raise IndexError(
            f"{part!r} cannot select voxels of a volume; it must be a whole number, a slice or ...: "
            "make an array first, np.asarray(volume)"
        ) from None


def _along(part: Part, side: int) -> tuple[int, int, Part]:
    """First voxel and one past the last along an axis, and the index within these."""
    if isinstance(part, slice):
        found = range(*part.indices(side))
        if not found:
            return 0, 0, slice(None)
        return min(found), max(found) + 1, slice(None) if found.step == 1 else slice(None, None, found.step)
    if not -side <= part < side:
        raise IndexError(f"index {part} is outside of an axis of {side} voxels; it must lie in {-side}..{side - 1}")
    return part % side, part % side + 1, 0


def described(kind: str, shape: Sequence[int], dtype: np.dtype, resolution_nm: Sequence[float], start: Triple) -> str:
    """A volume in one line."""
    sides = ", ".join(f"{axis} {side}" for axis, side in zip("czyx"[-len(shape) :], shape, strict=True))
    place = f", first voxel {Vec(*start)}" if any(start) else ""
    return f"<{kind}: {dtype} ({sides}), {' x '.join(f'{side:g}' for side in resolution_nm)} nm{place}>"
