"""Registries: tables of "name -> module:attribute"; a part is one row of its table, and is loaded when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

from pipeline.errors import ConfigError, PetasegError

Row = TypeVar("Row")


def find(
    table: Mapping[str, Row], name: str, what: str, *, remedy: str = "", error: type[PetasegError] = ConfigError
) -> Row:
    """The row of a name; an error that lists the names if there is none.

    what: begins the message, like "executor" or "there is no experiment". remedy: ends it.
    """
    if name not in table:
        names = f"there are {', '.join(table)}"
        raise error(f"{what} {name!r}; {names}" + (f": {remedy}" if remedy else ""))
    return table[name]


def load(path: str) -> Any:
    """What a row names by "module:attribute"; its module is imported now."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
