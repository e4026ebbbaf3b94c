"""What ``petaseg add`` has added to a run, and how long it holds.

    <run>/added.json    the tables of ``pipeline.runs.branches`` that were added, by name

An added table holds in every later command, until the run file itself has a table of that name, or says ``null`` for
it: then the run file wins. ``--set`` goes before both, for one command. The user's run file is never written. The
``run.yaml`` of a run directory is the configuration of the last run, in which all of this is contained already.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.reading import apply_overrides, parse_config
from pipeline.config.run_file import RunConfig
from pipeline.config.strict_yaml import dump_yaml, parse_yaml
from pipeline.errors import ConfigError, LedgerError
from pipeline.formats import ADDED
from pipeline.runs.branches import BRANCHES
from pipeline.storage import ObjectStore

KEY = "added.json"


@dataclass(frozen=True)
class Added:
    """The record in a run directory."""

    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The keys of each table, which may be none."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Added:
        """The record that a document holds."""
        return cls({name: dict(table) for name, table in document["tables"].items()})

    def checked(self, name: str, config: RunConfig) -> Added:
        """The record with a table as a configuration has it: its paths are absolute, wherever the run file lies."""
        table = json.loads(getattr(config, name).model_dump_json(exclude_unset=True))
        return Added({**self.tables, name: table})

    def store_in(self, store: ObjectStore) -> None:
        """Write the record."""
        store.put(KEY, (json.dumps({**ADDED.stamp, "tables": self.tables}, indent=1) + "\n").encode())


def read_added(store: ObjectStore) -> Added:
    """The record of a run directory; an empty one if nothing was added.

    Raises ``LedgerError`` if a newer petaseg has written it, ``CorruptError`` if it cannot be read.
    """
    data = store.get_or_none(KEY)
    if data is None:
        return Added()
    again = "delete it, and give `petaseg add` again what you had added"
    return ADDED.read(data, f"{store.url}/{KEY}", Added.of, LedgerError, damaged=again)


def tables_of_file(text: bytes, source: str) -> frozenset[str]:
    """Names of the tables of ``BRANCHES`` about which a run file says something, and be it ``null``."""
    data = parse_yaml(text, source)
    return frozenset(BRANCHES) & frozenset(data if isinstance(data, Mapping) else ())


def has_null(text: bytes, source: str, name: str) -> bool:
    """True if a run file says that a table is not wanted."""
    data = parse_yaml(text, source)
    return isinstance(data, Mapping) and name in data and data[name] is None


def with_added(config: RunConfig, own: Collection[str], overrides: Sequence[str], place: str) -> RunConfig:
    """The same configuration with the tables that were added; ``ConfigError`` if they do not fit to it.

    own: tables that the run file has itself. overrides: what ``--set`` says, which the configuration has already.
    """
    added = read_added(ObjectStore(config.run_directory)).tables
    given = apply_overrides({}, overrides)
    tables = {name: table for name, table in added.items() if name not in own and given.get(name, {}) is not None}
    if not tables:
        return config
    data = json.loads(config.model_dump_json(exclude_unset=True))
    data |= {name: {**table, **(data.get(name) or {})} for name, table in tables.items()}
    return parse_config(data, source=f"the run file with what `petaseg add` has added (see {place}/{KEY})")


def with_table(store: ObjectStore, name: str, overrides: Sequence[str]) -> tuple[Added, list[str]]:
    """The record with a table, and the overrides that are about no key of it.

    overrides: ``name.key=value`` texts replace keys that were added before. Raises ``ConfigError`` for an unknown name.
    """
    if name not in BRANCHES:
        raise ConfigError(f"{name!r} cannot be added to a run; there are {', '.join(BRANCHES)}")
    mine = [each for each in overrides if each.partition("=")[0].strip().partition(".")[0] == name]
    before = read_added(store)
    table = {**before.tables.get(name, {}), **(apply_overrides({}, mine).get(name) or {})}
    return Added({**before.tables, name: table}), [each for each in overrides if each not in mine]


def as_lines(added: Added, name: str) -> str:
    """The lines of a run file that say the same as an added table."""
    return dump_yaml({name: dict(added.tables[name])}).strip()
