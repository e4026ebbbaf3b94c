"""The event log of a run, for programs: one line of JSON for each event, with the chunk's coordinates.

<run>/petaseg.jsonl                              on a file system, a line at once
<run>/events/20260131T235959Z-4711-000007.jsonl  in a bucket: the events of some seconds, by start and process
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline import __version__
from pipeline.execution.runner import ChunkDone, ChunkFailed, Event, NodeAvoided, StageFinished, StageStarted
from pipeline.grid import Chunk
from pipeline.storage import ObjectStore
from workflows.events.line_writer import SegmentWriter
from workflows.events.run_log import LEVELS

logger = logging.getLogger("petaseg.events")

FILE = "petaseg.jsonl"
FOLDER = "events"

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Sink(Protocol):
    """The store of lines. A sink that fails ends the log and not the run, which needs only its ledger."""

    @property
    def problem(self) -> OSError | None:
        """The error by which lines were lost; ``None`` if none are."""
        ...

    def write(self, line: bytes) -> None:
        """Store a line with its end; any thread may call it."""
        ...

    def close(self) -> None:
        """Store the remaining lines."""
        ...


class FileSink:
    """Appends each line to a file with one system call."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  (closed by ``close``)
        self.problem: OSError | None = None
        if self._file.seek(0, os.SEEK_END) and not self._ends_a_line():
            self.write(b"\n")  # an earlier driver may have died in the middle of a line

    def write(self, line: bytes) -> None:
        """See ``Sink``."""
        if self.problem is None:
            try:
                self._file.write(line)
            except OSError as error:
                self.problem = error

    def close(self) -> None:
        """See ``Sink``."""
        self._file.close()

    def _ends_a_line(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"


class EventLog:
    """Listens to the events of a run and writes them, and log messages, as lines."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if isinstance(event, ChunkDone):
            self.write("info", "chunk_done", chunk_done_fields(event))
        elif isinstance(event, ChunkFailed):
            self.write("error" if event.final else "warning", "chunk_failed", chunk_failed_fields(event))
        elif isinstance(event, NodeAvoided):
            self.write("warning", "node_avoided", {"stage": event.stage, "node": event.node, "error": event.error})
        elif isinstance(event, StageStarted):
            self.write("info", "stage_started", {"stage": event.stage, "total": event.total, "done": event.done})
        elif isinstance(event, StageFinished):
            self.write("info", "stage_finished", stage_finished_fields(event))

    def write(self, level: str, event: str, fields: Mapping[str, Any], when: datetime | None = None) -> None:
        """Write a line: time, level and event first."""
        time = (when or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.sink.write(_encode({"time": time, "level": level, "event": event, **fields}).encode() + b"\n")


class MessageHandler(logging.Handler):
    """Writes log messages into an event log."""

    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            fields = {"logger": record.name, "message": record.getMessage()}
            if record.exc_info:
                fields["traceback"] = logging.Formatter().formatException(record.exc_info)
            when = datetime.fromtimestamp(record.created, UTC)
            self.log.write(record.levelname.lower(), "message", fields, when)
        except Exception:  # as in every handler: a failure to log must not end the program
            self.handleError(record)


def coordinates(chunk: Chunk) -> dict[str, Any]:
    """A chunk's index in the grid, and the voxels (z, y, x) that it writes, as a half-open box."""
    core = chunk.core
    place = {"name": chunk.name, "level": chunk.level, "index": chunk.index}
    return {**place, "start": core.start, "stop": core.stop}


def chunk_done_fields(event: ChunkDone) -> dict[str, Any]:
    """The fields of a completed chunk: the chunk, its worker, and its timings."""
    report = event.report
    fields = {
        "stage": event.stage,
        "chunk": coordinates(event.chunk),
        "attempt": event.attempt,
        "seconds": round(report.seconds, 4),
        "voxels": report.voxels,
        "bytes": report.bytes_written,
        "worker": event.worker,
        "timings": {name: round(seconds, 4) for name, seconds in report.timings.items()},
    }
    return {**fields, "counters": report.counters} if report.counters else fields


def chunk_failed_fields(event: ChunkFailed) -> dict[str, Any]:
    """The fields of a failed attempt and its error; ``final`` if the chunk is set aside."""
    return {
        "stage": event.stage,
        "chunk": coordinates(event.chunk),
        "attempt": event.attempt,
        "final": event.final,
        "worker": event.worker,
        "error": event.error,
    }


def stage_finished_fields(event: StageFinished) -> dict[str, Any]:
    """The fields of a finished stage: its sums."""
    sums = event.summary
    return {
        "stage": event.stage,
        "done": sums.done,
        "seconds": round(sums.seconds, 2),
        "voxels": sums.voxels,
        "bytes": sums.bytes_written,
        "counters": sums.counters,
    }


def open_sink(store: ObjectStore) -> Sink:
    """The sink for the events of a run directory."""
    if store.local_path is not None:
        return FileSink(store.local_path / FILE)
    return SegmentWriter(store, FOLDER, ".jsonl")


@contextmanager
def event_log(store: ObjectStore) -> Iterator[EventLog]:
    """An event log of a run directory while the context is open; it also takes messages of petaseg and Luigi."""
    sink = open_sink(store)
    log = EventLog(sink)
    handler = MessageHandler(log)
    loggers = [logging.getLogger(name) for name in LEVELS]
    process = {"run": store.url, "host": socket.gethostname(), "pid": os.getpid()}
    log.write("info", "driver_started", {**process, "version": __version__})
    for each in loggers:
        each.addHandler(handler)
    try:
        yield log
    finally:
        for each in loggers:
            each.removeHandler(handler)
        log.write("info", "driver_stopped", process)
        sink.close()
        if sink.problem is not None:
            logger.warning("the end of the event log in %s is lost: %s", store.url, sink.problem)
