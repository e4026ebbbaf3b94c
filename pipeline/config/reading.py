"""Read a YAML file into a strict table: apply ``--set``, check it, and report every problem at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.config.base import Table
from pipeline.config.kinds import refuse_other_kind
from pipeline.config.problems import explained
from pipeline.config.run_file import RunConfig
from pipeline.config.strict_yaml import parse_yaml
from pipeline.errors import ConfigError
from pipeline.formats import FIELD

Model = TypeVar("Model", bound=Table)


def load_config(path: str | Path, overrides: Sequence[str] = (), model: type[Model] = RunConfig) -> Model:  # type: ignore[assignment]
    """Read a YAML file into a strict model; ``overrides`` are ``table.key=value`` texts, the value in YAML.

    Raises ``ConfigError`` with one line for each problem: place, value, rule and remedy.
    """
    if Path(path).is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it; {model.example}")
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; {model.example}") from None
    return read_config(text, str(path), overrides, model)


def read_config(text: str | bytes, source: str, overrides: Sequence[str] = (), model: type[Model] = RunConfig) -> Model:  # type: ignore[assignment]
    """Like ``load_config``, of a YAML text; ``source`` is where it comes from, for messages."""
    data = parse_yaml(text, source)
    if not isinstance(data, dict):
        raise ConfigError(f"{source} holds no table of keys; {model.example}")
    refuse_other_kind(data, model.__name__, source)
    return parse_config(apply_overrides(data, overrides), model, source=source)


def parse_config(data: Mapping[str, Any], model: type[Model] = RunConfig, source: str = "configuration") -> Model:  # type: ignore[assignment]
    """Check a plain dictionary (lists for shapes, as YAML and JSON give them) into a strict model."""
    try:
        return model.model_validate_json(json.dumps(_without_version(data, model, source), default=str))
    except ValidationError as error:
        raise ConfigError("\n  - ".join([f"{source} was refused:", *explained(error, model)])) from None


def _without_version(data: Mapping[str, Any], model: type[Table], source: str) -> Mapping[str, Any]:
    """The keys of the table alone; ``ConfigError`` if the file is of a newer version of its format."""
    if model.file_format is None:
        return data
    try:
        model.file_format.check(data, source, ConfigError)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{source} was refused:\n  - {error}") from None
    return {key: value for key, value in data.items() if key != FIELD}


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``data`` with each ``a.b=value`` set; values are YAML, so ``[1, 2, 3]``, ``null`` and ``0.4`` work."""
    result = json.loads(json.dumps(data, default=str))
    given: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {override!r} must look like key=value, or table.key=value for a key of a table")
        _check_new(key, override, given)
        *tables, leaf = key.split(".")
        place = result
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {override!r}: {table} is a value, not a table of keys")
        place[leaf] = _value(override, value)
    return result


def _check_new(key: str, override: str, given: dict[str, str]) -> None:
    """Refuse an override that would take back an earlier one."""
    for earlier, text in given.items():
        if earlier == key or earlier.startswith(f"{key}."):
            raise ConfigError(f"--set {override!r} takes back --set {text!r}; give {earlier} once")
    given[key] = override


def _value(override: str, text: str) -> Any:
    """The value of an override, parsed as YAML."""
    return parse_yaml(text, f"--set {override!r}")


def json_schema(model: type[Table] = RunConfig) -> dict[str, Any]:
    """The JSON schema of a configuration file, with the description of every key, for editors."""
    return model.model_json_schema()
