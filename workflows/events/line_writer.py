"""A writer of single lines for stores without append: it stores an object every few seconds."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime

from pipeline.errors import StorageError
from pipeline.storage import ObjectStore

FLUSH_SECONDS = 10.0


class SegmentWriter:
    """Puts ``<folder>/20260131T235959Z-4711-000007<suffix>``: by start, process and number, so that names sort by time.

    Its own thread stores them, so that no caller waits. Lines that could not be stored are stored with the next ones.
    """

    def __init__(self, store: ObjectStore, folder: str, suffix: str, seconds: float = FLUSH_SECONDS) -> None:
        began = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.store, self.seconds, self.suffix = store, seconds, suffix
        self.prefix = f"{folder}/{began}-{os.getpid()}"
        self.problem: StorageError | None = None
        """The error of the last put; ``None`` if it succeeded."""
        self._lines: list[bytes] = []
        self._number = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="petaseg-segments", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Keep a line with its end; any thread may call it."""
        with self._lock:
            self._lines.append(line)

    def close(self) -> None:
        """Store the remaining lines."""
        self._closing.set()
        self._thread.join()
        self._flush()

    def _loop(self) -> None:
        while not self._closing.wait(self.seconds):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            count, data = len(self._lines), b"".join(self._lines)
        if not count:
            return
        try:
            self.store.put(f"{self.prefix}-{self._number:06d}{self.suffix}", data)
        except StorageError as error:
            self.problem = error
            return
        self.problem = None
        self._number += 1
        with self._lock:
            del self._lines[:count]
