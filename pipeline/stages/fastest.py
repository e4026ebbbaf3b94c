"""The precision that was faster on the machine of a run's first driver, as the run directory records it.

    <run>/precisions/<key>.json        key: of everything that was measured (weights, patch, device, options)

The record is never replaced: of several drivers that measure, the first decides, and all others take what it recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import LedgerError
from pipeline.formats import PRECISION
from pipeline.storage import ObjectStore

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Fastest:
    """A measured choice of the precision."""

    precision: Precision
    rates: Mapping[str, float]
    """Voxels a second by precision: of CPU time on a CPU, of time on a GPU."""
    unit: str
    """The unit of the rates, in words."""
    host: str
    """The machine on which they were measured; for people."""

    def __str__(self) -> str:
        ordered = sorted(self.rates.items(), key=lambda rate: rate[0] != self.precision)
        rates = ", ".join(f"{name} {rate / 1e6:.3g}" for name, rate in ordered)
        return f"{self.precision} (measured on {self.host}, in million {self.unit}: {rates})"

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({**PRECISION.stamp, **asdict(self)}, indent=1).encode()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Fastest:
        """The choice that a document holds."""
        rates = {name: float(document["rates"][name]) for name in ("float32", "bfloat16")}
        if document["precision"] not in rates:
            raise ValueError(f"precision is {document['precision']!r}; it must be one of {', '.join(rates)}")
        return cls(document["precision"], rates, str(document["unit"]), str(document["host"]))


def precision_key(key: str) -> str:
    """The object that holds a choice."""
    return f"precisions/{key}.json"


def recorded(store: ObjectStore, key: str) -> Fastest | None:
    """The choice in a run directory; ``None`` before its first driver.

    Raises ``LedgerError`` if a newer petaseg has written it, ``CorruptError`` if it cannot be read.
    """
    data = store.get_or_none(precision_key(key))
    if data is None:
        return None
    again = "restore it, or write the precision of this run into inference.precision and delete it"
    return PRECISION.read(data, f"{store.url}/{precision_key(key)}", Fastest.of, LedgerError, damaged=again)


def record(store: ObjectStore, key: str, found: Fastest) -> Fastest:
    """Record a choice unless there is one; the choice that holds."""
    if recorded(store, key) is None:
        store.put_if(precision_key(key), found.encode(), None)  # whoever loses reads what won
    return recorded(store, key) or found
