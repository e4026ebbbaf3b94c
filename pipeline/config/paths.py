"""The paths in a table, found by the types of its keys (``pipeline.config.base.PathMarker``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

from pipeline.config.base import PathMarker, Table

Tables = TypeVar("Tables", bound=Table)


def with_paths(table: Tables, change: Callable[[str], str]) -> Tables:
    """The same table with ``change`` applied to every path that was given, in the tables inside it too.

    All texts of a key are paths, or none is: those of a list too. Defaults stay, and count as not given as before.
    """
    fields = type(table).model_fields
    given = {name: getattr(table, name) for name in table.model_fields_set}
    kinds = {name: next(markers((fields[name].annotation, *fields[name].metadata)), None) for name in given}
    return table.model_copy(update={name: _changed(value, kinds[name], change) for name, value in given.items()})


def paths_in(table: Table) -> tuple[str, ...]:
    """Every path that was given in a table and in the tables inside it."""
    found: list[str] = []
    with_paths(table, lambda path: found.append(path) or path)  # type: ignore[func-returns-value]
    return tuple(found)


def markers(parts: Sequence[Any]) -> Iterator[PathMarker]:
    """The markers in annotations and what is in them: unions, tuples, dictionaries."""
    for part in parts:
        if isinstance(part, PathMarker):
            yield part
        yield from markers(get_args(part))


def _changed(value: Any, marker: PathMarker | None, change: Callable[[str], str]) -> Any:
    inside = partial(_changed, marker=marker, change=change)
    match value:
        case Table():
            return with_paths(value, change)
        case tuple():
            items = tuple(inside(each) for each in value)
            return value if items == value else items  # vectors stay vectors
        case dict():
            return {key: inside(each) for key, each in value.items()}
        case str() if marker is not None and marker.is_path(value):
            return change(value)
        case _:
            return value
