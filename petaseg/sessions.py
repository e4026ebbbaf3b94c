"""Drive a run from Python: the stages in their order, in this process, without Luigi and without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.runs.run import Run
from workflows.session import Session, open_session
from workflows.terminal.progress import ChunkProgress
from workflows.terminal.tables import progress_console


@contextmanager
def driving(run: Run, *, overwrite: bool = False, progress: bool = False) -> Iterator[Session]:
    """A session that holds the run's lease; at the end its workers are stopped and the lease is released."""
    with (
        ChunkProgress(progress_console, disable=not progress) as listener,
        open_session(run, listener=listener, overwrite=overwrite) as session,
    ):
        yield session


def finish(session: Session) -> None:
    """Compute the chunks that are missing, of every stage; ``StageFailed`` if some cannot be computed."""
    for stage in session.run.stages:
        if not session.is_complete(stage.name):
            session.run_stage(stage.name)
