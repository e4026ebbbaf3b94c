"""The log of a run's edits, which ``petaseg edit`` writes.

    <run>/edits.json                  corrections of the neurons, in supervoxels, in their order
    <run>/beside/<name>/edits.json    those of a second segmentation

An edit names supervoxels, so it holds at any threshold and in a recomputed run. The log is replaced as a whole, and
only if it is what its writer has read. The time of an entry has no effect on the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import LeaseError, LedgerError
from pipeline.formats import EDITS
from pipeline.segmentation.edits import MERGE, SPLIT, Edit
from pipeline.storage import ObjectStore

KEY = "edits.json"


@dataclass(frozen=True)
class Entry:
    """An edit, and when it was made."""

    edit: Edit
    time: str
    """UTC, as in 2026-11-30T09:30:00Z."""

    @classmethod
    def now(cls, edit: Edit) -> Entry:
        """An entry of an edit that is made now."""
        return cls(edit, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Entry:
        """The entry that a document holds; ``ValueError`` if it is none."""
        if plain["kind"] not in (MERGE, SPLIT):
            raise ValueError(f"an edit of kind {plain['kind']!r}")
        first, second = (tuple(map(_supervoxel, plain[name])) for name in ("first", "second"))
        return cls(Edit(plain["kind"], first, second), str(plain.get("time", "")))

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self.edit), "time": self.time}


@dataclass(frozen=True)
class EditLog:
    """All entries, the first first."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> EditLog:
        """The log that a document holds."""
        return cls(tuple(map(Entry.of, document["edits"])))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits alone, on which the result depends."""
        return tuple(entry.edit for entry in self.entries)

    def with_edits(self, edits: Sequence[Edit]) -> EditLog:
        """The log with more edits at its end."""
        return replace(self, entries=(*self.entries, *map(Entry.now, edits)))

    def without_last(self, count: int) -> EditLog:
        """The log without its last entries."""
        return replace(self, entries=self.entries[: len(self.entries) - count])

    def encode(self) -> bytes:
        """The document, an entry a line."""
        lines = ",\n".join(json.dumps(entry.plain()) for entry in self.entries)
        stamp = json.dumps(EDITS.stamp)[1:-1]
        return f'{{{stamp}, "edits": [\n{lines}\n]}}\n'.encode()


def read_log(store: ObjectStore) -> EditLog:
    """The log of a run directory, or of the folder of a second segmentation; an empty one if nothing was edited.

    Raises ``LedgerError`` if a newer petaseg has written it, ``CorruptError`` if it cannot be read.
    """
    data = store.get_or_none(KEY)
    return EditLog() if data is None else _decode(data, store)


def replace_log(store: ObjectStore, before: EditLog, after: EditLog) -> None:
    """Write a log, all or nothing; ``LeaseError`` if it is no longer ``before``, since somebody else has edited."""
    found = store.get_versioned(KEY)
    version = None if found is None else found[1]
    same = before == (EditLog() if found is None else _decode(found[0], store))
    if not same or store.put_if(KEY, after.encode(), version) is None:
        raise LeaseError(f"{store.url}/{KEY} was changed by somebody else just now; look at the result, and edit again")


def _decode(data: bytes, store: ObjectStore) -> EditLog:
    again = "bring it back from a copy, or delete it, and the run has no edits"
    return EDITS.read(data, f"{store.url}/{KEY}", EditLog.of, LedgerError, damaged=again)


def _supervoxel(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 64:
        raise ValueError(f"supervoxel {value!r}")
    return value
