"""The environment in which a run's network is computed: measured in each worker, recorded by the first that writes.

    <run>/environments/<fingerprint of the stage>.json

1. before its first chunk a worker measures what it computes (``Predictor.digest``) and compares it with the record
2. before it writes its first chunk it records its own, if there is none: of several workers exactly one does
3. a worker of another digest is refused with ``WorkerEnvironmentError``, so that another worker may do the chunk

The digest decides. The names (torch, processor, GPU) are for the message: two processors that torch calls AVX512 can
compute different bytes, and two versions of torch the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pipeline.errors import CorruptError, LedgerError, WorkerEnvironmentError
from pipeline.formats import ENVIRONMENT
from pipeline.storage import ObjectStore


@dataclass(frozen=True)
class Environment:
    """What a process computes with."""

    digest: str
    """Of the network's output for fixed patches: equal where the arithmetic is equal."""
    names: Mapping[str, str]
    """Device, version of torch, processor or GPU; for people."""
    host: str
    """The machine; for people."""

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({**ENVIRONMENT.stamp, **asdict(self)}, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes, place: str) -> Environment:
        """The environment in the bytes of the object at ``place``.

        Raises ``CorruptError`` if there is none in them, ``LedgerError`` if a newer petaseg wrote it.
        """
        try:
            plain = json.loads(data)
            ENVIRONMENT.check(plain, place, LedgerError)
            bytes.fromhex(plain["digest"])
            return cls(plain["digest"], dict(plain["names"]), plain["host"])
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptError(
                f"{place} is not the record of an environment ({type(error).__name__}: {error}); restore it, or begin "
                "anew in another run directory. If all workers of the run were machines of one kind, you may "
                "also delete it and go on with the same kind: `petaseg verify` shows whether the bytes agree"
            ) from error


def record_key(fingerprint: str) -> str:
    """The object that holds the environment of a stage."""
    return f"environments/{fingerprint}.json"


def recorded(store: ObjectStore, fingerprint: str) -> Environment | None:
    """The environment of a stage in a run directory; ``None`` before its first chunk is written."""
    key = record_key(fingerprint)
    data = store.get_or_none(key)
    return None if data is None else Environment.decode(data, f"{store.url}/{key}")


def compare(store: ObjectStore, fingerprint: str, here: Environment) -> None:
    """``WorkerEnvironmentError`` if another environment is recorded; nothing is written."""
    known = recorded(store, fingerprint)
    if known is not None and known.digest != here.digest:
        raise WorkerEnvironmentError(_refusal(known, here, record_key(fingerprint)))


def record(store: ObjectStore, fingerprint: str, here: Environment) -> None:
    """Record this environment if it is the first; ``WorkerEnvironmentError`` if another one was faster."""
    if recorded(store, fingerprint) is None:
        store.put_if(record_key(fingerprint), here.encode(), None)  # whoever loses reads what won
    compare(store, fingerprint, here)


def _refusal(known: Environment, here: Environment, key: str) -> str:
    return (
        f"{here.host} computes other bytes than this run, which {known.host} began: for fixed patches its network "
        f"returns {here.digest[:12]}, not {known.digest[:12]}; {_differences(known.names, here.names)}. All chunks of "
        "a run need one environment: give its workers machines, drivers and libraries like those of the first, or "
        "begin anew in another run directory. If no chunk of this stage is done yet, it is enough to end all workers "
        f"and to delete {key} in the run directory"
    )


def _differences(known: Mapping[str, str], here: Mapping[str, str]) -> str:
    names = [name for name in {**known, **here} if known.get(name) != here.get(name)]
    if not names:
        words = ", ".join(f"{name} {value}" for name, value in here.items())
        return f"both have {words}, so it is something that these names do not show"
    return ", ".join(f"{name} is {here.get(name, 'not set')}, not {known.get(name, 'not set')}" for name in names)
