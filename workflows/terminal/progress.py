"""The progress of a run: one line for each stage, with chunks done and failed, voxels per second and the time left."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from pipeline.execution.runner import ChunkDone, ChunkFailed, Event, StageFinished, StageStarted
from pipeline.grid import Chunk
from pipeline.ledger.pace import Level, Pace
from pipeline.stages.within import listening_within
from workflows.terminal.tables import human_seconds

LATE = 200
"""Chunks of which a message of a worker may come after they are done."""
ALL_PARTS = 0.99
"""What all parts of a chunk count, of the chunk."""


class StageProgress:
    """The chunks of one stage while a driver works on it: how many are done, how far others are, and the time left."""

    def __init__(self, started: StageStarted, now: float) -> None:
        self.started, self.began = started, now
        self.done = started.done
        self.voxels = 0
        self.failed: set[str] = set()
        self.pace = Pace(last=now)
        self._done: dict[int, int] = defaultdict(int)
        self._seconds: dict[int, float] = defaultdict(float)
        self._parts: dict[str, tuple[int, int, float]] = {}
        """Of chunks that run: their parts done, all of their parts, and when they began."""
        self._ended: deque[str] = deque(maxlen=LATE)
        """Chunks that were done last."""

    def chunk_done(self, event: ChunkDone, now: float) -> None:
        """Count a chunk."""
        level = event.chunk.level
        self.done += 1
        self.voxels += event.report.voxels
        self._done[level] += 1
        self._seconds[level] += event.report.seconds
        self.pace.add(now, event.report.voxels)
        self._parts.pop(event.chunk.name, None)
        self._ended.append(event.chunk.name)

    def chunk_failed(self, event: ChunkFailed) -> None:
        """Note a chunk of which an attempt failed."""
        self.failed.add(event.chunk.name)
        self._parts.pop(event.chunk.name, None)

    def within(self, chunk: Chunk, done: int, total: int, now: float) -> None:
        """Note how far a running chunk is; what comes late of one that is done is not noted."""
        if chunk.name in self._ended:
            return
        began = now if not done else self._parts.get(chunk.name, (0, 0, now))[2]
        self._parts[chunk.name] = (done, total, began)

    @property
    def completed(self) -> float:
        """Chunks done, and the parts done of those that run; a chunk is whole only when it is stored and recorded."""
        parts = tuple(self._parts.values())
        return self.done + sum(ALL_PARTS * done / total for done, total, _ in parts if total)

    @property
    def patches(self) -> str:
        """How far the running chunks are, as a text."""
        parts = tuple(self._parts.values())
        return f"{sum(p[0] for p in parts):,}/{sum(p[1] for p in parts):,} patches" if parts else ""

    @property
    def speed(self) -> str:
        """Voxels per second from the beginning of this stage to its latest chunk, as a text."""
        elapsed = self.pace.last - self.began
        return f"{self.voxels / elapsed:,.0f} voxels/s" if self.voxels and elapsed > 0 else ""

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the stage is finished; ``None`` if that is not known yet."""
        known, levels = self._running_seconds(now), []
        for level, missing in self.started.levels:
            done = self._done[level]
            known = self._seconds[level] / done if done else known
            levels.append(Level(done, missing - done, known))
        return self.pace.seconds_left(levels, self.started.slots, now, self.began)

    def _running_seconds(self, now: float) -> float | None:
        """Seconds of a chunk, judged by the parts done of those that run."""
        seconds = [(now - began) * total / done for done, total, began in tuple(self._parts.values()) if done]
        return sum(seconds) / len(seconds) if seconds else None


class ChunkProgress:
    """Listens to the events of a run and draws them; a context manager."""

    def __init__(self, console: Console, *, disable: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            _Column(lambda task: f"{_stage_of(task).done:,}/{_stage_of(task).started.total:,}"),
            TextColumn("[red]{task.fields[failed]}[/]"),
            _Column(lambda task: (not task.finished and _stage_of(task).patches) or _stage_of(task).speed),
            _Column(lambda task: self._left(task)),
            console=console,
            disable=disable,
        )
        self._clock = clock
        self._task: TaskID | None = None
        self._stage = StageProgress(StageStarted("", 0, 0), clock())
        self._stack = ExitStack()

    def __enter__(self) -> ChunkProgress:
        self._stack.enter_context(listening_within(self._within))
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, StageStarted):
            self._start(event)
        elif isinstance(event, ChunkDone):
            self._stage.chunk_done(event, self._clock())
            self._show()
        elif isinstance(event, ChunkFailed):
            self._stage.chunk_failed(event)
            self._show(failed=f"{len(self._stage.failed)} failed")
        elif isinstance(event, StageFinished):
            self._show(failed="")

    def _start(self, event: StageStarted) -> None:
        self._stage = StageProgress(event, self._clock())
        self._task = self._progress.add_task(
            event.stage, total=event.total, completed=event.done, failed="", stage=self._stage
        )

    def _within(self, stage: str, chunk: Chunk, done: int, total: int) -> None:
        if self._stage.started.stage == stage:
            self._stage.within(chunk, done, total, self._clock())
            self._show()

    def _show(self, **fields: str) -> None:
        assert self._task is not None
        self._progress.update(self._task, completed=self._stage.completed, **fields)  # type: ignore[arg-type]

    def _left(self, task: Task) -> str:
        """The time left, or, of a finished stage, the time that it took."""
        if task.finished:
            return human_seconds(task.finished_time or 0.0)
        left = None if task.stop_time else _stage_of(task).seconds_left(self._clock())
        return "" if left is None else f"{human_seconds(left)} left"


def _stage_of(task: Task) -> StageProgress:
    stage: StageProgress = task.fields["stage"]
    return stage


class _Column(ProgressColumn):
    """A column with a text that is computed whenever it is drawn."""

    def __init__(self, text: Callable[[Task], str]) -> None:
        super().__init__()
        self._text = text

    def render(self, task: Task) -> Text:
        return Text(self._text(task))
