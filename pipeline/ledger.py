"""Which chunks of a stage are done, and the proof: one writer, append-only records, nothing inferred from files.

    <run>/ledger/<stage>/log.jsonl         where objects can be appended to (a file system): a line a record, at once
    <run>/ledger/<stage>/log-000007.jsonl  elsewhere: segments of records, one every few seconds
    <run>/ledger/<stage>/compact.npz       the records of finished grids, as arrays

The first record names the fingerprint under which all others count. Work under another fingerprint begins a new log:
its chunks overwrite the old ones, so the old marks must not come back to life. A line carries its own checksum; one
that is torn or damaged is dropped, which costs a recomputation and never a wrong result.

Memory: 29 bytes a chunk, in arrays by position in the grid.
"""

from __future__ import annotations

import io
import json
import logging
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import CorruptError, LedgerError, StorageError
from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore

logger = logging.getLogger("petaseg.ledger")

FLUSH_SECONDS = 5.0
FLUSH_RECORDS = 5000
COMPACT_RECORDS = 1000
KEPT_NOTES = 100
"""A log of fewer lines is left as it is when the ledger is closed."""
STORED = ("done", "checksums", "seconds", "bytes_written")
"""The arrays of ``Marks`` that ``compact.npz`` holds for each level."""


@dataclass
class Summary:
    """Sums over the chunks that are done."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    voxels: int = 0
    bytes_written: int = 0
    attempts: int = 0
    """Attempts that failed, since the stage began under this fingerprint."""
    counters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A chunk that was set aside."""

    chunk_name: str
    level: int
    index: tuple[int, int, int]
    error: str
    traceback: str
    attempts: int


class Marks:
    """The done chunks of one grid, by position."""

    def __init__(self, grid: ChunkGrid) -> None:
        self.grid = grid
        self.done = np.zeros(len(grid), bool)
        self.checksums = np.zeros((len(grid), 16), np.uint8)
        self.seconds = np.zeros(len(grid), np.float32)
        self.bytes_written = np.zeros(len(grid), np.int64)


class Ledger:
    """The records of one stage under one fingerprint. Only the driver of a run opens it without ``read_only``."""

    def __init__(
        self, store: ObjectStore, stage: str, fingerprint: str, grids: Sequence[ChunkGrid], *, read_only: bool = False
    ) -> None:
        self.store, self.stage, self.fingerprint, self.read_only = store, stage, fingerprint, read_only
        self.folder = f"ledger/{stage}"
        self._marks = {grid.level: Marks(grid) for grid in grids}
        self._totals = Summary()
        self._failures: dict[tuple[int, tuple[int, int, int]], Failure] = {}
        self._notes: deque[str] = deque(maxlen=KEPT_NOTES)
        self._pending_lines: list[bytes] = []
        self._last_flush = time.monotonic()
        self._segment = 0
        self._lines = 0
        self._forgot = False
        self._begun = False
        """True if the stored log is ours: the first record of a new fingerprint replaces it."""
        self.other_fingerprint = False
        """True if the stored records count for another configuration; the first chunk under ours replaces them."""
        self._read()

    # -- questions --------------------------------------------------------------------------------------------------

    def is_done(self, chunk: Chunk) -> bool:
        """True if the chunk is recorded as done."""
        marks = self._marks[chunk.level]
        return bool(marks.done[marks.grid.position(chunk.index)])

    def pending(self, grid: ChunkGrid) -> Iterator[Chunk]:
        """The chunks of a grid that are not done, lazily, in C order."""
        marks = self._marks[grid.level]
        return (grid.chunk(index) for n, index in enumerate(grid.indices()) if not marks.done[n])

    def done_count(self, grid: ChunkGrid) -> int:
        """How many chunks of a grid are done."""
        return int(self._marks[grid.level].done.sum())

    def checksum(self, chunk: Chunk) -> str:
        """The recorded checksum; ``LedgerError`` if the chunk is not done."""
        marks = self._marks[chunk.level]
        place = marks.grid.position(chunk.index)
        if not marks.done[place]:
            raise LedgerError(f"{self.stage} chunk {chunk.name} is not recorded as done; run the stage first")
        return marks.checksums[place].tobytes().hex()

    def quarantined(self) -> list[Failure]:
        """The chunks that were set aside, with their last error."""
        return list(self._failures.values())

    def summary(self) -> Summary:
        """Sums over everything recorded."""
        marks = self._marks.values()
        return Summary(
            done=sum(int(m.done.sum()) for m in marks),
            failed=len(self._failures),
            seconds=sum(float(m.seconds[m.done].sum(dtype=np.float64)) for m in marks),
            voxels=self._totals.voxels,
            bytes_written=sum(int(m.bytes_written[m.done].sum()) for m in marks),
            attempts=self._totals.attempts,
            counters=dict(self._totals.counters),
        )

    # -- records ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the stored log ours, before the first chunk overwrites data that the old marks speak of."""
        if self.read_only:
            raise LedgerError(f"the ledger of {self.stage} was opened for reading only; only a run's driver writes it")
        if not self._begun:
            self.store.delete(f"{self.folder}/compact.npz")
            self._replace_log(failures=False)

    def record(self, report: ChunkReport) -> None:
        """A chunk is done: its data is stored already."""
        line = {
            "done": [report.level, *report.index],
            "sum": report.checksum,
            "s": round(report.seconds, 4),
            "v": report.voxels,
            "b": report.bytes_written,
            "t": round(time.time(), 1),
        }
        self._write({**line, **({"n": report.counters} if report.counters else {})})

    def record_failure(self, chunk: Chunk, error: str, traceback: str, attempts: int, final: bool) -> None:
        """An attempt failed; ``final`` sets the chunk aside."""
        failure = Failure(chunk.name, chunk.level, chunk.index, error, traceback, attempts)
        self._write({**failure_record(failure), "final": final})

    def note(self, text: str) -> None:
        """Remember something about the stage that a user should see: a node that is avoided."""
        logger.warning("%s: %s", self.stage, text)
        self._write({"note": text, "t": round(time.time(), 1)})

    def notes(self) -> list[str]:
        """What was noted, the newest last; the oldest of very many are dropped."""
        return list(self._notes)

    def forget(self, chunk: Chunk) -> None:
        """Take a done mark back, so that the chunk is computed again.

        ``close`` then compacts: a damaged line must not bring the mark back.
        """
        self._write({"forget": [chunk.level, *chunk.index]})

    def flush(self) -> None:
        """Store what is recorded so far (a file system has it already)."""
        if self._pending_lines:
            self.store.put(self._segment_key(), b"".join(self._pending_lines))
            self._segment += 1
            self._pending_lines = []
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Flush, and turn a long log into arrays; where that cannot be stored, the log stays and says the same."""
        if self.read_only:
            return
        self.flush()
        if self._lines >= COMPACT_RECORDS or self._forgot:
            try:
                self.compact()
            except StorageError as error:
                logger.warning("the ledger of %s was not compacted: %s", self.stage, error)

    def compact(self) -> None:
        """Store the marks as arrays, then begin a short log; a crash in between leaves both, which agree."""
        arrays: dict[str, np.ndarray] = {"fingerprint": np.frombuffer(self.fingerprint.encode(), np.uint8)}
        for level, marks in self._marks.items():
            for name in STORED:
                arrays[f"{name}_{level}"] = getattr(marks, name)
        totals = json.dumps([self._totals.voxels, self._totals.attempts, self._totals.counters])
        arrays["totals"] = np.frombuffer(totals.encode(), np.uint8)
        self.store.put_arrays(f"{self.folder}/compact.npz", arrays, compress=True)
        self._replace_log(failures=True)
        self._forgot = False

    # -- storage ----------------------------------------------------------------------------------------------------

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        self._append(encode(record))
        self._apply(record)

    def _replace_log(self, *, failures: bool) -> None:
        """Begin a log under our fingerprint, with the open failures if it goes on where ``compact.npz`` ends."""
        lines = [encode({"begin": self.fingerprint})] * 2  # twice: without it, all that follows counts for nothing
        for failure in self._failures.values() if failures else ():
            lines.append(encode({**failure_record(failure), "kept": True}))
        lines += [encode({"note": note}) for note in self._notes if failures]
        if self.store.supports_append:
            self.store.put(f"{self.folder}/log.jsonl", b"".join(lines))
        else:
            self._replace_segments(b"".join(lines), same=failures)
        self._begun, self._lines = True, len(lines)

    def _replace_segments(self, first: bytes, *, same: bool) -> None:
        """Replace all segments by one. After a crash half-way, what is left must not be read in a wrong way.

        Of another fingerprint: the last go first, so that what is left is a shorter log of that fingerprint. Of ours:
        the new one comes first, since the others agree with ``compact.npz`` but cannot be read without a beginning.
        """
        self._pending_lines, old = [], self._segments()
        if not same:
            for key in reversed(old):
                self.store.delete(key)
        self._segment = 0
        self.store.put(self._segment_key(), first)
        if same:
            for key in old:
                if key != self._segment_key():
                    self.store.delete(key)
        self._segment = 1
        self._last_flush = time.monotonic()

    def _segment_key(self) -> str:
        return f"{self.folder}/log-{self._segment:06d}.jsonl"

    def _append(self, line: bytes) -> None:
        self._lines += 1
        if self.store.supports_append:
            self.store.append(f"{self.folder}/log.jsonl", line)
            return
        self._pending_lines.append(line)
        if len(self._pending_lines) >= FLUSH_RECORDS or time.monotonic() - self._last_flush > FLUSH_SECONDS:
            self.flush()

    def _segments(self) -> list[str]:
        return [key for key in self.store.list(f"{self.folder}/log") if key.endswith(".jsonl")]

    def _read(self) -> None:
        for key in self._segments():
            self._segment = int(key[-12:-6]) + 1 if not self.store.supports_append else 0
            data = self.store.get_or_none(key) or b"\n"
            for number, line in enumerate(io.BytesIO(data)):
                if line.endswith(b"\n"):
                    self._read_line(line[:-1], f"{key}:{number + 1}")
            if not data.endswith(b"\n") and self.store.supports_append and not self.read_only and self._begun:
                self.store.append(key, b"\n")  # end the torn line, so that the next record stands alone

    def _read_line(self, line: bytes, place: str) -> None:
        record = decode(line) if line else {}
        if record is None:
            logger.warning("%s is damaged and was dropped; its chunk is computed again", place)
        elif "begin" in record:
            self._begun = record["begin"] == self.fingerprint
            self.other_fingerprint = not self._begun
            if self._begun:
                self._read_compact()
        elif self._begun and record:
            self._lines += 1
            self._apply(record)

    def _read_compact(self) -> None:
        key = f"{self.folder}/compact.npz"
        if not self.store.exists(key):
            return
        try:
            arrays = self.store.get_arrays(key)
            if arrays["fingerprint"].tobytes().decode() != self.fingerprint:
                return
            voxels, attempts, counters = json.loads(arrays["totals"].tobytes())
            for level, marks in self._marks.items():
                for name in STORED:
                    getattr(marks, name)[...] = arrays[f"{name}_{level}"]
        except (CorruptError, KeyError, ValueError) as error:
            logger.warning("%s is damaged (%s); its chunks are computed again", key, error)
            self._marks = {level: Marks(marks.grid) for level, marks in self._marks.items()}
            return
        self._totals = Summary(voxels=voxels, attempts=attempts, counters=counters)

    def _apply(self, record: dict[str, Any]) -> None:
        """Change the state by one record."""
        if "note" in record:
            self._notes.append(record["note"])
            return
        kind = "done" if "done" in record else "forget" if "forget" in record else "fail"
        level, *index = record[kind]
        key = (level, (index[0], index[1], index[2]))
        marks = self._marks[level]
        place = marks.grid.position(key[1])
        if kind == "fail":
            self._totals.attempts += not record.get("kept", False)
            if record["final"]:
                self._failures[key] = Failure(record["name"], *key, record["error"], record["tb"], record["a"])
        elif kind == "forget":
            marks.done[place] = False
            self._forgot = True
        else:
            self._failures.pop(key, None)
            if not marks.checksums[place].any():  # counted once, also if it is forgotten and computed again
                self._totals.voxels += record["v"]
                for name, value in record.get("n", {}).items():
                    self._totals.counters[name] = self._totals.counters.get(name, 0) + value
            marks.done[place] = True
            marks.checksums[place] = np.frombuffer(bytes.fromhex(record["sum"]), np.uint8)
            marks.seconds[place], marks.bytes_written[place] = record["s"], record["b"]


def failure_record(failure: Failure) -> dict[str, Any]:
    """A chunk that was set aside, as a record."""
    place = {"fail": [failure.level, *failure.index], "name": failure.chunk_name}
    return {**place, "error": failure.error, "tb": failure.traceback, "a": failure.attempts, "final": True}


def encode(record: dict[str, Any]) -> bytes:
    """A record as a line: checksum, space, JSON."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its line break, or None if it is damaged."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return record
