"""The configuration of a run, from a file or a dictionary, with tables and keys that replace some of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.runs.run import Run


def run_of(config: str | PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> Run:
    """The opened and checked run of a run file, a run directory, or a dictionary of the same keys.

    Relative paths in a dictionary count from the working directory. Raises ``ConfigError``, ``VolumeError`` or
    ``ModelError``.
    """
    from pipeline.config.reading import apply_overrides, parse_config
    from pipeline.runs.run import Run, with_absolute_paths

    forget_opened()
    if not isinstance(config, Mapping):
        return Run.open(fspath(config), overrides)
    data = apply_overrides(json.loads(_as_json("the configuration", config)), overrides)
    table = with_absolute_paths(parse_config(data), ".")
    return Run.of(table, table.run_directory)


def forget_opened() -> None:
    """Close the volumes and networks that earlier runs of this process opened.

    A notebook lives long: an image may have been written anew under its name since, or a model trained anew.
    """
    from pipeline.stages import opened

    opened.forget()


def as_overrides(tables: Mapping[str, Any]) -> list[str]:
    """Tables and keys as the texts that ``--set`` takes: ``{"execution": {"workers": 4}}`` -> execution.workers=4."""
    return [f"{key}={_as_json(key, value)}" for key, value in _leaves("", tables)]


def _leaves(place: str, tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{place}{key}.", value)
        else:
            yield f"{place}{key}", value


def _as_json(key: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key} is {value!r}, which a run file cannot hold ({error}); give plain values") from None


def _plain(value: Any) -> Any:
    """A path, a number or an array of numpy as a plain value."""
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no text, number, list or table")
