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
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
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
from pipeline.clusters.slurm import names, scripts
from pipeline.clusters.slurm.arrays import Arrays
from pipeline.clusters.slurm.commands import jobs_with, slurm
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape
from pipeline.config.slurm import ports_of
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
"""Tries in a row at which jobs are refused, or end before a worker connects: until pauses begin, until the run fails.
"""


class SlurmPool:
    """See ``WorkerPool``."""

    def __init__(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> None:
        self.job_name = names.job_name(submission.run_url, name)
        slurm("scancel", f"--name={self.job_name}", refusal_is_fine=True)  # workers of a driver that died
        cluster_folder(submission.run_url).mkdir(parents=True, exist_ok=True)
        dask.config.set({"distributed.deploy.lost-worker-timeout": f"{RECONNECT_SECONDS}s"})
        self._avoided: set[str] = set()
        self._closed = False

        def script(first: int, tasks: int) -> str:
            return scripts.worker_script(
                *(name, shape, submission),
                address=self.address,
                first=first,
                tasks=tasks,
                tls=tls,
                avoid=sorted(self._avoided),
            )

        dashboard, table = dashboard_of(submission.config, name), submission.config.cluster
        with dask.config.set(tls.settings() if tls else {}), _explained(table.interface):
            self._cluster = _JobCluster(
                Arrays(script),
                partial(names.worker_log, submission.run_url, name),
                cores=shape.cpus,
                memory=f"{shape.memory_gb}GB",
                processes=shape.workers_per_job,
                job_name=self.job_name,
                interface=table.interface,
                protocol="tls://" if tls else "tcp://",
                security=Security() if tls else None,
                silence_logs=logging.CRITICAL,  # the executor reports failures; closing would log tracebacks
                scheduler_options={
                    "dashboard": dashboard is not None,
                    "dashboard_address": dashboard or "127.0.0.1:0",
                    **({} if table.ports is None else {"port": free_port(ports_of(table.ports))}),
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


def free_port(ports: range) -> int:
    """The first of these ports on which nobody listens; ``ConfigError`` if there is none."""
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    raise ConfigError(
        f"cluster.ports is {ports[0]}-{ports[-1]}, and all of them are in use on {socket.gethostname()}, perhaps by "
        "other drivers; choose a wider range"
    )


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
    """One job with one worker, or one for each of its GPUs, with our own script and our own way to submit it."""

    def __init__(
        self,
        scheduler: str | None = None,
        name: str | None = None,
        *,
        arrays: Arrays,
        **options: Any,
    ) -> None:
        super().__init__(scheduler, name, **options)
        self._arrays = arrays
        self.refusal = ""

    async def start(self) -> None:
        """Submit the job. ``_JobCluster`` handles a refusal: raised here, it would end the loop that tries again."""
        try:
            self.job_id = await self._arrays.start(int(self.name.rpartition("-")[2]))
        except ClusterError as error:
            self.refusal = str(error)
        await ProcessInterface.start(self)

    async def close(self) -> None:
        """Cancel the job."""
        if self.job_id:
            await self._arrays.cancel(self.job_id)
        await ProcessInterface.close(self)


class _JobCluster(SLURMCluster):
    """The wanted workers and their jobs; used from the thread of its event loop."""

    job_cls: Any = _WorkerJob
    scheduler: Any
    loop: Any

    def __init__(
        self, arrays: Arrays, log: Callable[[str], Path], job_name: str, processes: int, **options: Any
    ) -> None:
        self.wanted = 0
        self.problem = ""
        self.given_up = False
        self._job_name, self._log_of = job_name, log
        self._numbers = itertools.count()
        self._came: set[str] = set()
        self._fruitless = 0
        self._not_before = 0.0
        self._members = [f"-{number}" for number in range(processes)] if processes > 1 else [""]
        super().__init__(arrays=arrays, job_name=job_name, processes=processes, **options)

    def _new_worker_name(self, worker_number: int) -> str:
        """A name that no earlier worker had, since the scheduler refuses a name that it still knows."""
        return f"{self._job_name}-{next(self._numbers)}"

    async def target(self) -> int:
        """The workers wanted now, in whole jobs; no new ones are wanted during a pause after a failure."""
        await self._forget_lost()
        each = len(self._members)
        wanted = math.ceil(self.wanted / each) * each
        return wanted if time.monotonic() >= self._not_before else min(wanted, len(self.plan))

    async def _forget_lost(self) -> None:
        """Drop the jobs that are gone from SLURM's queue and whose workers are not connected."""
        workers = {worker.name for worker in self.scheduler.workers.values()}
        connected = {name for name in self.workers if any(name + member in workers for member in self._members)}
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
        lost = [name for name, job in waiting.items() if job.job_id not in queue or queue[job.job_id].state == ENDING]
        early = [name for name in lost if name not in self._came]
        if early:
            self._note_failure(early)
        for name in lost:
            await self._forget(name)
        if self._fruitless >= HOPELESS and not self.given_up:
            logger.error("no worker came in %d tries; giving up", self._fruitless)
            self.given_up = True
            await self.scheduler.close()  # clients that wait for a result get an error

    def _note_failure(self, early: Sequence[str]) -> None:
        """Note that jobs were refused, or ended before a worker came; jobs of one look at the queue are one failure."""
        last = self.workers[early[-1]]
        self.problem = last.refusal or f"job {last.job_id} ended early; see {self._log_of(str(last.job_id))}"
        self._fruitless += 1
        tries = self._fruitless - PATIENCE
        pause = min(LONGEST_PAUSE, LOOK_SECONDS * 2**tries) if tries > 0 else 0
        self._not_before = time.monotonic() + pause
        others = f" and {len(early) - 1} more" if len(early) > 1 else ""
        logger.warning("no worker %s%s: %s; next try in %d s", early[-1], others, self.problem, pause)

    async def _forget(self, name: str) -> None:
        job = self.workers.pop(name)
        self.worker_spec.pop(name, None)
        await ProcessInterface.close(job)
        if name in self._came:
            logger.info("worker %s has left; another takes its place", name)

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
        """The number of workers that there should be."""
        jobs: Any = self.cluster
        return int(await jobs.target())
