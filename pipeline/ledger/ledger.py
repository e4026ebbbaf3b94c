"""Which chunks of a stage are done, and the proof: one writer, append-only records, nothing inferred from files.

    <run>/ledger/<stage>/log.jsonl         where objects can be appended to (a file system): a line a record, at once
    <run>/ledger/<stage>/log-000007.jsonl  elsewhere: segments of records, one every few seconds
    <run>/ledger/<stage>/compact.npz       the records so far, as arrays, when a stage ends or its log has grown long

The first record names the fingerprint under which all others count. Work under another fingerprint begins a new log:
its chunks overwrite the old ones, so the old marks must not come back to life. A line carries a checksum of itself and
of the log that it was written for; one that is torn, damaged, or late from a driver that was cut off is dropped, which
costs a recomputation and never a wrong result.

Memory: 29 bytes a chunk, in arrays by position in the grid.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.errors import CorruptError, LedgerError, PetasegError, StorageError
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger.log import LogCursor
from pipeline.ledger.pace import Pace
from pipeline.ledger.records import Failure, Marks, Summary, decode, encode, failure_record
from pipeline.stages.base import ChunkReport
from pipeline.storage import MissingObjectError, ObjectStore

logger = logging.getLogger("petaseg.ledger")

FLUSH_SECONDS = 5.0
"""Where nothing can be appended, a record waits so long at most: also if no other comes for hours."""
FLUSH_RECORDS = 5000
COMPACT_RECORDS = 1000
"""A log of fewer lines is left as it is when the ledger is closed."""
KEPT_NOTES = 100
LONG_LOG = 50_000
"""A log of so many lines, and of one for every tenth chunk, becomes arrays at once: 15 us a line to read it again."""
LONG_SEGMENTS = 200
"""So do so many segments: a request each to read them again."""
STORED = ("done", "checksums", "seconds", "bytes_written")
"""The arrays of ``Marks`` that ``compact.npz`` holds for each level."""


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
        self.pace = Pace()
        """When chunks were finished lately, as far as the log still tells: arrays keep no times."""
        self._cursor = LogCursor(store, self.folder)
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._pending_lines: list[bytes] = []
        self._segment = 0
        self._lines = 0
        self._long_log = max(LONG_LOG, sum(len(grid) for grid in grids) // 10)
        self._patience = 1
        self._forgot = False
        self._begun = False
        """True if the stored log is ours: the first record of a new fingerprint replaces it."""
        self.other_fingerprint = False
        """True if the stored records count for another configuration; the first chunk under ours replaces them."""
        self._log = ""
        """Fingerprint and a random number: two logs of one fingerprint, with another between them, differ."""
        self.guard: Callable[[], None] = lambda: None
        """Called before anything is stored; raises if this driver may not write any more (``pipeline.runs.lease``)."""
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

    def is_complete(self) -> bool:
        """True if every chunk of every grid is done."""
        return all(bool(marks.done.all()) for marks in self._marks.values())

    def checksum(self, chunk: Chunk) -> str:
        """The recorded checksum; ``LedgerError`` if the chunk is not done."""
        marks = self._marks[chunk.level]
        place = marks.grid.position(chunk.index)
        if not marks.done[place]:
            raise LedgerError(f"{self.stage} chunk {chunk.name} is not recorded as done; run the stage first")
        return marks.checksums[place].tobytes().hex()

    def chunk_seconds(self, grid: ChunkGrid) -> np.ndarray:
        """Seconds of each chunk of a grid that is done, (done,) float32, in C order of the chunks."""
        marks = self._marks[grid.level]
        return marks.seconds[marks.done]

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
            self.guard()
            self.store.delete(f"{self.folder}/compact.npz")
            self._log = f"{self.fingerprint} {uuid.uuid4().hex}"
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
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._pending_lines:
                self.guard()
                self.store.put(self._segment_key(self._segment), b"".join(self._pending_lines))
                self._segment += 1
                self._pending_lines = []

    def close(self) -> None:
        """Flush, and turn a long log into arrays."""
        if self.read_only:
            return
        self.flush()
        if self._lines >= COMPACT_RECORDS or self._forgot:
            self._try_to_compact()

    def compact(self) -> None:
        """Store the marks as arrays, then begin a short log; a crash in between leaves both, which agree.

        They agree because the log is flushed first: its end decides about what it forgets or sets aside.
        """
        self.begin()
        self.flush()
        arrays: dict[str, np.ndarray] = {"log": np.frombuffer(self._log.encode(), np.uint8)}
        for level, marks in self._marks.items():
            for name in STORED:
                arrays[f"{name}_{level}"] = getattr(marks, name)
        totals = json.dumps([self._totals.voxels, self._totals.attempts, self._totals.counters])
        arrays["totals"] = np.frombuffer(totals.encode(), np.uint8)
        with self._lock:
            self.guard()
            self.store.put_arrays(f"{self.folder}/compact.npz", arrays, compress=True)
            self._replace_log(failures=True)
            self._forgot = False

    # -- storage ----------------------------------------------------------------------------------------------------

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        with self._lock:
            self._append(encode(record, self._log))
        self._apply(record)
        if self._lines >= self._patience * self._long_log or self._segment >= self._patience * LONG_SEGMENTS:
            self._try_to_compact()

    def _try_to_compact(self) -> None:
        """Where the arrays cannot be stored, the log stays and says the same; it is let grow to twice its length."""
        try:
            self.compact()
            self._patience = 1
        except StorageError as error:
            self._patience *= 2
            logger.warning("the ledger of %s was not compacted: %s", self.stage, error)

    def _replace_log(self, *, failures: bool) -> None:
        """Begin a log under our fingerprint, with the open failures if it goes on where ``compact.npz`` ends."""
        begin = {"begin": self._log, "t": time.time()}  # the time tells readers that it was begun anew
        lines = [encode(begin)] * 2  # twice: without it, all that follows counts for nothing
        for failure in self._failures.values() if failures else ():
            lines.append(encode({**failure_record(failure), "kept": True}, self._log))
        lines += [encode({"note": note}, self._log) for note in self._notes if failures]
        self.guard()
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
        new, old = self._segment_key(0), self._cursor.segments()
        if not same:
            for key in reversed(old):
                self.store.delete(key)
            self.guard()
        self.store.put(new, first)
        if same:
            for key in old:
                if key != new:
                    self.store.delete(key)
        self._segment, self._pending_lines = 1, []  # not before: after an error the log goes on where it was

    def _segment_key(self, number: int) -> str:
        return f"{self.folder}/log-{number:06d}.jsonl"

    def _append(self, line: bytes) -> None:
        self._lines += 1
        if self.store.supports_append:
            self.guard()
            self.store.append(f"{self.folder}/log.jsonl", line)
            return
        self._pending_lines.append(line)
        if len(self._pending_lines) >= FLUSH_RECORDS:
            self.flush()
        elif self._timer is None:
            self._timer = threading.Timer(FLUSH_SECONDS, self._flush_in_time)
            self._timer.daemon = True
            self._timer.start()

    def _flush_in_time(self) -> None:
        try:
            self.flush()
        except PetasegError as error:
            logger.warning("the records of %s wait for the next flush: %s", self.stage, error)

    def refresh(self) -> bool:
        """Read what another process has recorded since; False if its log was begun anew: then open a new ledger."""
        if self._cursor.replaced():
            return False
        self._read()
        return True

    def _read(self) -> None:
        for line, place in self._cursor.lines():
            self._read_line(line, place)
        self._segment = self._cursor.last_segment + 1
        if self._cursor.torn and not self.read_only and self._begun:
            self.store.append(f"{self.folder}/log.jsonl", b"\n")  # so that the next record stands alone

    def _read_line(self, line: bytes, place: str) -> None:
        begins = line[9:].startswith(b'{"begin":')
        if not line or not (begins or self._begun):
            return
        record = decode(line) if begins else decode(line, self._log)
        if record is None:
            logger.warning("%s is damaged or late and was dropped; its chunk is computed again", place)
        elif begins:
            ours = record["begin"].partition(" ")[0] == self.fingerprint
            if ours and record["begin"] != self._log:
                self._log = record["begin"]
                self._read_compact()
            self._begun, self.other_fingerprint = ours, not ours
        else:
            self._lines += 1
            self._apply(record)

    def _read_compact(self) -> None:
        key = f"{self.folder}/compact.npz"
        try:
            arrays = self.store.get_arrays(key)
            if arrays["log"].tobytes().decode() != self._log:
                return
            voxels, attempts, counters = json.loads(arrays["totals"].tobytes())
            for level, marks in self._marks.items():
                for name in STORED:
                    getattr(marks, name)[...] = arrays[f"{name}_{level}"]
        except MissingObjectError:  # also where it goes while somebody looks on
            return
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
            if record["final"] and not marks.done[place]:  # it may be late: from a driver that was cut off
                self._failures[key] = Failure(record["name"], *key, record["error"], record["tb"], record["a"])
        elif kind == "forget":
            marks.done[place] = False
            self._forgot = True
        else:
            self._failures.pop(key, None)
            self.pace.add(record["t"], record["v"])
            if not marks.checksums[place].any():  # counted once, also if it is forgotten and computed again
                self._totals.voxels += record["v"]
                for name, value in record.get("n", {}).items():
                    self._totals.counters[name] = self._totals.counters.get(name, 0) + value
            marks.done[place] = True
            marks.checksums[place] = np.frombuffer(bytes.fromhex(record["sum"]), np.uint8)
            marks.seconds[place], marks.bytes_written[place] = record["s"], record["b"]
