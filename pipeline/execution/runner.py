"""Run a stage: what is pending goes to the executor, what is done goes to the ledger. Data first, mark second.

for each grid of the stage, in order          (a tree stage has one grid a level)
    round 1    every pending chunk
    round 2 .. the chunks that failed, after a pause that doubles, up to ``attempts`` rounds
    a chunk that failed in every round is set aside; the rest of the grid has gone on meanwhile
    a grid is not begun while a chunk of the one before it is missing
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace

from pipeline.errors import StageFailed
from pipeline.execution.base import Executor, Outcome
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger import Failure, Ledger, Summary
from pipeline.stages.base import ChunkReport, Stage

logger = logging.getLogger("petaseg.runner")

FIRST_CHUNKS = 20
"""When so many chunks of a grid were tried, by this run or earlier ones, and ``MOSTLY`` failed, the stage stops."""
MOSTLY = 0.8
LONGEST_PAUSE = 300.0
NAMED = 10
"""Chunks that a message names."""


@dataclass(frozen=True)
class RunOptions:
    """How failures are met."""

    attempts: int = 3
    backoff_seconds: float = 1.0
    timeout_seconds: float | None = None
    max_in_flight: int | None = None
    retry_command: str = "petaseg run run.yaml"
    sleep: Callable[[float], None] = time.sleep
    """Waits between rounds; tests pass their own."""


@dataclass(frozen=True)
class StageStarted:
    """A stage begins: chunks in all, and those that earlier runs have done."""

    stage: str
    total: int
    done: int


@dataclass(frozen=True)
class ChunkDone:
    """A chunk is stored and recorded."""

    stage: str
    report: ChunkReport
    chunk: Chunk
    attempt: int = 1
    """Which round of this driver it was done in."""
    worker: str = ""
    """Host and process."""


@dataclass(frozen=True)
class ChunkFailed:
    """An attempt failed; ``final`` if the chunk is set aside."""

    stage: str
    chunk: Chunk
    error: str
    attempt: int
    final: bool
    worker: str = ""
    """Host and process; empty if the worker died."""


@dataclass(frozen=True)
class StageFinished:
    """A stage has done all of its chunks."""

    stage: str
    summary: Summary


Event = StageStarted | ChunkDone | ChunkFailed | StageFinished
Listener = Callable[[Event], None]
StageSummary = Summary


def fan_out(*listeners: Listener | None) -> Listener:
    """One listener that tells several; ``None`` stands for nobody."""
    present = [listener for listener in listeners if listener is not None]

    def tell(event: Event) -> None:
        for listener in present:
            listener(event)

    return tell


def run_stage(
    stage: Stage, ledger: Ledger, executor: Executor, options: RunOptions, *, on_event: Listener | None = None
) -> Summary:
    """Compute every chunk of a stage that is not done, and return the sums over all of them.

    Raises ``StageFailed``, which names the chunks that could not be computed and the command that tries them again.
    """
    run = _StageRun(stage, ledger, executor, options, on_event or (lambda _: None))
    total = sum(len(grid) for grid in stage.grids())
    done = ledger.summary().done
    logger.info("%s: %d of %d chunks are done already", stage.name, done, total)
    run.emit(StageStarted(stage.name, total, done))
    try:
        for grid in stage.grids():
            run.run_grid(grid)
    finally:
        ledger.flush()
    summary = ledger.summary()
    run.emit(StageFinished(stage.name, summary))
    logger.info("%s: %d chunks done in %.1f chunk seconds", stage.name, summary.done, summary.seconds)
    return summary


@dataclass
class _StageRun:
    stage: Stage
    ledger: Ledger
    executor: Executor
    options: RunOptions
    emit: Listener

    def run_grid(self, grid: ChunkGrid) -> None:
        """All rounds of one grid; ``StageFailed`` if a chunk is missing in the end."""
        if self.ledger.done_count(grid) == len(grid):
            return
        self.stage.prepare()  # may refuse, and overwrites nothing
        self.ledger.begin()
        waiting: Iterable[Chunk] = self.ledger.pending(grid)
        for attempt in range(1, self.options.attempts + 1):
            waiting = self._round(grid, waiting, attempt)
            if not waiting:
                break
            if attempt < self.options.attempts:
                pause = min(LONGEST_PAUSE, self.options.backoff_seconds * 2 ** (attempt - 1))
                logger.info("%s: %d chunks failed; next try in %.1f s", self.stage.name, len(waiting), pause)
                self.options.sleep(pause)
        missing = len(grid) - self.ledger.done_count(grid)
        if missing:
            raise StageFailed(self._verdict(grid, missing))

    def _round(self, grid: ChunkGrid, chunks: Iterable[Chunk], attempt: int) -> list[Chunk]:
        """Try chunks once; returns those to be tried again."""
        again: list[Chunk] = []
        failed = 0
        resources = replace(self.stage.resources(), timeout_seconds=self.options.timeout_seconds)
        outcomes = self.executor.map_unordered(
            self.stage.run_chunk, chunks, resources=resources, max_in_flight=self.options.max_in_flight
        )
        with closing(outcomes):
            for outcome in outcomes:
                if outcome.result is not None:
                    self.ledger.record(outcome.result)
                    self.emit(ChunkDone(self.stage.name, outcome.result, outcome.item, attempt, outcome.worker))
                    continue
                failed += 1
                if self._failed(outcome, attempt):
                    again.append(outcome.item)
                if attempt == 1:
                    self._stop_early(outcome, failed, failed + self.ledger.done_count(grid))
        return again

    def _failed(self, outcome: Outcome[Chunk, ChunkReport], attempt: int) -> bool:
        """Note a failure; True if the chunk is to be tried again, ``StageFailed`` if all others would fail too."""
        error, name = outcome.error or "", outcome.item.name
        if outcome.stops_all:  # not recorded: the ledger may be on the same full disk, and the chunk is in order
            raise StageFailed(
                f"{self.stage.name} stopped at chunk {name}: {error}. "
                f"Nothing that was finished is lost; go on with: {self.options.retry_command}"
            )
        final = attempt == self.options.attempts or not outcome.retriable
        logger.warning("%s chunk %s, attempt %d: %s", self.stage.name, name, attempt, error)
        self.ledger.record_failure(outcome.item, error, outcome.traceback, attempt, final)
        self.emit(ChunkFailed(self.stage.name, outcome.item, error, attempt, final, outcome.worker))
        return not final

    def _stop_early(self, outcome: Outcome[Chunk, ChunkReport], failed: int, tried: int) -> None:
        if tried >= FIRST_CHUNKS and failed >= MOSTLY * tried:
            raise StageFailed(
                f"{self.stage.name} stopped early: {failed} of the first {tried} chunks failed, so "
                f"something is wrong with all of them; the last error, at chunk {outcome.item.name}: {outcome.error}. "
                f"Mend it, then: {self.options.retry_command}"
            )

    def _verdict(self, grid: ChunkGrid, missing: int) -> str:
        failures = [failure for failure in self.ledger.quarantined() if failure.level == grid.level]
        names = ", ".join(failure.chunk_name for failure in failures[:NAMED])
        more = f" and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
        return (
            f"{self.stage.name}: {missing} of {len(grid)} chunks failed and were set aside; the others are done. "
            f"Chunks {names}{more}. First error: {first_error(failures)}. Try them again with: "
            f"{self.options.retry_command}"
        )


def first_error(failures: list[Failure]) -> str:
    """The error of the first chunk that was set aside."""
    return failures[0].error if failures else "none recorded"
