"""Submit a run to a cluster, find its driver again, and end it; used by submit, status, logs and cancel."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from pipeline.clusters import CLUSTERS, make_cluster
from pipeline.clusters.base import DRIVER_RECORD, Cluster, DriverJob, JobState, Submission
from pipeline.errors import ClusterError, ConfigError
from pipeline.runs.hints import command
from pipeline.runs.lease import Holder, Lease, read_lease
from pipeline.runs.outline import RunOutline
from pipeline.storage import ObjectStore

if TYPE_CHECKING:  # it imports torch and numba, which are not needed to query a cluster
    from pipeline.runs.run import Run

ALIVE = ("pending", "running")
END_SECONDS = 60.0
"""How long a driver may take to stop: it ends its workers and writes its records first."""


@dataclass(frozen=True)
class RunPlace:
    """A run known by its directory: its inputs are not opened, since they may be gone or be computed again."""

    store: ObjectStore
    source: str
    """The run file or run directory that the user named."""
    overrides: tuple[str, ...] = ()

    def hint(self, verb: str, *more: str) -> str:
        """The command that does something with this run, with its overrides and more options."""
        return command(verb, self.source, self.overrides, *more)


def cluster_of(run: Run, name: str | None) -> Cluster:
    """The cluster that the user named, or the run file's."""
    return cluster_named(name or run.config.cluster.kind, "the run file")


def cluster_named(name: str | None, file: str) -> Cluster:
    """A cluster by name; ``ConfigError`` if neither the command nor the file names one."""
    if name is None:
        names = " or ".join(f"--on {name}" for name in CLUSTERS)
        raise ConfigError(f"which cluster? give {names}, or set cluster.kind in {file}")
    return make_cluster(name)


def submission_of(run: Run, setup: str = "") -> Submission:
    """The submission of a run to a cluster; its configuration has the overrides already."""
    return Submission(run.url, run.config, setup=setup)


def submit(run: Run, cluster: Cluster, setup: str = "", *, overwrite: bool = False) -> DriverJob:
    """Submit a driver and record it in the run directory; ``ClusterError`` if one is running already.

    overwrite: delete the results of another input first, if the run directory holds any; else they are refused.
    """
    job = driver_of(run)
    if job is not None and make_cluster(job.cluster).state(job).phase in ALIVE:
        raise ClusterError(
            f"{run.source} was submitted to {job.cluster} already, as {job.id}, and that driver is alive; "
            f"look at it with `{run.hint('status')}`, or end it with `{run.hint('cancel')}`"
        )
    run.check_directory(overwrite=overwrite)
    if overwrite:
        with Lease(run.store, seconds=run.config.execution.lease_seconds):
            run.create(cluster.name, overwrite=True)
    else:
        run.create(cluster.name)
    job = cluster.submit(submission_of(run, setup))
    run.store.put(DRIVER_RECORD, job.encode())
    return job


def driver_of(run: Run | RunOutline | RunPlace) -> DriverJob | None:
    """The driver that was submitted last; ``None`` if there was none."""
    data = run.store.get_or_none(DRIVER_RECORD)
    return None if data is None else DriverJob.decode(data, f"{run.store.url}/{DRIVER_RECORD}")


def driver_here(run: RunPlace) -> Holder | None:
    """The driver that `petaseg run` has started in a terminal, if it has the lease; it may be dead.

    ``None`` too if the lease is damaged: nobody can tell then.
    """
    lease = read_lease(run.store)
    return None if lease is None or lease.released or lease.damaged or lease.holder.job else lease.holder


def cancel(run: RunPlace) -> str:
    """End the driver of a run and its workers, wherever they are; returns the driver's name.

    ``ConfigError`` if there is none, ``ClusterError`` if it cannot be ended from here.
    """
    holder = driver_here(run)
    if holder is not None and not holder.is_surely_dead():
        end_process(holder)
        return str(holder)
    job = driver_of(run)
    if job is None:
        lease = read_lease(run.store)
        if lease is not None and lease.damaged:
            raise ClusterError(
                f"{run.store.url}/lease.json is damaged, so nobody can tell who drives this run; end the driver where "
                f"you started it. Nothing is lost: `{run.hint('run')}` takes over from a driver that is dead"
            )
        if lease is not None and not lease.released and lease.holder.job:
            raise ClusterError(
                f"{lease.holder} drives this run and was submitted by hand; end that job in the same way"
            )
        raise ConfigError(f"no driver works on {run.source}; `{run.hint('run')}` goes on with it")
    make_cluster(job.cluster).cancel(job)
    return f"{job.cluster} {job.id}"


def end_process(holder: Holder) -> None:
    """Signal a driver of this machine to stop cleanly, and wait until it has ended."""
    if holder.host != Holder.here().host:
        raise ClusterError(f"{holder} drives this run; give the same command, or `kill {holder.pid}`, on {holder.host}")
    try:
        psutil.Process(holder.pid).terminate()
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise ClusterError(f"{holder} belongs to somebody else; ask them to end it") from None
    end = time.monotonic() + END_SECONDS
    while not holder.is_surely_dead():
        if time.monotonic() > end:
            raise ClusterError(
                f"{holder} was asked to stop and is still there after {END_SECONDS:.0f} s; wait, or end it with "
                f"`kill -9 {holder.pid}`: nothing that is done is lost"
            )
        time.sleep(0.1)


def state_of(job: DriverJob) -> JobState:
    """The state of a driver; "unknown" with the reason if its cluster cannot be reached from here."""
    try:
        return make_cluster(job.cluster).state(job)
    except (ClusterError, ConfigError) as error:
        return replace(JobState("unknown"), reason=str(error))
