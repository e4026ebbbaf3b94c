"""What ``petaseg relabel`` has applied in a run directory, and how long it holds.

    <run>/segmentation.json    what relabel has applied of the table ``segmentation``, and what the run file said then

A value that relabel applied holds in every later command, until the run file's own value of that key is another one
than it was: then the run file wins, and the applied value is forgotten. ``--set`` goes before both, for one command.
The ``run.yaml`` of a run directory is the configuration of the last run, in which all of this is contained already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.reading import apply_overrides, parse_config
from pipeline.config.run_file import RunConfig
from pipeline.config.strict_yaml import parse_yaml
from pipeline.errors import LedgerError
from pipeline.formats import SEGMENTATION
from pipeline.storage import ObjectStore

KEY = "segmentation.json"
TABLE = "segmentation"
RELABEL = "petaseg relabel"
"""What a value is said to come from that relabel has applied."""


@dataclass(frozen=True)
class Applied:
    """The record in a run directory."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """What relabel has applied, by key of the table."""
    file: Mapping[str, Any] = field(default_factory=dict)
    """The table of the run file itself, without ``--set``, as the last driver has read it."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Applied:
        """The record that a document holds."""
        return cls(dict(document["applied"]), dict(document["file"]))

    def held_by(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The applied values that still hold for a run file whose own table is ``own``."""
        return {key: value for key, value in self.values.items() if own.get(key) == self.file.get(key)}

    def store_in(self, store: ObjectStore) -> None:
        """Write the record, unless it is there already."""
        if read_applied(store) != self:
            plain = {**SEGMENTATION.stamp, "applied": dict(self.values), "file": dict(self.file)}
            store.put(KEY, (json.dumps(plain, indent=1) + "\n").encode())


def read_applied(store: ObjectStore) -> Applied | None:
    """The record of a run directory; ``None`` if no driver has written one.

    Raises ``LedgerError`` if a newer petaseg has written it, ``CorruptError`` if it cannot be read.
    """
    data = store.get_or_none(KEY)
    if data is None:
        return None
    again = "delete it, and give `petaseg relabel` the threshold again if you had applied one"
    return SEGMENTATION.read(data, f"{store.url}/{KEY}", Applied.of, LedgerError, damaged=again)


@dataclass(frozen=True)
class Threshold:
    """The threshold of a run's labels, and where it comes from."""

    value: float
    source: str
    """The place that says it, in words."""
    file: float | None = None
    """The value in the run file, where another one goes before it."""

    def __str__(self) -> str:
        instead = "" if self.file is None else f"; the run file says {self.file:g}"
        return f"{self.value:g} ({self.source}{instead})"


@dataclass(frozen=True)
class Choice:
    """The table ``segmentation`` of a run, by the places from which its values come."""

    own: Mapping[str, Any] = field(default_factory=dict)
    """What the run file says."""
    applied: Mapping[str, Any] = field(default_factory=dict)
    """What relabel has applied and still holds."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What ``--set`` says."""

    def source(self, key: str, value: object) -> str:
        """The place from which a value in force comes, in words; an empty text if none of these says it."""
        if key in self.applied and self.applied[key] == value:
            return RELABEL
        if key in self.given:
            return "command line"
        if self.own.get(key) is None:
            return "" if value is None else "run.yaml of the run directory"
        return "run file" if self.own[key] == value else "run.yaml of the run directory"

    def threshold(self, config: RunConfig, value: float, otherwise: str) -> Threshold:
        """The threshold in force. otherwise: the place that says it if the configuration does not."""
        written, says = config.segmentation.threshold, self.own.get("threshold")
        place = otherwise if written is None else self.source("threshold", written)
        return Threshold(value, place, says if isinstance(says, int | float) and says != value else None)

    def record(self) -> Applied:
        """The record for the run directory."""
        return Applied(self.applied, self.own)

    def remembering(self) -> Applied:
        """The record after ``petaseg relabel`` with these overrides."""
        return Applied({**self.applied, **self.given}, self.own)


def own_table(text: bytes, source: str) -> dict[str, Any]:
    """What a run file itself says in the table ``segmentation``; ``null`` is as good as left out."""
    data = parse_yaml(text, source)
    return _present(data.get(TABLE) if isinstance(data, Mapping) else None)


def own_values(config: RunConfig) -> dict[str, Any]:
    """The same of a configuration that comes from no file."""
    return _present(config.segmentation.model_dump(mode="json", exclude_unset=True))


def given_table(overrides: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says in the table ``segmentation``."""
    return dict(apply_overrides({}, [each for each in overrides if is_of_table(each)]).get(TABLE) or {})


def is_of_table(override: str) -> bool:
    """True for an override of the table ``segmentation``, or of one of its keys."""
    return override.partition("=")[0].strip().partition(".")[0] == TABLE


def with_applied(config: RunConfig, values: Mapping[str, Any], place: str) -> RunConfig:
    """The same configuration with the values that relabel has applied; ``ConfigError`` if they do not fit to it."""
    if not values:
        return config
    data = json.loads(config.model_dump_json(exclude_unset=True))
    data[TABLE] = {**data.get(TABLE, {}), **values}
    listed = ", ".join(f"{key} {value}" for key, value in values.items())
    return parse_config(data, source=f"the run file with what `petaseg relabel` has applied ({listed}, see {place})")


def without(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The values of all other keys."""
    left_out = set(keys)
    return {key: value for key, value in values.items() if key not in left_out}


def _present(table: Any) -> dict[str, Any]:
    return {k: v for k, v in table.items() if v is not None} if isinstance(table, Mapping) else {}
