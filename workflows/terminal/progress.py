"""The progress of a run: one line for each stage, with chunks done and failed, voxels per second and the time left."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline.execution.runner import ChunkDone, ChunkFailed, Event, StageFinished, StageStarted


class ChunkProgress:
    """Listens to the events of a run and draws them; a context manager."""

    def __init__(self, console: Console, *, disable: bool = False) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[red]{task.fields[failed]}[/]"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            disable=disable,
        )
        self._task: TaskID | None = None
        self._voxels = 0
        self._failed: set[str] = set()

    def __enter__(self) -> ChunkProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, StageStarted):
            self._start(event)
        elif isinstance(event, ChunkDone):
            self._done(event)
        elif isinstance(event, ChunkFailed):
            self._failed.add(event.chunk.name)
            self._show(failed=f"{len(self._failed)} failed")
        elif isinstance(event, StageFinished):
            self._show(failed="")

    def _start(self, event: StageStarted) -> None:
        self._voxels, self._failed = 0, set()
        self._task = self._progress.add_task(event.stage, total=event.total, completed=event.done, failed="", speed="")

    def _done(self, event: ChunkDone) -> None:
        assert self._task is not None
        self._voxels += event.report.voxels
        elapsed = self._progress.tasks[self._task].elapsed
        speed = f"{self._voxels / elapsed:,.0f} voxels/s" if elapsed else ""
        self._progress.update(self._task, advance=1, speed=speed)

    def _show(self, **fields: str) -> None:
        assert self._task is not None
        self._progress.update(self._task, **fields)  # type: ignore[arg-type]
