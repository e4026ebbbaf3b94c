"""Edits out of a table: CSV, Parquet or JSON, one row an edit.

| edit  | segment | from              | to              |
|-------|---------|-------------------|-----------------|
| merge |         | 1201              | 40,112,96       |
| split | 1201    | 40,112,96;44,90,9 | 41,130,96       |

Places are ids or points z,y,x, as on the command line; ``;`` parts the places of a side. ``segment`` may be left out.
In JSON, rows are objects, and a side may also be a list of places, each a number or a list [z, y, x].
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import ConfigError, counted
from pipeline.runs.edits_named import Place, Wanted, place_of, places_of
from pipeline.segmentation.edits import MERGE, SPLIT
from pipeline.storage import store_of

COLUMNS = ("edit", "segment", "from", "to")
ENDINGS = (".csv", ".json", ".parquet")


def read_edits(path: str) -> list[Wanted]:
    """The edits of a table, in its order; ``ConfigError`` names the row that does not fit."""
    rows = _rows(path)
    if not rows:
        raise ConfigError(f"{path} has no edits; it needs one row for each, with {', '.join(COLUMNS)}")
    return [_wanted(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _rows(path: str) -> list[Mapping[str, Any]]:
    ending = next((each for each in ENDINGS if path.endswith(each)), None)
    if ending is None:
        raise ConfigError(f"{path} must be a table of edits that ends in {', '.join(ENDINGS)}")
    store, key = store_of(path)
    data = store.get_or_none(key)
    if data is None:
        raise ConfigError(f"{path} does not exist; name a table of edits")
    read: dict[str, Callable[[bytes], Any]] = {".csv": _of_csv, ".json": json.loads, ".parquet": _of_parquet}
    try:
        rows = read[ending](data)
    except ValueError as error:  # what is no JSON, no Parquet or no text
        raise ConfigError(f"{path} cannot be read as {ending[1:]} ({error}); write it anew") from None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError(f"{path} must be a list of edits, each an object with {', '.join(COLUMNS)}")
    return rows


def _of_csv(data: bytes) -> list[Mapping[str, Any]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), restkey="more", strict=True))


def _of_parquet(data: bytes) -> list[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[Mapping[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def _wanted(row: Mapping[str, Any], source: str) -> Wanted:
    if unknown := sorted(str(name) for name in row if name not in COLUMNS):
        raise ConfigError(f"{source} has {', '.join(unknown)}; an edit has {', '.join(COLUMNS)}: correct or remove it")
    kind, segment = row.get("edit"), row.get("segment")
    if kind not in (MERGE, SPLIT):
        raise ConfigError(f"{source}: edit is {kind!r}; it must be merge or split")
    first, second = (_side(row.get(name), f"{source}, {name}") for name in ("from", "to"))
    whole = None if segment in (None, "") else _side(segment, f"{source}, segment")
    if kind == MERGE and (len(first), len(second), whole) != (1, 1, None):
        given = f"{counted(len(first), 'place')} and {counted(len(second), 'place')}"
        raise ConfigError(f"{source}: a merge has one place in from and one in to, and no segment; it has {given}")
    if whole is not None and len(whole) != 1:
        raise ConfigError(f"{source}: segment is {segment!r}; it must be one id, or one point")
    return Wanted(kind, first, second, source, None if whole is None else whole[0])


def _side(value: Any, source: str) -> tuple[Place, ...]:
    """The places of a cell: a text as on the command line, a number, or a list of places."""
    if isinstance(value, str) and value.strip():
        return places_of(value, source)
    if isinstance(value, int) and not isinstance(value, bool):
        return (place_of(str(value), source),)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return tuple(_place(each, source) for each in value)
    raise ConfigError(f"{source} is {value!r}; it must name an id, or a point z,y,x")


def _place(value: Any, source: str) -> Place:
    """A place of a list: a number, or a list of three."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return place_of(text, source)
