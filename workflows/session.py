"""A run with its workers and its progress display, opened once in a process and shared by all of its Luigi tasks."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import luigi

from pipeline.errors import ConfigError, StageFailed
from pipeline.execution import engine_of, executor_of
from pipeline.execution.base import Executor
from pipeline.execution.runner import Listener, RunOptions, StageSummary, fan_out, run_stage
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.stages.base import no_fence
from workflows.events.listeners import listening
from workflows.events.run_log import log_place, logging_to_file

logger = logging.getLogger("petaseg.session")


@dataclass
class Session:
    """A run, its executor (started when first needed) and who listens to its events."""

    run: Run
    listener: Listener | None = None
    announce: Callable[[str], None] = logger.info
    """Told the addresses where something can be watched."""
    cluster: str | None = None
    """The cluster on whose workers chunks run; this process is its driver. None: as ``execution`` says."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took that had something to do."""
    failure: BaseException | None = None
    lease: Lease | None = None
    """The right to write the run directory, held from ``start`` to ``close``."""
    _complete: set[str] = field(default_factory=set)

    @property
    def command(self) -> str:
        """The command that goes on with this run, where its user is."""
        return self.run.command if self.cluster is None else f"petaseg submit {self.run.url} --on {self.cluster}"

    def start(self) -> None:
        """Check the model, become the run's only driver, and make the run directory."""
        self.run.check_model()
        lease = Lease(self.run.store, seconds=self.run.config.execution.lease_seconds)
        self.lease = lease.__enter__()
        self.run.create()

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

    def run_stage(self, name: str) -> StageSummary:
        """Run what is missing of a stage; the first failure is kept, since Luigi would only log it."""
        stage = self.run.stage(name)
        began = time.perf_counter()
        try:
            ledger = self.run.ledger(stage)
            try:
                summary = run_stage(stage, ledger, self.executor, self._options(), on_event=self.listener)
            finally:
                ledger.close()
        except BaseException as error:
            self.failure = self.failure or error
            raise
        self.seconds[name] = time.perf_counter() - began
        return summary

    def is_complete(self, name: str) -> bool:
        """True if the ledger holds every chunk of a stage; a ledger that said so is not read again."""
        if name not in self._complete and self.run.is_complete(self.run.stage(name)):
            self._complete.add(name)
        return name in self._complete

    def _options(self) -> RunOptions:
        settings = self.run.config.execution
        return RunOptions(
            attempts=settings.attempts,
            backoff_seconds=settings.backoff_seconds,
            timeout_seconds=settings.timeout_seconds,
            max_in_flight=settings.max_in_flight,
            retry_command=self.command,
            check=self.lease.check if self.lease else lambda: None,
            fence=self.lease.fence.check if self.lease else no_fence,
        )

    def close(self) -> None:
        """Stop the workers, if any were started, and let another driver in."""
        executor = self.__dict__.pop("executor", None)
        if executor is not None:
            executor.close()
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.__exit__()


@lru_cache(maxsize=1)
def session_of(config: str, overrides: tuple[str, ...]) -> Session:
    """The session of a run file, the same for every task of a process; its workers stop with the process."""
    session = Session(Run.open(config, overrides))
    session.start()
    atexit.register(session.close)
    return session


def segment(
    config: str,
    overrides: Sequence[str] = (),
    *,
    listener: Listener | None = None,
    announce: Callable[[str], None] = lambda _: None,
    scheduler_url: str | None = None,
    only_after: str | None = None,
    cluster: str | None = None,
) -> Session:
    """Let Luigi run the chain of a run; raises what the first failing stage raised.

    Args:
        config: run file or run directory.
        overrides: ``table.key=value`` texts.
        listener: called with the events of ``pipeline.execution.runner``.
        announce: told the addresses of metrics and dashboard, where the run file asks for them.
        scheduler_url: a central Luigi scheduler; by default the chain is ordered in this process.
        only_after: a stage that must be complete already: nothing up to it may be computed.
        cluster: run as the driver of workers on this cluster, a key of ``pipeline.clusters.CLUSTERS``.
    """
    if only_after is not None:
        check_complete(Run.open(config, overrides), only_after)
    session_of.cache_clear()
    session = session_of(config, tuple(overrides))
    session.announce, session.cluster = _logged(announce), cluster
    if cluster is not None:
        session.run.create(cluster)
    try:
        aloud = cluster is not None
        with logging_to_file(session.run, aloud=aloud), listening(session.run, session.announce) as others:
            session.listener = fan_out(others, listener)
            finished = _build(config, tuple(overrides), scheduler_url)
    finally:
        session.close()
        atexit.unregister(session.close)
    if session.failure is not None:
        raise session.failure
    if not finished:
        raise StageFailed(f"the chain did not finish; see {log_place(session.run)}, then: {session.command}")
    return session


def _logged(announce: Callable[[str], None]) -> Callable[[str], None]:
    def tell(text: str) -> None:
        logger.info("%s", text)
        announce(text)

    return tell


def check_complete(run: Run, stage: str) -> None:
    """Raise ``ConfigError`` unless a stage is complete under the present configuration."""
    if not run.is_complete(run.stage(stage)):
        raise ConfigError(
            f"{run.source} has no finished {stage} under this configuration, and this command computes none; "
            f"first: {run.command}; or, if it was run with another --set, name its folder {run.url} instead of a file"
        )


def _build(config: str, overrides: tuple[str, ...], scheduler_url: str | None) -> bool:
    from workflows.segment import Segment

    luigi.configuration.get_config().set("core", "no_configure_logging", "true")
    central = {"scheduler_url": scheduler_url} if scheduler_url else {"local_scheduler": True}
    return bool(luigi.build([Segment(config=config, set=overrides)], no_lock=True, **central))
