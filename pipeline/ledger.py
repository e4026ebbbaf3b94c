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

import json
import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import CorruptError, LedgerError
from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore

logger = logging.getLogger("petaseg.ledger")

FLUSH_SECONDS = 5.0
FLUSH_RECORDS = 5000
COMPACT_RECORDS = 1000
"""A log of fewer lines is left as it is when the ledger is closed."""


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

    def clear(self) -> None:
        """Forget everything."""
        self.done[:] = False


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
        self._pending_lines: list[bytes] = []
        self._last_flush = time.monotonic()
        self._segment = 0
        self._lines = 0
        self._begun = False
        """True if the stored log is ours: the first record of a new fingerprint replaces it."""
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
        place = [chunk.level, *chunk.index]
        self._write({"fail": place, "name": chunk.name, "error": error, "tb": traceback, "a": attempts, "final": final})

    def forget(self, chunk: Chunk) -> None:
        """Take a done mark back, so that the chunk is computed again."""
        self._write({"forget": [chunk.level, *chunk.index]})

    def flush(self) -> None:
        """Store what is recorded so far (a file system has it already)."""
        if self._pending_lines:
            self.store.put(f"{self.folder}/log-{self._segment:06d}.jsonl", b"".join(self._pending_lines))
            self._segment += 1
            self._pending_lines = []
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Flush, and turn a long log into arrays."""
        if self.read_only:
            return
        self.flush()
        if self._lines >= COMPACT_RECORDS:
            self.compact()

    def compact(self) -> None:
        """Store the marks as arrays, then begin a short log; a crash in between leaves both, which agree."""
        arrays: dict[str, np.ndarray] = {"fingerprint": np.frombuffer(self.fingerprint.encode(), np.uint8)}
        for level, marks in self._marks.items():
            for name in ("done", "checksums", "seconds", "bytes_written"):
                arrays[f"{name}_{level}"] = getattr(marks, name)
        totals = json.dumps([self._totals.voxels, self._totals.attempts, self._totals.counters])
        arrays["totals"] = np.frombuffer(totals.encode(), np.uint8)
        self.store.put_arrays(f"{self.folder}/compact.npz", arrays, compress=True)
        self._begin(failures=True)

    # -- storage ----------------------------------------------------------------------------------------------------

    def _write(self, record: dict[str, Any]) -> None:
        if self.read_only:
            raise LedgerError(f"the ledger of {self.stage} was opened for reading only; only a run's driver writes it")
        if not self._begun:
            self.store.delete(f"{self.folder}/compact.npz")
            self._begin(failures=False)
        self._append(encode(record))
        self._apply(record)

    def _begin(self, *, failures: bool) -> None:
        """Replace the log by one that begins under our fingerprint, with the open failures."""
        lines = [encode({"begin": self.fingerprint})]
        for failure in self._failures.values() if failures else ():
            place = [failure.level, *failure.index]
            record = {"fail": place, "name": failure.chunk_name, "error": failure.error, "tb": failure.traceback}
            lines.append(encode({**record, "a": 0, "final": True}))
        if self.store.supports_append:
            self.store.put(f"{self.folder}/log.jsonl", b"".join(lines))
        else:
            for key in self._segments():
                self.store.delete(key)
            self._segment, self._pending_lines = 0, lines
            self.flush()
        self._begun, self._lines = True, len(lines)

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
            self._segment += 1
            data = self.store.get_or_none(key) or b""
            for number, line in enumerate(data.split(b"\n")[: None if data.endswith(b"\n") else -1]):
                if line:
                    self._read_line(line, f"{key}:{number + 1}")
            if not data.endswith(b"\n") and self.store.supports_append and not self.read_only and self._begun:
                self.store.append(key, b"\n")  # end the torn line, so that the next record stands alone

    def _read_line(self, line: bytes, place: str) -> None:
        record = decode(line)
        if record is None:
            logger.warning("%s is damaged and was dropped; its chunk is computed again", place)
        elif "begin" in record:
            self._begun = record["begin"] == self.fingerprint
            if self._begun:
                self._read_compact()
        elif self._begun:
            self._lines += 1
            self._apply(record)

    def _read_compact(self) -> None:
        if not self.store.exists(f"{self.folder}/compact.npz"):
            return
        try:
            arrays = self.store.get_arrays(f"{self.folder}/compact.npz")
        except CorruptError as error:
            logger.warning("%s; its chunks are computed again", error)
            return
        if arrays["fingerprint"].tobytes().decode() != self.fingerprint:
            return
        for level, marks in self._marks.items():
            for name in ("done", "checksums", "seconds", "bytes_written"):
                getattr(marks, name)[...] = arrays[f"{name}_{level}"]
        voxels, attempts, counters = json.loads(arrays["totals"].tobytes())
        self._totals = Summary(voxels=voxels, attempts=attempts, counters=counters)

    def _apply(self, record: dict[str, Any]) -> None:
        """Change the state by one record."""
        kind = "done" if "done" in record else "forget" if "forget" in record else "fail"
        level, *index = record[kind]
        key = (level, (index[0], index[1], index[2]))
        marks = self._marks[level]
        place = marks.grid.position(key[1])
        if kind == "fail":
            self._totals.attempts += min(1, record["a"])
            if record["final"]:
                self._failures[key] = Failure(record["name"], *key, record["error"], record["tb"], record["a"])
        elif kind == "forget":
            marks.done[place] = False
        else:
            self._failures.pop(key, None)
            if not marks.done[place]:
                self._totals.voxels += record["v"]
                for name, value in record.get("n", {}).items():
                    self._totals.counters[name] = self._totals.counters.get(name, 0) + value
            marks.done[place] = True
            marks.checksums[place] = np.frombuffer(bytes.fromhex(record["sum"]), np.uint8)
            marks.seconds[place], marks.bytes_written[place] = record["s"], record["b"]


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
