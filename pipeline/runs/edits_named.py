"""Edits as users name them: by ids of segments and supervoxels, or by points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.errors import ConfigError
from pipeline.geometry import Triple
from pipeline.segmentation.edits import MERGE, SPLIT

Place: TypeAlias = int | Triple
"""The id of a segment or of a supervoxel, or a voxel z, y, x."""
ID = re.compile(r"[0-9]{1,20}", re.ASCII)
NUMBER = re.compile(r"[-+]?[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """An edit as a user names it."""

    kind: str
    """``merge`` or ``split``."""
    first: tuple[Place, ...]
    """A merge: one segment of the present result. A split: points or supervoxels on one side."""
    second: tuple[Place, ...]
    """A merge: the other segment. A split: points or supervoxels on the other side."""
    source: str
    """The words that name it in messages, such as ``--merge 5,9``."""
    segment: Place | None = None
    """A split: the segment that is split; if it is left out, the one in which the first point lies."""


def merge_of(text: str) -> Wanted:
    """The merge that ``A,B`` or ``z,y,x;z,y,x`` names; ``ConfigError`` for anything else."""
    source = f"--merge {text[:80]}"
    pieces = text.split(";") if ";" in text else text.split(",")
    if len(pieces) != 2:
        raise ConfigError(f"{source} must name two segments, like --merge 12,40, or two points, 'z,y,x;z,y,x'")
    one, other = (place_of(piece, source) for piece in pieces)
    return Wanted(MERGE, (one,), (other,), source)


def split_of(segment: str, first: str | None, second: str | None) -> Wanted:
    """The split of a segment, given by its id or a point, between two lists of points or supervoxels."""
    source = f"--split {segment[:80]}"
    if not first or not second:
        raise ConfigError(
            f"{source} needs points or supervoxels on both sides: --from 'z,y,x;z,y,x' --to 'z,y,x'; one on each side "
            "is enough"
        )
    one, other = (places_of(text, f"{source} {name}") for name, text in (("--from", first), ("--to", second)))
    return Wanted(SPLIT, one, other, source, place_of(segment, source))


def places_of(text: str, source: str) -> tuple[Place, ...]:
    """Points and ids out of ``z,y,x;z,y,x`` or ``12;40``; ``ConfigError`` for anything else."""
    return tuple(place_of(piece, source) for piece in text.split(";"))


def place_of(text: str, source: str) -> Place:
    """A point out of ``z,y,x``, or an id; ``ConfigError`` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and ID.fullmatch(parts[0]):
        return int(parts[0])
    if len(parts) == 3 and all(map(NUMBER.fullmatch, parts)):
        z, y, x = map(int, parts)
        return z, y, x
    raise ConfigError(f"{source}: {text[:40]!r} is neither an id nor a point; a point is z,y,x in whole voxels")


def words(place: Place) -> str:
    """A place as users write it."""
    return str(place) if isinstance(place, int) else ",".join(map(str, place))
