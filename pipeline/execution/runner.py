"""Run a stage: pending chunks go to the executor, and completed chunks are recorded in the ledger, after their data are
stored.

for each grid of the stage, in order          (a tree stage has one grid for each level)
    round 1    every pending chunk
    round 2 .. the chunks that failed, after a pause that doubles, up to ``attempts`` rounds
    a chunk that ran out of memory is tried once more with more memory, and then set aside
    a chunk that failed in every round is set aside; the rest of the grid is completed
    a node that fails every chunk is avoided, if there are other nodes
    a grid is not begun while a chunk of the one before it is missing
    after a request to stop (``stopping.py``) no chunk begins, those that run are recorded, and the stage ends
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pipeline.config.run_file import Execution
from pipeline.errors import StageFailed, counted
from pipeline.execution.base import Executor, Outcome
from pipeline.execution.nodes import IN_A_ROW, NodeWatch
from pipeline.execution.stopping import Gate, Interrupted, Stop
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger.ledger import Failure, Ledger, Summary
from pipeline.stages.base import ChunkReport, Stage, may_always_write

logger = logging.getLogger("petaseg.runner")

FIRST_CHUNKS = 20
"""A stage stops if this many chunks of a grid were tried, by this driver or earlier ones, and ``MOSTLY`` failed.
"""
MOSTLY = 0.8
LONGEST_PAUSE = 300.0
NAMED = 10
"""The number of chunks that a message names."""


@dataclass(frozen=True)
class RunOptions:
    """How failures are met: the keys of the table ``execution``, and what a driver adds."""

    attempts: int
    backoff_seconds: float
    timeout_seconds: float | None
    max_in_flight: int | None
    retry_command: str
    """Named in messages: it goes on with what was not finished."""
    slots: int | None = None
    """How many chunks run at a time, for display; ``None`` if nobody knows."""
    may_write: Callable[[], None] = may_always_write
    """Called before a chunk is handed out or recorded; raises ``LeaseError`` if another driver has taken over."""
    worker_may_write: Callable[[], None] = may_always_write
    """The same question, asked by a worker before it stores a chunk; it travels to workers."""
    sleep: Callable[[float], None] = time.sleep
    """The function that waits between rounds; tests pass another."""
    stop: Stop = field(default_factory=Stop)
    """The request to stop, which may come at any time."""

    @classmethod
    def of(cls, settings: Execution, retry_command: str, slots: int | None = None, **driver: Any) -> RunOptions:
        """The options of a run file; ``driver`` gives ``may_write``, ``worker_may_write``, ``sleep`` and ``stop``."""
        return cls(
            attempts=settings.attempts,
            backoff_seconds=settings.backoff_seconds,
            timeout_seconds=settings.timeout_seconds,
            max_in_flight=settings.max_in_flight,
            retry_command=retry_command,
            slots=slots,
            **driver,
        )


@dataclass(frozen=True)
class StageStarted:
    """A stage begins; holds the number of all chunks, and of those that earlier runs have done."""

    stage: str
    total: int
    done: int
    levels: tuple[tuple[int, int], ...] = ()
    """Number in ``pipeline.grid`` and missing chunks of each level, in the order in which they run."""
    slots: int | None = None
    """How many chunks run at a time, if that is known."""


@dataclass(frozen=True)
class ChunkDone:
    """A chunk is stored and recorded."""

    stage: str
    report: ChunkReport
    chunk: Chunk
    attempt: int = 1
    """The round of this driver in which it was done."""
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
class NodeAvoided:
    """A node failed every chunk that it was given, and gets no more."""

    stage: str
    node: str
    error: str


@dataclass(frozen=True)
class StageFinished:
    """A stage has done all of its chunks."""

    stage: str
    summary: Summary


Event = StageStarted | ChunkDone | ChunkFailed | NodeAvoided | StageFinished
Listener = Callable[[Event], None]


def fan_out(*listeners: Listener | None) -> Listener:
    """One listener that passes events on to several; ``None`` is left out."""
    present = [listener for listener in listeners if listener is not None]

    def tell(event: Event) -> None:
        for listener in present:
            listener(event)

    return tell


def run_stage(
    stage: Stage, ledger: Ledger, executor: Executor, options: RunOptions, *, on_event: Listener | None = None
) -> Summary:
    """Compute every chunk of a stage that is not done, and return the sums over all of them.

    Raises ``StageFailed``, which names the chunks that could not be computed and the command that tries them again, and
    ``Interrupted`` after ``options.stop`` was requested.
    """
    ledger.may_write = options.may_write
    run = _StageRun(stage, ledger, executor, options, on_event or (lambda _: None))
    grids = stage.grids()
    total, done = sum(map(len, grids)), ledger.summary().done
    levels = tuple((grid.level, len(grid) - ledger.done_count(grid)) for grid in grids)
    logger.info("%s: %d of %s are done already", stage.name, done, counted(total, "chunk"))
    run.emit(StageStarted(stage.name, total, done, levels, options.slots))
    try:
        for grid in grids:
            run.run_grid(grid)
    finally:
        ledger.flush()
    summary = ledger.summary()
    run.emit(StageFinished(stage.name, summary))
    logger.info("%s: %s done in %.1f chunk seconds", stage.name, counted(summary.done, "chunk"), summary.seconds)
    return summary


@dataclass
class _StageRun:
    stage: Stage
    ledger: Ledger
    executor: Executor
    options: RunOptions
    emit: Listener
    nodes: NodeWatch = field(default_factory=NodeWatch)

    def run_grid(self, grid: ChunkGrid) -> None:
        """Run all rounds of one grid; ``StageFailed`` if a chunk is missing in the end."""
        if self.ledger.done_count(grid) == len(grid):
            return
        self.stage.prepare()  # it may raise an error, and overwrites nothing
        self.ledger.begin()
        self.stage.confine(self.options.may_write)
        self.nodes.begin_grid()
        waiting: Iterable[Chunk] = self.ledger.pending(grid)
        for attempt in range(1, self.options.attempts + 1):
            waiting = self._with_more_memory(grid, self._round(grid, waiting, attempt))
            self.ledger.flush()  # the next round, or the level above, may take hours
            if not waiting:
                break
            if attempt < self.options.attempts:
                pause = min(LONGEST_PAUSE, self.options.backoff_seconds * 2 ** (attempt - 1))
                logger.info("%s: %s failed; next try in %.1f s", self.stage.name, counted(len(waiting), "chunk"), pause)
                self.options.sleep(pause)
        missing = len(grid) - self.ledger.done_count(grid)
        if missing:
            raise StageFailed(self._verdict(grid, missing))

    def _round(
        self, grid: ChunkGrid, chunks: Iterable[Chunk], attempt: int, *, generous: bool = False
    ) -> list[Outcome[Chunk, ChunkReport]]:
        """Try chunks once; returns the outcomes of those to be tried again."""
        again: list[Outcome[Chunk, ChunkReport]] = []
        with self.options.stop.gate() as gate, closing(self._outcomes(grid, chunks, generous, gate)) as outcomes:
            for outcome in outcomes:
                self.options.may_write()
                if outcome.result is not None:
                    self.nodes.done(outcome.node)
                    self.ledger.record(outcome.result)
                    self.emit(ChunkDone(self.stage.name, outcome.result, outcome.item, attempt, outcome.worker))
                    continue
                final = generous or (attempt == self.options.attempts and not outcome.out_of_memory)
                if self._failed(outcome, attempt, final):
                    again.append(replace(outcome, traceback=""))
                if attempt == 1:
                    self._stop_early(outcome, self.nodes.failures + self.ledger.done_count(grid))
        if gate.closed:
            logger.info("%s: stopped, as requested", self.stage.name)
            raise Interrupted
        return again

    def _outcomes(
        self, grid: ChunkGrid, chunks: Iterable[Chunk], generous: bool, gate: Gate
    ) -> Generator[Outcome[Chunk, ChunkReport], None, None]:
        missing = len(grid) - self.ledger.done_count(grid)
        needs = replace(
            self.stage.needs(), timeout_seconds=self.options.timeout_seconds, generous=generous, items=missing
        )
        return self.executor.map_unordered(
            partial(self.stage.run_chunk, may_write=self.options.worker_may_write),
            self._allowed(chunks),
            needs=needs,
            max_in_flight=self.options.max_in_flight,
            gate=gate,
        )

    def _allowed(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The same chunks, as long as this driver may write: another one may work under another configuration."""
        for chunk in chunks:
            self.options.may_write()
            yield chunk

    def _with_more_memory(self, grid: ChunkGrid, failed: list[Outcome[Chunk, ChunkReport]]) -> list[Chunk]:
        """Try chunks that ran out of memory once more, with more memory; returns the others, to be tried again."""
        out_of_memory = [outcome.item for outcome in failed if outcome.out_of_memory]
        if out_of_memory:
            names = ", ".join(chunk.name for chunk in out_of_memory[:NAMED])
            chunks = counted(len(out_of_memory), "chunk")
            were = "was" if len(out_of_memory) == 1 else "were"
            self.ledger.note(f"{chunks} ran out of memory and {were} tried again with more: {names}")
            self._round(grid, out_of_memory, self.options.attempts, generous=True)
        return [outcome.item for outcome in failed if not outcome.out_of_memory]

    def _failed(self, outcome: Outcome[Chunk, ChunkReport], attempt: int, final: bool) -> bool:
        """Record a failure; True if the chunk is to be tried again, ``StageFailed`` if all others would fail too."""
        error, name = outcome.error or "", outcome.item.name
        if outcome.stops_all:  # not recorded: the ledger may be on the same full disk, and the chunk is not at fault
            raise StageFailed(
                f"{self.stage.name} stopped at chunk {name}: {error}. "
                f"Nothing that was finished is lost; go on with: {self.options.retry_command}"
            )
        if not outcome.out_of_memory and self.nodes.failed(outcome.node):
            self._avoid(outcome.node, error)
        final = final or not outcome.retriable
        logger.warning("%s chunk %s, attempt %d on %s: %s", self.stage.name, name, attempt, outcome.worker, error)
        self.ledger.record_failure(outcome.item, error, outcome.traceback, attempt, final)
        self.emit(ChunkFailed(self.stage.name, outcome.item, error, attempt, final, outcome.worker))
        return not final

    def _avoid(self, node: str, error: str) -> None:
        """Give no more chunks to a node, if there are other nodes."""
        if self.executor.avoid(node):
            self.nodes.avoid(node)
            self.ledger.note(f"node {node} failed {IN_A_ROW} chunks in a row and is avoided; its last error: {error}")
            self.emit(NodeAvoided(self.stage.name, node, error))

    def _stop_early(self, outcome: Outcome[Chunk, ChunkReport], tried: int) -> None:
        failed = self.nodes.failures
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
        were = "was" if missing == 1 else "were"
        return (
            f"{self.stage.name}: {missing} of {counted(len(grid), 'chunk')} failed and {were} set aside; the others "
            f"are done. Chunks {names}{more}. First error: {first_error(failures)}. Try them again "
            f"with: {self.options.retry_command}"
        )


def first_error(failures: list[Failure]) -> str:
    """The error of the first chunk that was set aside."""
    return failures[0].error if failures else "none recorded"
