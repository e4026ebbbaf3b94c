"""Before it writes, a worker asks whether its stage is still computed under the configuration that it was given.

A driver may die, or be cut off, and be followed by one with another configuration while a worker of the first is still
at a chunk. The chunk may be done and recorded by then: what comes late must not be written over it. Under the same
configuration it is harmless, since it is the same.

What is left is a worker that stands still between the question and the write and goes on when its chunk was done anew:
no store can refuse that. Drivers end the workers that they have started, which leaves seconds for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import LeaseError
from pipeline.ledger_log import first_line_of
from pipeline.records import decode
from pipeline.storage import ObjectStore


@dataclass(frozen=True)
class Fence:
    """The question of one stage under one fingerprint; travels to workers."""

    store: ObjectStore
    stage: str
    fingerprint: str

    def check(self) -> None:
        """Raise ``LeaseError`` if the ledger of the stage was begun under another fingerprint since."""
        record = decode(first_line_of(self.store, f"ledger/{self.stage}"))
        present = "" if record is None else str(record.get("begin", "")).partition(" ")[0]
        if present and present != self.fingerprint:  # while a log is begun anew it has no first line
            raise LeaseError(
                f"{self.stage} goes on under another configuration ({present[:8]} instead of {self.fingerprint[:8]}); "
                "this worker belongs to a driver whose time is over and writes nothing"
            )
