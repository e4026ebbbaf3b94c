"""A Dask scheduler in the driver's process whose workers are SLURM jobs, submitted through dask-jobqueue.

dask-jobqueue keeps the list of workers and scales it. A run of weeks also needs these, which are done here:

    a job that ended before its worker connected (bad node, cancelled)            is forgotten, and another replaces it
    a submission that SLURM refused (its controller is down, a limit)             is tried again, with growing pauses,
                                                                                  and in the end given up
    a worker that was drained, died, or lost its node                             is replaced (``Adaptive`` does that)
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from distributed.deploy.adaptive import Adaptive
from distributed.deploy.spec import ProcessInterface
from distributed.security import Security

from pipeline.clusters.base import Submission, cluster_folder, dashboard_of, tell_dashboard
from pipeline.clusters.slurm import scripts
from pipeline.clusters.slurm.commands import jobs_with, slurm, submit_script
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape
from pipeline.errors import ClusterError, ConfigError

logger = logging.getLogger("petaseg.clusters")

LOOK_SECONDS = 5
"""Seconds between two queries of the queue."""
RECONNECT_SECONDS = 90
"""A worker that lost its connection may return after up to this time: its nanny restarts it from a slow file system."""
RETIRE_SECONDS = 10
LONGEST_PAUSE = 300
ENDING = "CG"
"""SLURM's short state of a job whose processes have ended."""
PATIENCE, HOPELESS = 3, 12
"""Jobs in a row that may be refused, or end before a worker connects, until pauses begin; until the run fails.
"""


class SlurmPool:
    """See ``WorkerPool``."""

    def __init__(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> None:
        self.job_name = scripts.job_name(submission.run_url, name)
        slurm("scancel", f"--name={self.job_name}", refusal_is_fine=True)  # workers of a driver that died
        cluster_folder(submission.run_url).mkdir(parents=True, exist_ok=True)
        dask.config.set({"distributed.deploy.lost-worker-timeout": f"{RECONNECT_SECONDS}s"})
        self._avoided: set[str] = set()
        self._closed = False

        def script(address: str, worker: str) -> str:
            return scripts.worker_script(
                name, shape, submission, address=address, worker=worker, tls=tls, avoid=sorted(self._avoided)
            )

        dashboard = dashboard_of(submission.config, name)
        with dask.config.set(tls.settings() if tls else {}), _explained(submission.config.cluster.interface):
            self._cluster = _JobCluster(
                script,
                partial(scripts.worker_log, submission.run_url, name),
                cores=shape.cpus,
                memory=f"{shape.memory_gb}GB",
                processes=1,
                job_name=self.job_name,
                interface=submission.config.cluster.interface,
                protocol="tls://" if tls else "tcp://",
                security=Security() if tls else None,
                silence_logs=logging.CRITICAL,  # the executor reports failures; closing would log tracebacks
                scheduler_options={
                    "dashboard": dashboard is not None,
                    "dashboard_address": dashboard or "127.0.0.1:0",
                },
            )
        tell_dashboard(name, dashboard, self._cluster)
        self._keeper = self._cluster.adapt(Adaptive=_Keeper, interval=f"{LOOK_SECONDS}s", wait_count=1)

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        return self._cluster.scheduler_address

    @property
    def problem(self) -> str:
        """SLURM's words at the last refusal, or how the last job ended; "" until the pool gives up."""
        return self._cluster.problem if self._cluster.given_up else ""

    def scale(self, workers: int) -> None:
        """Keep this number of jobs queued or running."""
        self._cluster.wanted = workers
        self._cluster.loop.add_callback(self._keeper.adapt)

    def avoid(self, node: str) -> None:
        """Exclude a node from jobs that are submitted from now on."""
        self._avoided.add(node)

    def close(self) -> None:
        """End the jobs, also those that are being submitted, and the scheduler."""
        if self._closed:
            return
        self._closed = True
        self._keeper.stop()
        if not self._cluster.given_up:
            with suppress(TimeoutError):
                self._cluster.sync(self._cluster.retire_workers_first, callback_timeout=RETIRE_SECONDS)
        slurm("scancel", f"--name={self.job_name}", refusal_is_fine=True)
        self._cluster.forget_jobs()
        self._cluster.close()


@contextmanager
def _explained(interface: str | None) -> Iterator[None]:
    """Turn the errors of a scheduler that cannot start into ``ConfigError``."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        raise ConfigError(
            f"no Dask scheduler can be started on cluster.interface {interface!r}: {first}; name an interface that "
            "the nodes share (`ip address` lists them), or leave it out"
        ) from error


class _WorkerJob(SLURMJob):
    """One job with one worker, with our own script and our own way to submit it."""

    def __init__(
        self,
        scheduler: str | None = None,
        name: str | None = None,
        *,
        script: Callable[[str, str], str],
        **options: Any,
    ) -> None:
        super().__init__(scheduler, name, **options)
        self.script = script
        self.refusal = ""

    def job_script(self) -> str:
        """The text that is submitted."""
        return self.script(self.scheduler, self.name)

    async def start(self) -> None:
        """Submit the job. ``_JobCluster`` handles a refusal: raised here, it would end the loop that tries again."""
        try:
            self.job_id = await asyncio.to_thread(submit_script, self.job_script())
        except ClusterError as error:
            self.refusal = str(error)
        await ProcessInterface.start(self)

    async def close(self) -> None:
        """Cancel the job."""
        if self.job_id:
            await asyncio.to_thread(slurm, "scancel", self.job_id, refusal_is_fine=True)
        await ProcessInterface.close(self)


class _JobCluster(SLURMCluster):
    """The wanted workers and their jobs; used from the thread of its event loop."""

    job_cls: Any = _WorkerJob
    scheduler: Any
    loop: Any

    def __init__(
        self, script: Callable[[str, str], str], log: Callable[[str], Path], job_name: str, **options: Any
    ) -> None:
        self.wanted = 0
        self.problem = ""
        self.given_up = False
        self._job_name, self._log_of = job_name, log
        self._numbers = itertools.count()
        self._came: set[str] = set()
        self._fruitless = 0
        self._not_before = 0.0
        super().__init__(script=script, job_name=job_name, **options)

    def _new_worker_name(self, worker_number: int) -> str:
        """A name that no earlier worker had, since the scheduler refuses a name that it still knows."""
        return f"{self._job_name}-{next(self._numbers)}"

    async def target(self) -> int:
        """The number of jobs wanted now; no new ones are wanted during a pause after a failure."""
        await self._forget_lost()
        return self.wanted if time.monotonic() >= self._not_before else min(self.wanted, len(self.plan))

    async def _forget_lost(self) -> None:
        """Drop the jobs that are gone from SLURM's queue and whose workers are not connected."""
        connected = {worker.name for worker in self.scheduler.workers.values()}
        self._came |= connected
        if connected:
            self._fruitless, self.problem = 0, ""
        waiting = {name: job for name, job in self.workers.items() if name not in connected}
        if not waiting:
            return
        try:
            queue = await asyncio.to_thread(jobs_with, self._job_name)
        except ClusterError as error:
            logger.warning("%s", error)
            return
        for name, job in waiting.items():
            if job.job_id not in queue or queue[job.job_id].state == ENDING:
                await self._forget(name, job)

    async def _forget(self, name: str, job: _WorkerJob) -> None:
        self.workers.pop(name, None)
        self.worker_spec.pop(name, None)
        await ProcessInterface.close(job)
        if name in self._came:
            logger.info("worker %s has left; another takes its place", name)
            return
        self.problem = job.refusal or f"job {job.job_id} ended early; see {self._log_of(str(job.job_id))}"
        self._fruitless += 1
        tries = self._fruitless - PATIENCE
        pause = min(LONGEST_PAUSE, LOOK_SECONDS * 2**tries) if tries > 0 else 0
        self._not_before = time.monotonic() + pause
        logger.warning("no worker %s: %s; next try in %d s", name, self.problem, pause)
        if self._fruitless >= HOPELESS and not self.given_up:
            logger.error("no worker came in %d jobs; giving up", self._fruitless)
            self.given_up = True
            await self.scheduler.close()  # clients that wait for a result get an error

    def forget_jobs(self) -> None:
        """Forget the jobs' numbers, so that no job is cancelled by itself: all of them have been cancelled."""
        for job in list(self.workers.values()):
            job.job_id = None

    async def retire_workers_first(self) -> None:
        """Let the workers end by themselves before the scheduler closes."""
        await self.scheduler.retire_workers(workers=list(self.scheduler.workers), close_workers=True, remove=True)


class _Keeper(Adaptive):
    """Adapts the number of workers to ``_JobCluster.target``."""

    async def target(self) -> int:
        """The number of jobs that there should be."""
        jobs: Any = self.cluster
        return int(await jobs.target())
