"""A Dask worker that drains: it returns unfinished chunks to the scheduler, and none counts as failed.

    dask worker ADDRESS --worker-class pipeline.clusters.worker.DrainingWorker

When a plain worker ends, its scheduler blames the chunks that it held, and the executor tries these again one at a
time. That is right after a crash and wrong after a walltime, a preemption or a scale-down.

    JOB_END - DRAIN_SECONDS   the worker takes no more chunks, and finishes those that run
    JOB_END - LAST_SECONDS    it returns chunks that still run, and ends
    TERM                      it returns chunks that run, and ends
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from contextlib import suppress
from typing import Any

import dask
from distributed import Worker
from distributed.core import Status

logger = logging.getLogger("distributed.worker")

LAST_SECONDS = 30.0
RETIRE_SECONDS = 5.0
STAGGER = 0.25
"""Share of the drain time by which workers leave earlier at random, so that they are not replaced all at once."""
NEVER_PAUSED = {f"distributed.worker.memory.{limit}": False for limit in ("target", "spill", "pause")}
"""Memory that a chunk took may stay with the allocator, so a pause might last for ever; and results are too small to
spill. The nanny still ends a process that takes more than its limit."""
CONNECTED = {Status.running, Status.paused}


class DrainingWorker(Worker):
    """A worker that ends before the end of its job; configuration ``petaseg.job-end`` (epoch) and
    ``petaseg.drain-seconds``.

    Both come from the job script, as ``DASK_PETASEG__JOB_END`` and so on. The end counts from the start of the job: a
    process that its nanny has restarted keeps the same end.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        end = float(dask.config.get("petaseg.job-end", 0))
        self.drain_seconds = float(dask.config.get("petaseg.drain-seconds", 60))
        if end:
            early = self.drain_seconds * (1 + STAGGER * random.random())
            options.update(lifetime=max(end - early - time.time(), 1), lifetime_stagger=0)
        with dask.config.set(NEVER_PAUSED):
            super().__init__(*arguments, **options)

    async def start_unsafe(self) -> Worker:
        """Leave TERM, which a job's end sends to every process, to the nanny, which then asks this worker to close."""
        if self.nanny:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await super().start_unsafe()
        return self

    async def close_gracefully(self, restart: bool | None = None, reason: str = "worker-close-gracefully") -> None:
        """Take no more chunks, finish those that run, then end."""
        if self.status == Status.running:
            logger.info("Draining: %s. Reason: %s", self.address, reason)
            self.status = Status.paused
            await self._finish(self.drain_seconds - min(LAST_SECONDS, self.drain_seconds / 2))
        await super().close_gracefully(restart=restart, reason=reason)

    async def close(self, **options: Any) -> str | None:  # type: ignore[override]
        """Return running chunks, then close without waiting for them; none can be returned if the scheduler is gone."""
        lost = "connection-broken" in options.get("reason", "")
        if self.status in CONNECTED and not lost:
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._give_back(), RETIRE_SECONDS)
        return await super().close(**{**options, "executor_wait": False})

    async def _finish(self, seconds: float) -> None:
        """Wait until nothing runs and every result was fetched, but not longer than ``timeout``."""
        end = time.monotonic() + seconds
        while (self.state.executing_count or self.data) and time.monotonic() < end:
            await asyncio.sleep(0.1)

    async def _give_back(self) -> None:
        await self.scheduler.retire_workers(workers=[self.address], close_workers=False, remove=True)
