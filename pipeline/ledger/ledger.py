"""Which chunks of a stage are done, and the proof: append-only records, nothing inferred from files.

    <run>/ledger/<stage>/log.jsonl         on a file system, which can append: a line for each record, at once
    <run>/ledger/<stage>/log-000007.jsonl  in a bucket: segments of records, one every few seconds
    <run>/ledger/<stage>/compact.npz       the records so far, as arrays, when a stage ends or its log has grown long

The first record names the fingerprint for which all others are valid. Work under another fingerprint begins a new log:
its chunks overwrite the old ones, so the old marks must never become valid again. A line carries a checksum of itself
and of the log for which it was written. A line that is incomplete, damaged, or written late by a driver that has lost
its lease is dropped, which costs a recomputation and never gives a wrong result.

Memory: 29 bytes for each chunk, in arrays by position in the grid.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.errors import CorruptError, LedgerError, StorageError
from pipeline.formats import FIELD, LEDGER
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger.log import LogCursor
from pipeline.ledger.pace import Pace
from pipeline.ledger.records import Failure, Marks, Summary, decode, failure_record
from pipeline.ledger.writer import LogWriter, StoredLog, arrays_key
from pipeline.stages.base import ChunkReport
from pipeline.storage import MissingObjectError, ObjectStore

logger = logging.getLogger("petaseg.ledger")

KEPT_NOTES = 100
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
        """The recent times at which chunks were finished, as far as the log holds them; arrays hold no times."""
        self._cursor = LogCursor(store, self.folder)
        self._log = StoredLog()
        self._writer = LogWriter(store, self.folder, self._log, sum(len(grid) for grid in grids))
        self._forgot = False
        """True if a done mark was taken back since the arrays were stored."""
        self._damaged = False
        """True if a part of the stored records was dropped; the next record replaces them by what was read."""
        self._dropped: list[str] = []
        """Messages about dropped records of which nobody was warned yet."""
        self.other_fingerprint = False
        """True if the stored records belong to another configuration; the first chunk under ours replaces them."""
        self._read()

    @property
    def may_write(self) -> Callable[[], None]:
        """Asked before anything is stored; raises ``LeaseError`` if this driver may not write any more."""
        return self._writer.may_write

    @may_write.setter
    def may_write(self, ask: Callable[[], None]) -> None:
        self._writer.may_write = ask

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
        """The number of chunks of a grid that are done."""
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

    def checksums(self, grid: ChunkGrid) -> np.ndarray:
        """The recorded checksums of all chunks of a grid, (chunks, 16) uint8; zeros where a chunk is not done."""
        marks = self._marks[grid.level]
        return np.where(marks.done[:, None], marks.checksums, np.uint8(0))

    def done_mask(self, grid: ChunkGrid) -> np.ndarray:
        """True for each chunk of a grid that is done, (chunks,) bool, in C order of the chunks."""
        return self._marks[grid.level].done.copy()

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
        """Begin a log with our fingerprint, before the first chunk overwrites data to which the old marks belong."""
        if self.read_only:
            raise LedgerError(f"the ledger of {self.stage} was opened for reading only; only a run's driver writes it")
        if not self._log.ours:
            self._writer.begin(self.fingerprint)
        elif self._damaged:
            self._damaged = False
            self._try_to_compact()

    def record(self, report: ChunkReport) -> None:
        """Record that a chunk is done; its data must be stored already."""
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
        """Record a failed attempt; ``final`` sets the chunk aside."""
        failure = Failure(chunk.name, chunk.level, chunk.index, error, traceback, attempts)
        self._write({**failure_record(failure), "final": final})

    def note(self, text: str) -> None:
        """Record a note about the stage for the user, such as an avoided node."""
        logger.warning("%s: %s", self.stage, text)
        self._write({"note": text, "t": round(time.time(), 1)})

    def notes(self) -> list[str]:
        """The notes, the newest last; of very many, the oldest are dropped."""
        return list(self._notes)

    def forget(self, chunk: Chunk) -> None:
        """Remove a done mark, so that the chunk is computed again.

        ``close`` then compacts the log, so that a damaged line cannot restore the mark.
        """
        self._write({"forget": [chunk.level, *chunk.index]})

    def take_over(self, earlier: Ledger, grid: ChunkGrid, which: np.ndarray) -> None:
        """Record chunks as done whose stored products, by the records of ``earlier``, are those of our fingerprint too.

        which: (chunks,) bool, chunks of the grid that ``earlier`` has as done. The log of ``earlier`` ends first, so a
        crash in between loses the marks and leaves no wrong one.
        """
        mine, theirs = self._marks[grid.level], earlier._marks[grid.level]
        for name in STORED:
            getattr(mine, name)[which] = getattr(theirs, name)[which]
        chunks = (grid.chunk(index) for number, index in enumerate(grid.indices()) if which[number])
        self._totals.voxels += sum(chunk.core.voxels for chunk in chunks)
        self.compact()

    def flush(self) -> None:
        """Store the records so far; on a file system they are stored already."""
        self._writer.flush()

    def close(self) -> None:
        """Flush, and compact a long log."""
        if self.read_only:
            return
        self.flush()
        if self._writer.log_is_worth_arrays or self._forgot:
            self._try_to_compact()

    def compact(self) -> None:
        """Store the marks as arrays, and begin a short log."""
        self.begin()
        self._writer.compact(self._arrays(), self._kept())
        self._forgot = self._damaged = False

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        self._writer.append(record)
        self._apply(record)
        if self._writer.log_is_long:
            self._try_to_compact()

    def _try_to_compact(self) -> None:
        try:
            self.compact()
        except StorageError as error:
            self._writer.put_off_compaction()
            logger.warning("the ledger of %s was not compacted: %s", self.stage, error)

    def _arrays(self) -> dict[str, np.ndarray]:
        """The marks and the totals, for ``compact.npz``."""
        arrays = {f"{name}_{level}": getattr(marks, name) for level, marks in self._marks.items() for name in STORED}
        totals = json.dumps([self._totals.voxels, self._totals.attempts, self._totals.counters])
        return {**arrays, "totals": np.frombuffer(totals.encode(), np.uint8)}

    def _kept(self) -> list[dict[str, Any]]:
        """The records that arrays do not keep: open failures, and notes."""
        failures = [{**failure_record(failure), "kept": True} for failure in self._failures.values()]
        return [*failures, *({"note": note} for note in self._notes)]

    # -- reading ----------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Read the new records of another process; False if it has begun a new log: then open a new ledger."""
        if self._cursor.replaced():
            return False
        self._read()
        return True

    def _read(self) -> None:
        for line, place in self._cursor.lines():
            self._read_line(line, place)
        self._log.next_segment = self._cursor.last_segment + 1
        if self._cursor.torn and not self.read_only and self._log.ours:
            self._writer.end_torn_line()
        self._warn_of_damage()

    def _warn_of_damage(self) -> None:
        """Warn of dropped records once, and only while a chunk is missing: what was computed again is mended."""
        dropped, self._dropped = self._dropped, []
        self._damaged = self._damaged or bool(dropped)
        if dropped and not self.is_complete():
            for message in dropped:
                logger.warning("%s", message)

    def _read_line(self, line: bytes, place: str) -> None:
        begins = line[9:].startswith(b'{"begin":')
        if not line or not (begins or self._log.ours):
            return
        record = decode(line) if begins else decode(line, self._log.name)
        if record is None:
            self._dropped.append(f"{place} is damaged or late and was dropped; its chunk is computed again")
        elif begins:
            LEDGER.check(record, f"{self.store.url}/{place}", LedgerError)
            self._read_beginning(record["begin"], record["t"])
        else:
            self._log.lines += 1
            self._apply(record)

    def _read_beginning(self, name: str, when: float) -> None:
        """What follows belongs to the log of this name, begun at this time."""
        ours = name.partition(" ")[0] == self.fingerprint
        if ours and name != self._log.name:
            self._log.name = name
            self._read_compact()
        self._log.ours, self.other_fingerprint = ours, not ours
        if ours:
            self.pace.began = when

    def _read_compact(self) -> None:
        key = arrays_key(self.folder)
        try:
            arrays = self.store.get_arrays(key)
            said = {name: array.item() for name, array in arrays.items() if name == FIELD}
            LEDGER.check(said, f"{self.store.url}/{key}", LedgerError)
            if arrays["log"].tobytes().decode() != self._log.name:
                return
            voxels, attempts, counters = json.loads(arrays["totals"].tobytes())
            for level, marks in self._marks.items():
                for name in STORED:
                    getattr(marks, name)[...] = arrays[f"{name}_{level}"]
        except MissingObjectError:  # also if it is deleted while it is read
            return
        except (CorruptError, KeyError, ValueError) as error:
            self._dropped.append(f"{key} is damaged ({error}); its chunks are computed again")
            self._marks = {level: Marks(marks.grid) for level, marks in self._marks.items()}
            return
        self._totals = Summary(voxels=voxels, attempts=attempts, counters=counters)

    def _apply(self, record: dict[str, Any]) -> None:
        """Apply one record to the state."""
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
            if record["final"] and not marks.done[place]:  # it may be late, from a driver that lost its lease
                self._failures[key] = Failure(record["name"], *key, record["error"], record["tb"], record["a"])
        elif kind == "forget":
            marks.done[place] = False
            self._forgot = True
        else:
            self._failures.pop(key, None)
            self.pace.add(record["t"], record["v"])
            if not marks.checksums[place].any():  # counted once, also if the chunk is forgotten and computed again
                self._totals.voxels += record["v"]
                for name, value in record.get("n", {}).items():
                    self._totals.counters[name] = self._totals.counters.get(name, 0) + value
            marks.done[place] = True
            marks.checksums[place] = np.frombuffer(bytes.fromhex(record["sum"]), np.uint8)
            marks.seconds[place], marks.bytes_written[place] = record["s"], record["b"]
