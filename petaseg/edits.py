"""Corrections of the neurons of a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from petaseg.tables import run_of
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.runs.edits_named import Wanted

Place: TypeAlias = int | Sequence[int]
"""The id of a segment or of a supervoxel, or a voxel (z, y, x)."""


def store_edits(
    run: str,
    merge: Iterable[tuple[Place, Place]],
    split: Iterable[tuple[Iterable[Place], Iterable[Place]]],
    undo: int,
) -> None:
    """Add edits to the log of a finished run, or take the last ones back; see ``Result.edit``."""
    from pipeline.runs.editing import plan_edits, plan_undo
    from pipeline.segmentation.edits import MERGE, SPLIT
    from workflows.driver import check_complete

    wanted = [_wanted(MERGE, [one], [other]) for one, other in merge]
    wanted += [_wanted(SPLIT, one, other) for one, other in split]
    if bool(wanted) == bool(undo):
        raise ConfigError(f"{len(wanted)} edits and undo={undo} are given; give edits, or a number to take back")
    opened = run_of(run)
    opened.check_directory()
    check_complete(opened, "result")
    (plan_undo(opened, undo) if undo else plan_edits(opened, wanted)).store(opened)


def _wanted(kind: str, first: Iterable[Place], second: Iterable[Place]) -> Wanted:
    from pipeline.runs.edits_named import Wanted

    one, other = (tuple(map(_place, side)) for side in (first, second))
    source = f"{kind} {list(one)}, {list(other)}"
    if not one or not other:
        raise ConfigError(f"{source}: a side is empty; give at least one voxel (z, y, x), or one id, on each side")
    return Wanted(kind, one, other, source)


def _place(value: Any) -> int | tuple[int, int, int]:
    """An id, or a voxel; whole numbers of numpy are taken as well."""
    from operator import index

    try:
        if not isinstance(value, Sequence) and not hasattr(value, "__len__"):
            return index(value)
        z, y, x = map(index, value)
    except (TypeError, ValueError):
        raise ConfigError(f"{value!r} is neither an id nor a voxel; a voxel is (z, y, x) in whole numbers") from None
    return z, y, x
