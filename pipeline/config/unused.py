"""Keys that a user has set and that nothing uses: the one rule by which they are refused or named.

    NoUse(("agglomeration.quantile",), lambda case: ..., "set agglomeration.linkage: quantile", refused=True)

A table of such rows stands beside the keys (``pipeline/runs/unused.py``, ``pipeline/training/unused.py``, and for the
tables of clusters ``cluster_use.py``). A key counts if the file or ``--set`` says it. Where a row is ``refused``, which
means that the key contradicts another, a value is an error, and the key's default is named. Where it is not, a value is
named in one line, so that a file may keep what other machines use, and the key's default is as good as left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.config.base import Table
from pipeline.errors import ConfigError

Case = TypeVar("Case", contravariant=True)
"""What the rows of a table are about: a run, or a training, and where it computes."""
LISTED = 6
"""The most keys that a line lists one by one."""


@dataclass(frozen=True)
class NoUse(Generic[Case]):
    """Keys that have no effect in some cases."""

    keys: tuple[str, ...]
    """Keys, and names of tables, which stand for all keys in them."""
    why: Callable[[Case], str]
    """What makes them useless, as it follows "is not used"; an empty text where they have an effect."""
    remedy: str
    """What to do instead of removing them."""
    refused: bool = False
    """True if the key contradicts another one, so that one of the two is a mistake."""

    def covers(self, key: str) -> bool:
        """True for one of the keys, and for a key of one of the tables."""
        return any(key == each or key.startswith(f"{each}.") for each in self.keys)


@dataclass(frozen=True)
class Given:
    """A key that a user has set."""

    key: str
    value: Any
    default: Any

    @property
    def is_default(self) -> bool:
        """True if the file would mean the same without it."""
        return bool(self.value == self.default)


@dataclass(frozen=True)
class Unused:
    """Keys that a user has set, and that one row says are not used."""

    given: tuple[Given, ...]
    why: str
    remedy: str
    refused: bool

    @property
    def wrong(self) -> tuple[Given, ...]:
        """The keys that are refused: a default says nothing that is not so anyway."""
        return tuple(each for each in self.given if self.refused and not each.is_default)

    def refusal(self, wrong: Given) -> str:
        """The message of a key that is refused."""
        taken_back = f"--set {wrong.key}={json.dumps(wrong.default, separators=(',', ':'))}"
        return (
            f"{wrong.key} is {json.dumps(wrong.value)}, which is not used {self.why}: {self.remedy}, or leave "
            f"{wrong.key} out ({taken_back})"
        )

    def __str__(self) -> str:
        keys = [each.key for each in self.given]
        listed = keys if len(keys) <= LISTED else [*keys[: LISTED - 1], f"{len(keys) - LISTED + 1} more keys"]
        names = " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
        be, it = ("are", "them") if len(keys) > 1 else ("is", "it")
        return f"{names} {be} not used {self.why}; {self.remedy}, or remove {it}"


def given_keys(table: Table, prefix: str = "") -> Iterator[Given]:
    """The keys that a user has set, with the tables before them; a list of tables is one key."""
    for name, field in type(table).model_fields.items():
        if name not in table.keys_said:
            continue
        value = getattr(table, name)
        if isinstance(value, Table):
            yield from given_keys(value, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
            yield Given(f"{prefix}{name}", _plain(value), _plain(default))


def unused(table: Table, case: Case, rows: Sequence[NoUse[Case]]) -> list[Unused]:
    """What a user has set in vain, in the order of the rows; a key is under the first row that says why."""
    left, found = list(given_keys(table)), []
    for row in rows:
        why = row.why(case)
        covered = [each for each in left if row.covers(each.key)] if why else []
        keys = tuple(each for each in covered if row.refused or not each.is_default)
        if keys:
            found.append(Unused(keys, why, row.remedy, row.refused))
            left = [each for each in left if each not in keys]
    return found


def refuse(found: Sequence[Unused]) -> None:
    """Raise ``ConfigError`` if keys contradict others: a line for each of them."""
    lines = [each.refusal(wrong) for each in found for wrong in each.wrong]
    if lines:
        raise ConfigError("\n  - ".join(["keys that nothing would use:", *lines]) if len(lines) > 1 else lines[0])


def _plain(value: Any) -> Any:
    """A value as a file says it."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.model_dump(mode="json") if isinstance(value, Table) else value
