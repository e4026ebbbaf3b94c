"""Submit a run to a cluster and find its driver again: what the commands submit, status, logs and cancel share."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.clusters import make_cluster
from pipeline.clusters.base import DRIVER_RECORD, Cluster, DriverJob, JobState, Submission
from pipeline.errors import ClusterError, ConfigError
from pipeline.outline import RunOutline

if TYPE_CHECKING:  # torch and numba, which asking a cluster does not need
    from pipeline.run import Run

ALIVE = ("pending", "running")


def cluster_of(run: Run, name: str | None) -> Cluster:
    """The cluster that the user named, or the run file's."""
    chosen = name or run.config.cluster.kind
    if chosen is None:
        raise ConfigError("which cluster? give --on slurm or --on kubernetes, or set cluster.kind in the run file")
    return make_cluster(chosen)


def submission_of(run: Run, setup: str = "") -> Submission:
    """What is handed to a cluster; the overrides are in the configuration already."""
    return Submission(run.url, run.config, setup=setup)


def submit(run: Run, cluster: Cluster, setup: str = "") -> DriverJob:
    """Submit a driver and remember it in the run directory; ``ClusterError`` if one is alive already."""
    job = driver_of(run)
    if job is not None and make_cluster(job.cluster).state(job).phase in ALIVE:
        raise ClusterError(
            f"{run.source} was submitted to {job.cluster} already, as {job.id}, and that driver is alive; "
            f"look at it with `petaseg status {run.source}`, or end it with `petaseg cancel {run.source}`"
        )
    run.create()
    job = cluster.submit(submission_of(run, setup))
    run.store.put(DRIVER_RECORD, json.dumps(job.as_dict()).encode())
    return job


def driver_of(run: Run | RunOutline) -> DriverJob | None:
    """The driver that was submitted last; ``None`` if there was none."""
    data = run.store.get_or_none(DRIVER_RECORD)
    return None if data is None else DriverJob(**json.loads(data))


def submitted_driver(run: Run) -> DriverJob:
    """Like ``driver_of``; ``ConfigError`` if there was none."""
    job = driver_of(run)
    if job is None:
        raise ConfigError(f"{run.source} was not submitted to a cluster; `petaseg submit {run.source} --on slurm` does")
    return job


def state_of(job: DriverJob) -> JobState:
    """The state of a driver; "unknown" with the reason if its cluster cannot be asked from here."""
    try:
        return make_cluster(job.cluster).state(job)
    except (ClusterError, ConfigError) as error:
        return replace(JobState("unknown"), reason=str(error))
