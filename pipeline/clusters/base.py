"""What a cluster can do, seen from two sides.

    from outside   petaseg submit / status / logs / cancel      ``Cluster``: starts a driver, looks at it, ends it
    from inside    the driver, a job itself                     ``WorkerPool``: a Dask scheduler whose workers are jobs

The driver is ``petaseg run RUN --on <cluster>``: the same command as on one machine, with other workers. All that the
two sides share is the run directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.clusters.tls import Tls
from pipeline.config.cluster import ClusterTable, WorkerShape
from pipeline.config.fingerprint import fingerprint
from pipeline.config.run_file import RunConfig
from pipeline.storage import local_path

logger = logging.getLogger("petaseg.clusters")

DRIVER_RECORD = "cluster/driver.json"
"""Object in the run directory that says where the driver was submitted."""

GENERAL, INFERENCE, LARGE = "general", "inference", "-large"
"""Names of pools: those of the run file, and the same with this ending for a chunk that ran out of memory."""
POOLS = (GENERAL, INFERENCE, GENERAL + LARGE, INFERENCE + LARGE)
MORE_MEMORY = 2.0
"""How much more memory a large worker has."""

Phase = Literal["pending", "running", "finished", "failed", "unknown"]


@dataclass(frozen=True)
class Submission:
    """What ``petaseg submit`` hands to a cluster."""

    run_url: str
    """The run directory; it holds ``run.yaml`` with absolute paths."""
    config: RunConfig
    setup: str = ""
    """Shell lines that the user gave on the command line, run in each job before Python (SLURM): module load cuda.

    They are no part of the run file, which may come from somebody else and must not be able to execute anything. The
    driver gets them as the environment variable ``PETASEG_SETUP``, for the jobs of its workers.
    """


@dataclass(frozen=True)
class DriverJob:
    """Where a driver was submitted; kept as ``DRIVER_RECORD`` in the run directory."""

    cluster: str
    """Key of ``CLUSTERS``."""
    id: str
    """SLURM job number, or name of the Kubernetes Job."""
    details: dict[str, str] = field(default_factory=dict)
    """Whatever else finds it again: namespace, log file."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class JobState:
    """A driver and its workers as the cluster sees them now."""

    phase: Phase
    reason: str = ""
    """Why it waits or failed, in the cluster's words."""
    restarts: int = 0
    workers_running: int = 0
    workers_pending: int = 0


class Cluster(Protocol):
    """A kind of cluster; a value without state, so that every command makes its own."""

    name: str

    def render(self, submission: Submission) -> dict[str, str]:
        """What would be submitted: file name -> text. Nothing is written or contacted; no secrets are in it.

        Raises ``ConfigError`` if ``cluster.*`` lacks something that this kind needs.
        """
        ...

    def submit(self, submission: Submission) -> DriverJob:
        """Submit exactly what ``render`` shows; ``ClusterError`` in the cluster's words and with a remedy."""
        ...

    def state(self, job: DriverJob) -> JobState:
        """The state of a driver and its workers."""
        ...

    def logs(self, job: DriverJob, *, workers: bool = False) -> Iterator[str]:
        """The lines that the driver (or, with ``workers``, each worker) has written so far."""
        ...

    def cancel(self, job: DriverJob) -> None:
        """End the driver and its workers; the run goes on where it stopped when it is submitted again."""
        ...

    def pool(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> WorkerPool:
        """In the driver: a pool of workers of one shape, with no worker yet. ``name``: "general" or "inference"."""
        ...


class WorkerPool(Protocol):
    """A Dask scheduler in this process and the jobs that work for it."""

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        ...

    @property
    def problem(self) -> str:
        """Why no worker will come, in the cluster's words; "" while there is hope. Such a pool closes its scheduler."""
        ...

    def scale(self, workers: int) -> None:
        """Keep so many workers alive; lost ones are replaced; 0 ends them all."""
        ...

    def avoid(self, node: str) -> None:
        """Start no more workers on a node, if the cluster can be told so."""
        ...

    def close(self) -> None:
        """End workers and scheduler."""
        ...


def cluster_folder(run_url: str) -> Path:
    """Files of a run's jobs: ``cluster/`` in the run directory, or in the user's home if that is an object store."""
    local = local_path(run_url)
    return Path(local or Path.home() / ".petaseg" / fingerprint(run_url)[:8]).resolve() / "cluster"


def driver_command(submission: Submission, cluster: str) -> Sequence[str]:
    """Arguments of the driver, after ``python -P``."""
    return ["-m", "workflows.cli", "run", submission.run_url, "--on", cluster, "--quiet"]


def dashboard_of(config: RunConfig, pool: str) -> str | None:
    """Where the scheduler of a pool shows its dashboard: ports are counted from the configured one, in ``POOLS``."""
    if config.execution.dashboard is None:
        return None
    host, _, port = config.execution.dashboard.rpartition(":")
    return f"{host}:{int(port) and int(port) + POOLS.index(pool)}"


def tell_dashboard(pool: str, address: str | None, cluster: Any) -> None:
    """Log where the dashboard of a started Dask cluster is, if it has one."""
    if address is not None:
        port = cluster.scheduler_info["services"]["dashboard"]
        logger.info("Dask dashboard of the %s workers: http://%s:%d/status", pool, address.rpartition(":")[0], port)


def worker_shapes(cluster: ClusterTable) -> dict[str, WorkerShape]:
    """The shapes of the run file, by pool."""
    inference = {} if cluster.inference_workers is None else {INFERENCE: cluster.inference_workers}
    return {GENERAL: cluster.workers, **inference}


def large(shape: WorkerShape) -> WorkerShape:
    """One worker with more memory, for one chunk at a time."""
    return shape.model_copy(update={"memory_gb": MORE_MEMORY * shape.memory_gb, "threads": 1, "count": 1})
