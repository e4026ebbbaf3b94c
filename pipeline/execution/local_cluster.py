"""A Dask cluster on this machine whose workers are replaced for as long as it is open.

Dask's nannies restart a worker that dies, but a nanny whose worker dies while it starts gives up and is not replaced;
when the last nanny has given up, tasks would wait for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import LocalCluster, Status

from pipeline.errors import counted

logger = logging.getLogger("petaseg.execution")

SETTINGS = {
    "distributed.worker.daemon": True,
    "distributed.scheduler.allowed-failures": 0,  # one lost worker makes a suspect; more would only cost time
    "distributed.admin.low-level-log-length": 50,  # the default keeps the chunks of the last 1000 steps: 40 MB
}
"""The settings of the scheduler that the executor needs."""
STARTS = 5
LOOK_SECONDS = 2.0
GONE = {Status.closed, Status.closing, Status.failed}


class LocalWorkers:
    """Worker processes behind a scheduler in this process, on the loopback interface."""

    def __init__(self, workers: int, threads_per_worker: int, memory_limit: str | None, dashboard: str | None) -> None:
        self.workers = workers
        self._options = {
            "n_workers": workers,
            "threads_per_worker": threads_per_worker,
            "processes": True,
            "host": "127.0.0.1",
            "memory_limit": memory_limit or 0,
            "dashboard_address": dashboard or "127.0.0.1:0",  # without an address Dask requires port 8787
            "scheduler_kwargs": {"dashboard": dashboard is not None},
            "silence_logs": logging.CRITICAL,
        }
        self.cluster = self._start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="petaseg-workers", daemon=True)
        self._thread.start()

    def _start(self) -> LocalCluster:
        """Start the cluster, and try once more, since a worker that is killed while it starts ends the cluster."""
        for left in reversed(range(STARTS)):
            try:
                with dask.config.set(SETTINGS), deaf_to_the_terminal():
                    return LocalCluster(**self._options)
            except (RuntimeError, OSError, TimeoutError) as error:
                if not left:
                    raise
                logger.warning("the workers did not start (%s); trying again", error)
        raise AssertionError("unreachable")

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.replace_lost()

    def replace_lost(self) -> None:
        """Start a worker for each whose nanny has given up, or was taken out of the cluster.

        Dask takes a nanny out that has no worker 15 seconds after a death of its worker, although a worker that has
        died twice may be starting just then.
        """
        nannies: dict[Any, Any] = dict(self.cluster.workers)
        lost = [name for name, nanny in nannies.items() if nanny.status in GONE]
        for name in lost:
            self.cluster.worker_spec.pop(name, None)
        if lost:
            logger.warning("%s lost; starting others", counted(len(lost), "worker"))
        if lost or set(self.cluster.worker_spec) - set(nannies):  # a nanny that is only just made is not made twice
            with dask.config.set(SETTINGS):
                self.cluster.scale(self.workers)

    def kill(self) -> None:
        """End all processes at once, whatever they do, and print nothing of the connections that break thereby."""
        self._ended.set()
        for handler in logging.getLogger("distributed").handlers:
            handler.addFilter(_nothing)  # a level would not last: closing the cluster restores it
        for nanny in list(self.cluster.workers.values()):
            nanny.auto_restart = False
            with suppress(ProcessLookupError):
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)

    def close(self) -> None:
        """Stop all processes."""
        self._ended.set()
        self._thread.join()
        self.cluster.close()


def _nothing(record: logging.LogRecord) -> bool:
    """A filter that keeps no record."""
    return False


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the control group that this process is in if that has less."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


@contextmanager
def deaf_to_the_terminal() -> Iterator[None]:
    """Threads that begin in here, and the processes that these start at any time, do not receive SIGINT.

    A terminal sends it to the driver and to all of its workers at once, and only the driver is meant.
    """
    resource_tracker.ensure_running()  # else it begins in a thread of ours, and lets that receive SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
