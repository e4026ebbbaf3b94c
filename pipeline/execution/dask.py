"""Dask: worker processes on this machine, or the cluster behind a scheduler's address. The only file that knows it.

The scheduler never sees more than a bounded window of tasks. Items that take milliseconds travel in small batches, so
that the scheduler's millisecond a task does not dominate; a batch holds at most ``BATCH_SECONDS`` of work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice

import dask
from distributed import Client, Future, LocalCluster, as_completed, get_worker
from distributed.scheduler import KilledWorker

from pipeline.errors import ConfigError
from pipeline.execution.base import Item, Outcome, Resources, Result, attempt, one_line

logger = logging.getLogger("petaseg.execution")

BATCH_SECONDS = 0.25
BATCH_ITEMS = 32
CONNECT_SECONDS = 30


class DaskExecutor:
    """Worker processes, each with a nanny that replaces it when it dies.

    workers, threads: of a cluster on this machine; unused with ``scheduler``, the address of an existing one.
    dashboard: address of the dashboard, loopback by default; None for none.
    """

    def __init__(
        self,
        workers: int = 2,
        threads: int = 1,
        scheduler: str | None = None,
        memory_limit: str | None = None,
        dashboard: str | None = None,
    ) -> None:
        if workers < 1 or threads < 1:
            raise ConfigError(f"workers is {workers} and threads {threads}; both must be at least 1")
        self.workers, self.threads = workers, threads
        self.scheduler, self.memory_limit, self.dashboard = scheduler, memory_limit, dashboard

    @cached_property
    def client(self) -> Client:
        """The connection, made when first needed; ``ConfigError`` if no scheduler answers."""
        if self.scheduler is None:
            return Client(self._cluster, set_as_default=False)
        try:
            return Client(self.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {self.scheduler} ({error}); start one (`dask scheduler`), correct "
                "execution.scheduler, or leave it out for workers on this machine"
            ) from error

    @cached_property
    def _cluster(self) -> LocalCluster:
        with dask.config.set({"distributed.worker.daemon": True}):
            return LocalCluster(
                n_workers=self.workers,
                threads_per_worker=self.threads,
                processes=True,
                host="127.0.0.1",
                memory_limit=self.memory_limit or 0,
                dashboard_address=self.dashboard,
                silence_logs=logging.CRITICAL,
            )

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        resources: Resources,
        max_in_flight: int | None = None,
    ) -> Iterator[Outcome[Item, Result]]:
        """See ``Executor``; by default two items for every worker thread are in flight."""
        source = iter(items)
        running: dict[Future, Sequence[Item]] = {}
        completed = as_completed(with_results=False)
        seconds = BATCH_SECONDS  # of one item, as seen so far: the first ones travel alone
        try:
            while True:
                window = max_in_flight or 2 * self._slots()
                size = 1 if max_in_flight else max(1, min(BATCH_ITEMS, int(BATCH_SECONDS / max(seconds, 1e-6))))
                while len(running) < window and (batch := list(islice(source, size))):
                    future = self._submit(function, batch, resources.timeout_seconds)
                    running[future] = batch
                    completed.add(future)
                if not running:
                    return
                future = next(completed)
                outcomes: list[Outcome[Item, Result]]
                outcomes, took = self._collect(future, running.pop(future))
                seconds = took / len(outcomes)
                yield from outcomes
        finally:
            for future in running:
                future.cancel()

    def _slots(self) -> int:
        """Worker threads that are connected now, at least one: workers may come and go."""
        return max(1, sum(self.client.nthreads().values())) if self.scheduler else self.workers * self.threads

    def _submit(self, function: Callable[[Item], Result], batch: Sequence[Item], limit: float | None) -> Future:
        return self.client.submit(run_batch, function, batch, limit, pure=False, retries=0)

    def _collect(self, future: Future, batch: Sequence[Item]) -> tuple[list[Outcome[Item, Result]], float]:
        """Outcomes of a finished batch and its seconds; a lost worker becomes an error of each of its items."""
        error = future.exception() if future.status == "error" else None
        if error is None and future.status == "finished":
            outcomes, took, stuck = future.result()
            if stuck:
                self._restart(stuck)
            return outcomes, took
        if isinstance(error, KilledWorker):
            text = f"the worker died {error.allowed_failures + 1} times on this chunk; it may need more memory"
        else:
            text = one_line(error) if error else f"the task was {future.status}"
        return [Outcome(item, error=text) for item in batch], BATCH_SECONDS

    def _restart(self, address: str) -> None:
        logger.warning("worker %s is stuck; restarting it", address)
        self.client.restart_workers([address], timeout=CONNECT_SECONDS, raise_for_error=False)

    def close(self) -> None:
        """Disconnect, and stop the workers if they are ours."""
        client, cluster = self.__dict__.pop("client", None), self.__dict__.pop("_cluster", None)
        if client is not None:
            client.close()
        if cluster is not None:
            cluster.close()


def run_batch(
    function: Callable[[Item], Result], batch: Sequence[Item], limit: float | None
) -> tuple[list[Outcome[Item, Result]], float, str]:
    """Run a batch in a worker: outcomes, seconds, and the worker's address if one item ran into its time limit."""
    began = time.perf_counter()
    outcomes: list[Outcome[Item, Result]] = []
    for item in batch:
        outcome = attempt(function, item) if limit is None else attempt_within(function, item, limit)
        if outcome is None:
            text = f"no result after {limit:g} seconds (execution.timeout_seconds); its worker is restarted"
            outcomes.append(Outcome(item, error=text))
            outcomes += [Outcome(rest, error="its worker is restarted") for rest in batch[len(outcomes) :]]
            return outcomes, time.perf_counter() - began, get_worker().address
        outcomes.append(outcome)
    return outcomes, time.perf_counter() - began, ""


def attempt_within(function: Callable[[Item], Result], item: Item, limit: float) -> Outcome[Item, Result] | None:
    """The outcome of an item, or None if it takes longer; then its thread is left behind in a worker that must go."""
    box: list[Outcome[Item, Result]] = []
    thread = threading.Thread(target=lambda: box.append(attempt(function, item)), daemon=True)
    thread.start()
    thread.join(limit)
    return box[0] if box else None
