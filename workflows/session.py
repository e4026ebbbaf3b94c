"""A run with its workers and its progress display, opened once in a process and shared by all of its Luigi tasks."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import luigi

from pipeline.errors import StageFailed
from pipeline.execution import make_executor
from pipeline.execution.base import Executor
from pipeline.execution.runner import RunOptions, StageSummary, run_stage
from pipeline.run import Run

logger = logging.getLogger("petaseg.session")

Listener = Callable[[Any], None]


@dataclass
class Session:
    """A run, its executor (started when first needed) and who listens to its events."""

    run: Run
    listener: Listener | None = None
    summaries: dict[str, StageSummary] = field(default_factory=dict)
    failure: BaseException | None = None

    @cached_property
    def executor(self) -> Executor:
        """The workers named in the configuration."""
        settings = self.run.config.execution
        if settings.executor == "serial":
            return make_executor("serial")
        if settings.executor == "threads":
            return make_executor("threads", workers=settings.workers)
        return make_executor(
            "dask", workers=settings.workers, threads=settings.threads_per_worker, scheduler=settings.scheduler
        )

    def run_stage(self, name: str) -> StageSummary:
        """Run what is missing of a stage; the first failure is kept, since Luigi would only log it."""
        stage = self.run.stage(name)
        try:
            ledger = self.run.ledger(stage)
            try:
                summary = run_stage(stage, ledger, self.executor, self._options(), on_event=self.listener)
            finally:
                ledger.close()
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self.summaries[name] = summary
        return summary

    def _options(self) -> RunOptions:
        settings = self.run.config.execution
        return RunOptions(
            attempts=settings.attempts,
            backoff_seconds=settings.backoff_seconds,
            timeout_seconds=settings.timeout_seconds,
            max_in_flight=settings.max_in_flight,
            retry_command=self.run.command,
        )

    def close(self) -> None:
        """Stop the workers, if any were started."""
        executor = self.__dict__.pop("executor", None)
        if executor is not None:
            executor.close()


@lru_cache(maxsize=1)
def session_of(config: str, overrides: tuple[str, ...]) -> Session:
    """The session of a run file, the same for every task of a process; its workers stop with the process."""
    session = Session(Run.open(config, overrides))
    session.run.create()
    atexit.register(session.close)
    return session


def run_chain(config: str, overrides: Sequence[str], listener: Listener | None, scheduler_url: str | None) -> Session:
    """Let Luigi run the chain; raises what the first failing stage raised."""
    from workflows.segment import Segment

    session = session_of(config, tuple(overrides))
    session.listener = listener
    central = {"scheduler_url": scheduler_url} if scheduler_url else {"local_scheduler": True}
    try:
        finished = luigi.build([Segment(config=config, set=tuple(overrides))], no_lock=True, **central)
    finally:
        session.close()
    if session.failure is not None:
        raise session.failure
    if not finished:
        raise StageFailed(
            f"the chain did not finish; see {session.run.url}/petaseg.log, then run: {session.run.command}"
        )
    return session
