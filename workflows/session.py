"""A run while this process drives it: its lease, its workers, and the listeners to its events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.config.unused import Unused
from pipeline.errors import counted
from pipeline.execution import engine_of, executor_of
from pipeline.execution.base import Executor
from pipeline.execution.runner import ChunkDone, Event, Listener, RunOptions, StageStarted, fan_out, run_stage
from pipeline.ledger.records import Summary
from pipeline.runs.hints import continuation
from pipeline.runs.lease import Lease
from pipeline.runs.published import settle
from pipeline.runs.run import Run
from pipeline.runs.unchanged import keep_unchanged
from pipeline.runs.unused import unused_keys
from pipeline.runs.workers import slots_of
from pipeline.stages.base import Stage
from workflows.events.listeners import listening
from workflows.events.run_log import logging_to_file
from workflows.interruption import STOP

if TYPE_CHECKING:  # it imports matplotlib
    from pipeline.runs.report import Report

logger = logging.getLogger("petaseg.session")


class Session:
    """A run with the lease that its driver holds; the workers are started when the first chunk needs them.

    announce: called with the addresses of metrics and dashboard.
    cluster: the cluster on whose workers chunks run; ``None`` runs them as the table ``execution`` says.
    """

    def __init__(
        self, run: Run, lease: Lease, listener: Listener, announce: Callable[[str], None], cluster: str | None = None
    ) -> None:
        self.run, self.lease, self.announce, self.cluster = run, lease, announce, cluster
        self.listener = fan_out(self._count, listener)
        self.seconds: dict[str, float] = {}
        """Seconds that each stage took, of stages with chunks to compute."""
        self.voxels: dict[str, int] = {}
        """Voxels of the chunks that this driver has computed, of each stage that computed one."""
        self.failure: BaseException | None = None
        """The error of the first stage that failed, or whose records cannot be read."""
        self.report: Report | None = None
        """What was made of the finished run, under the lease."""
        self.unused: list[Unused] = []
        """What the user has set in vain."""
        self._complete: set[str] = set()
        self._stage, self._total, self._done = "", 0, 0

    @property
    def command(self) -> str:
        """The command by which the user continues this run."""
        if self.cluster is None:
            return self.run.command
        return continuation(self.run.url, cluster=self.cluster)

    @cached_property
    def executor(self) -> Executor:
        """The workers named in the configuration."""
        if self.cluster is not None:
            from workflows.cluster_workers import cluster_executor  # it needs Dask

            return cluster_executor(self.run, self.cluster)
        settings = self.run.config.execution
        executor = executor_of(settings)
        if settings.dashboard is not None and "dashboard" in engine_of(settings.executor).takes:
            self.announce(f"Dask dashboard: {executor.dashboard_link}")  # type: ignore[attr-defined]
        return executor

    def run_stage(self, name: str) -> Summary:
        """Compute the missing chunks of a stage."""
        stage = self.run.stage(name)
        began = time.perf_counter()
        with self._keeping_failure():
            ledger = self.run.ledger(stage)
            try:
                keep_unchanged(self.run, stage, ledger, self.lease.may_write)
                summary = run_stage(stage, ledger, self.executor, self._options(stage), on_event=self.listener)
            finally:
                ledger.close()
            if stage.publishes:
                self.lease.may_write()
                stage.publish()
        self.seconds[name] = time.perf_counter() - began
        return summary

    def is_complete(self, name: str) -> bool:
        """True if the ledger holds every chunk of a stage; a ledger that was complete is not read again."""
        with self._keeping_failure():
            if name not in self._complete and self.run.is_complete(self.run.stage(name)):
                self._complete.add(name)
        return name in self._complete

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Keep the first failure, since Luigi would only log it."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _options(self, stage: Stage) -> RunOptions:
        return RunOptions.of(
            self.run.config.execution,
            self.command,
            slots_of(self.run.config, self.cluster, network=stage.needs().network),
            may_write=self.lease.may_write,
            worker_may_write=self.lease.fence.may_write,
            stop=STOP,
        )

    def _count(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._stage, self._total, self._done = event.stage, event.total, event.done
        elif isinstance(event, ChunkDone):
            self._done += 1
            self.voxels[event.stage] = self.voxels.get(event.stage, 0) + event.report.voxels

    @property
    def progress(self) -> str:
        """What is done, in words."""
        if not self._stage:
            return "no chunk was begun"
        number = [stage.name for stage in self.run.stages].index(self._stage) + 1
        stages = len(self.run.stages)
        return (
            f"{self._done:,} of {counted(self._total, 'chunk')} of {self._stage}, stage {number} of {stages}, are done"
        )

    def close(self) -> None:
        """Stop the workers, if any were started."""
        executor = self.__dict__.pop("executor", None)
        if executor is not None:
            executor.close()


@contextmanager
def open_session(
    config: str | Run,
    overrides: Sequence[str] = (),
    *,
    listener: Listener | None = None,
    announce: Callable[[str], None] = lambda _: None,
    cluster: str | None = None,
    check: Callable[[Run], None] = lambda _: None,
    overwrite: bool = False,
    beside: str = "",
) -> Iterator[Session]:
    """Open a run, take its lease, and make its run directory; at the end stop its workers and release the lease.

    config: a run file, a run directory, or a run that is open already, without overrides.
    check: called before anything is written; it raises if this run must not be driven.
    The other arguments are those of ``workflows.driver.segment``.
    """
    run = config if isinstance(config, Run) else Run.open(config, overrides, beside)
    unused = unused_keys(run, cluster)
    run.check_directory(overwrite=overwrite)
    check(run)
    run.check_model()

    def tell(text: str) -> None:
        logger.info("%s", text)
        announce(text)

    with Lease(run.store, seconds=run.config.execution.lease_seconds) as lease:
        known, run = run.fastest is not None, _created(run, cluster, overwrite)
        settle(run)
        with logging_to_file(run, aloud=cluster is not None), listening(run, tell) as others:
            _say_threshold(run, announce)
            if run.fastest is not None:
                (logger.info if known else tell)(f"precision {run.fastest}")
            session = Session(run, lease, fan_out(others, listener), tell, cluster)
            session.unused = unused
            try:
                yield session
            finally:
                session.close()


def _created(run: Run, cluster: str | None, overwrite: bool) -> Run:
    """The run after its directory is made, in which its precision is recorded if it had to be measured."""
    run.create(cluster, overwrite=overwrite)
    decided = run.decided(keep=True)
    if decided is not run:
        decided.create(cluster)
    return decided


def _say_threshold(run: Run, announce: Callable[[str], None]) -> None:
    """Log the threshold, and announce one that goes before that of the run file; some results have none."""
    chosen = run.chosen
    if chosen is None:
        return
    logger.info("threshold %s", chosen)
    if chosen.file is not None and not run.choice.given:
        announce(f"threshold {chosen}")
