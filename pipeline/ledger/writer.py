"""The one writer of a stage's log: lines at the end of a file, or segments every few seconds; at times arrays instead.

Whatever is stored goes through here, and each time ``may_write`` is asked first.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import PetasegError
from pipeline.formats import LEDGER
from pipeline.ledger.log import log_keys
from pipeline.ledger.records import encode
from pipeline.storage import ObjectStore

logger = logging.getLogger("petaseg.ledger")

FLUSH_SECONDS = 5.0
"""The longest time before a record is stored where nothing can be appended, if no other record follows.
"""
FLUSH_RECORDS = 5000
COMPACT_RECORDS = 1000
"""A log of fewer lines is not compacted when the ledger is closed."""
LONG_LOG = 50_000
"""A log with this many lines, and one for every tenth chunk, is compacted at once: a line takes 15 us to read.
"""
LONG_SEGMENTS = 200
"""A log is compacted at once if it has this many segments: reading takes a request for each."""


@dataclass
class StoredLog:
    """What is known of the log in the store, from reading and from writing it."""

    name: str = ""
    """Fingerprint and a random number: two logs of one fingerprint, with another between them, differ."""
    ours: bool = False
    """True if it is of our fingerprint; otherwise the first record under ours replaces it."""
    lines: int = 0
    next_segment: int = 0
    """The number that the next segment gets."""


class LogWriter:
    """Writes the log of one stage, and the arrays that replace a long one. Only the driver of a run uses it.

    chunks: how many the stage has.
    """

    def __init__(self, store: ObjectStore, folder: str, stored: StoredLog, chunks: int) -> None:
        self.store, self.folder, self.stored = store, folder, stored
        self.may_write: Callable[[], None] = lambda: None
        """Asked before anything is stored; raises ``LeaseError`` if this driver may not write any more."""
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._waiting: list[bytes] = []
        """Lines for the next segment."""
        self._long_log = max(LONG_LOG, chunks // 10)
        self._patience = 1

    # -- lines ------------------------------------------------------------------------------------------------------

    def begin(self, fingerprint: str) -> None:
        """Begin a log without records; the arrays of the one before it go first."""
        self.may_write()
        self.store.delete(arrays_key(self.folder))
        self.stored.name = f"{fingerprint} {uuid.uuid4().hex}"
        self._replace_log((), same=False)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record: stored at once on a file system, elsewhere with the next segment."""
        with self._lock:
            line = encode(record, self.stored.name)
            self.stored.lines += 1
            if self.store.supports_append:
                self.may_write()
                self.store.append(self._file, line)
            else:
                self._waiting.append(line)
                self._flush_later()

    def end_torn_line(self) -> None:
        """Let the next record begin on a line of its own after a crash in the middle of one."""
        self.may_write()
        self.store.append(self._file, b"\n")

    def flush(self) -> None:
        """Store the lines that wait (a file system has them already)."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._waiting:
                self.may_write()
                self.store.put(self._segment(self.stored.next_segment), b"".join(self._waiting))
                self.stored.next_segment += 1
                self._waiting = []

    def _flush_later(self) -> None:
        """Flush at once if many lines wait, and otherwise in ``FLUSH_SECONDS``."""
        if len(self._waiting) >= FLUSH_RECORDS:
            self.flush()
        elif self._timer is None:
            self._timer = threading.Timer(FLUSH_SECONDS, self._flush_in_time)
            self._timer.daemon = True
            self._timer.start()

    def _flush_in_time(self) -> None:
        try:
            self.flush()
        except PetasegError as error:
            logger.warning("the records in %s wait for the next flush: %s", self.folder, error)

    # -- arrays -----------------------------------------------------------------------------------------------------

    @property
    def log_is_long(self) -> bool:
        """True if the log should become arrays at once."""
        stored = self.stored
        return stored.lines >= self._patience * self._long_log or stored.next_segment >= self._patience * LONG_SEGMENTS

    @property
    def log_is_worth_arrays(self) -> bool:
        """True if the log should become arrays when the ledger is closed."""
        return self.stored.lines >= COMPACT_RECORDS

    def compact(self, arrays: Mapping[str, np.ndarray], kept: Iterable[Mapping[str, Any]]) -> None:
        """Store the marks as arrays, then begin a short log with the records that arrays do not keep.

        A crash in between leaves both, which agree, because the log is flushed first: its end decides about what it
        forgets or sets aside.
        """
        self.flush()
        head = {"log": np.frombuffer(self.stored.name.encode(), np.uint8)}
        head |= {field: np.array(version) for field, version in LEDGER.stamp.items()}
        with self._lock:
            self.may_write()
            self.store.put_arrays(arrays_key(self.folder), {**head, **arrays}, compress=True)
            self._replace_log(kept, same=True)
            self._patience = 1

    def put_off_compaction(self) -> None:
        """The arrays could not be stored: the log says the same, so let it grow to twice its length."""
        self._patience *= 2

    # -- replacing a log --------------------------------------------------------------------------------------------

    def _replace_log(self, kept: Iterable[Mapping[str, Any]], *, same: bool) -> None:
        """Begin the log anew with the records to keep; ``same`` if the old one is of the same name."""
        # The time tells readers that the log was begun anew. "begin" comes first in all versions: readers look for it.
        begin = {"begin": self.stored.name, **LEDGER.stamp, "t": time.time()}
        lines = [encode(begin)] * 2  # twice: without it, all that follows counts for nothing
        lines += [encode(record, self.stored.name) for record in kept]
        self.may_write()
        if self.store.supports_append:
            self.store.put(self._file, b"".join(lines))
        else:
            self._replace_segments(b"".join(lines), same=same)
        self.stored.ours, self.stored.lines = True, len(lines)

    def _replace_segments(self, first: bytes, *, same: bool) -> None:
        """Replace all segments by one. After a crash half-way, what is left must not be read in a wrong way.

        Of another fingerprint: the last go first, so that what is left is a shorter log of that fingerprint. Of ours:
        the new one comes first, since the others agree with the arrays but cannot be read without a beginning.
        """
        new, old = self._segment(0), log_keys(self.store, self.folder)
        if not same:
            for key in reversed(old):
                self.store.delete(key)
            self.may_write()
        self.store.put(new, first)
        if same:
            for key in old:
                if key != new:
                    self.store.delete(key)
        # Not before: after an error the log goes on where it was.
        self.stored.next_segment, self._waiting = 1, []

    @property
    def _file(self) -> str:
        return f"{self.folder}/log.jsonl"

    def _segment(self, number: int) -> str:
        return f"{self.folder}/log-{number:06d}.jsonl"


def arrays_key(folder: str) -> str:
    """The key of the arrays in the folder of a ledger."""
    return f"{folder}/compact.npz"
