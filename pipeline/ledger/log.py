"""A reader of a ledger's log: it yields each line once, in the order of writing, also while another process writes.

A log grows at its end, or is begun anew when it is compacted or a run begins under another configuration. Its first
line then differs (it holds the time), so a reader sees by a few bytes whether the lines it has read are still valid.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.storage import ObjectStore

HEAD_BYTES = 200
"""A number of bytes that holds the first line of any log."""
BLOCK_BYTES = 1 << 24
"""Bytes that are read at a time from a log that can be appended to, so that memory is bounded."""


class LogCursor:
    """A position in a log, behind the last complete line that was read."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self.store, self.folder = store, folder
        self.torn = False
        """True if the last line is incomplete, after a crash or while a record is being written."""
        self.last_segment = -1
        """Number of the last segment that was read; -1 where there are none."""
        self._head = b""
        """The first line, if there was one."""
        self._offset = 0
        self._line = 0

    def replaced(self) -> bool:
        """True if the log was begun anew since this cursor was made."""
        return first_line(self.store.get_or_none(self._first_key, 0, HEAD_BYTES) or b"") != self._head

    def lines(self) -> Iterator[tuple[bytes, str]]:
        """The complete lines behind this position, without line breaks, each with its name for messages."""
        if self.last_segment < 0 and not self._offset:
            yield from self._from_another_store()
        yield from self._appended() if self.store.supports_append else self._segmented()

    def _from_another_store(self) -> Iterator[tuple[bytes, str]]:
        """Lines of a log copied from another kind of store: segments on a file system, or a file in a bucket."""
        for key in log_keys(self.store, self.folder):
            if key.endswith("/log.jsonl") != self.store.supports_append:
                yield from self._whole(key)

    def _appended(self) -> Iterator[tuple[bytes, str]]:
        key = self._first_key
        while block := self.store.get_or_none(key, self._offset, self._offset + BLOCK_BYTES):
            if not self._offset:
                self._head = first_line(block)
            whole = block.rfind(b"\n") + 1
            self.torn = whole < len(block)
            if not whole:
                return
            self._offset += whole
            for line in block[: whole - 1].split(b"\n"):
                self._line += 1
                yield line, f"{key}:{self._line}"
            if len(block) < BLOCK_BYTES:
                return

    def _segmented(self) -> Iterator[tuple[bytes, str]]:
        for key in self._new_segments():
            self.last_segment = int(key[-12:-6])
            yield from self._whole(key)

    def _new_segments(self) -> Iterator[str]:
        """All segments at first; later those that follow the last one read, without a listing."""
        if self.last_segment < 0:
            yield from (key for key in log_keys(self.store, self.folder) if not key.endswith("/log.jsonl"))
            return
        while self.store.exists(key := f"{self.folder}/log-{self.last_segment + 1:06d}.jsonl"):
            yield key

    def _whole(self, key: str) -> Iterator[tuple[bytes, str]]:
        data = self.store.get_or_none(key) or b""
        if key == self._first_key:
            self._head = first_line(data)
        for number, line in enumerate(data.split(b"\n")[:-1]):
            yield line, f"{key}:{number + 1}"

    @property
    def _first_key(self) -> str:
        return f"{self.folder}/log.jsonl" if self.store.supports_append else f"{self.folder}/log-000000.jsonl"


def log_keys(store: ObjectStore, folder: str) -> list[str]:
    """The keys of a log, sorted: one file, or segments."""
    return [key for key in store.list(f"{folder}/log") if key.endswith(".jsonl")]


def first_line(data: bytes) -> bytes:
    """The first line of a log, by which it differs from the next log."""
    return data[:HEAD_BYTES].partition(b"\n")[0]
