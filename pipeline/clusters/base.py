"""The two protocols of a cluster.

    from outside   petaseg submit / status / logs / cancel      ``Cluster``: starts, inspects and ends a driver
    from inside    the driver, which is a job itself             ``WorkerPool``: a Dask scheduler whose workers are jobs

The driver is ``petaseg run RUN --on <cluster>``: the same command as on one machine, with other workers. The two sides
share only the run directory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pipeline.clusters.tls import Tls
from pipeline.config.cluster import ClusterTable, WorkerShape
from pipeline.config.fingerprint import fingerprint
from pipeline.config.run_file import RunConfig
from pipeline.errors import ClusterError, ConfigError
from pipeline.formats import DRIVER
from pipeline.storage import local_path

logger = logging.getLogger("petaseg.clusters")

DRIVER_RECORD = "cluster/driver.json"
"""The object in the run directory that records where the driver was submitted."""

GENERAL, INFERENCE, LARGE = "general", "inference", "-large"
"""Names of pools: those of the run file, and the same with this ending for a chunk that ran out of memory."""
POOLS = (GENERAL, INFERENCE, GENERAL + LARGE, INFERENCE + LARGE)
MORE_MEMORY = 2.0
"""The factor by which a large worker has more memory."""

Phase = Literal["pending", "running", "finished", "failed", "unknown"]


@dataclass(frozen=True)
class Submission:
    """A run that ``petaseg submit`` hands to a cluster."""

    run_url: str
    """The run directory; it holds ``run.yaml`` with absolute paths."""
    config: RunConfig
    setup: str = ""
    """Shell lines that the user gave on the command line, run in each job before Python (SLURM): module load cuda.

    They are no part of the run file, which may come from somebody else and must not be able to execute anything. The
    driver gets them as the environment variable ``PETASEG_SETUP``, for the jobs of its workers.
    """


@dataclass(frozen=True)
class LoneJob:
    """One command as one job on one node, like a training, which goes on where it stopped when it is started again."""

    url: str
    """Its folder; the record and the log are in it. A path of this machine, or a bucket."""
    file: str
    """The file that it reads, by which ``petaseg logs`` and ``petaseg cancel`` find it too."""
    places: tuple[str, ...]
    """Every path that it reads or writes, for clusters whose nodes do not have all folders of this machine."""
    command: tuple[str, ...]
    """Arguments after ``python -P``."""
    cluster: ClusterTable
    """Where it runs; its walltime, memory and restarts are those of ``cluster.driver``."""
    cpus: int
    gpus: int = 0
    setup: str = ""
    """As in ``Submission``."""


@dataclass(frozen=True)
class DriverJob:
    """The record of a submitted driver, kept as ``DRIVER_RECORD`` in the run directory."""

    cluster: str
    """Key of ``CLUSTERS``."""
    id: str
    """SLURM job number, or name of the Kubernetes Job."""
    details: dict[str, str] = field(default_factory=dict)
    """Other facts by which it is found again: namespace, log file."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def encode(self) -> bytes:
        """As ``DRIVER_RECORD`` holds it."""
        return json.dumps({**DRIVER.stamp, **asdict(self)}).encode()

    @classmethod
    def decode(cls, data: bytes, place: str = DRIVER_RECORD) -> DriverJob:
        """The job that is recorded at ``place``; ``ClusterError`` if a newer petaseg wrote it, or if it is damaged."""
        try:
            plain = json.loads(data)
            DRIVER.check(plain, place, ClusterError)
            return cls(plain["cluster"], plain["id"], plain["details"])
        except (ValueError, TypeError, KeyError) as error:
            raise ClusterError(
                f"{place} is damaged ({error}); see whether the driver's job is still there with the commands of your "
                "cluster, then delete this file"
            ) from error


@dataclass(frozen=True)
class JobState:
    """The state of a driver and its workers in the cluster."""

    phase: Phase
    reason: str = ""
    """The reason why the driver waits or failed, in the cluster's words."""
    restarts: int = 0
    workers_running: int = 0
    workers_pending: int = 0


class Cluster(Protocol):
    """A kind of cluster. It has no state, so every command makes its own."""

    name: str

    def render(self, submission: Submission) -> dict[str, str]:
        """The files that would be submitted: file name -> text, without secrets. Nothing is written and no server
        contacted.

        Raises ``ConfigError`` if ``cluster.*`` lacks something that this kind needs.
        """
        ...

    def submit(self, submission: Submission) -> DriverJob:
        """Submit exactly the files of ``render``; ``ClusterError`` in the cluster's words and with a remedy."""
        ...

    def state(self, job: DriverJob) -> JobState:
        """The state of a driver and its workers."""
        ...

    def logs(self, job: DriverJob, *, workers: bool = False) -> Iterator[str]:
        """The lines that the driver (or, with ``workers``, each worker) has written so far."""
        ...

    def cancel(self, job: DriverJob) -> None:
        """End the driver and its workers; when it is submitted again, the run continues where it stopped."""
        ...

    def pool(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> WorkerPool:
        """A pool for the driver, with workers of one shape but none yet. ``name``: "general" or "inference"."""
        ...


@runtime_checkable
class LoneJobs(Protocol):
    """What a kind of cluster adds to ``Cluster`` if it can run a command that is no driver of workers: a training.

    ``state``, ``logs`` and ``cancel`` of ``Cluster`` serve such a job too.
    """

    def render_lone(self, job: LoneJob) -> dict[str, str]:
        """As ``Cluster.render``."""
        ...

    def submit_lone(self, job: LoneJob) -> DriverJob:
        """As ``Cluster.submit``."""
        ...


def lone_jobs(cluster: Cluster) -> LoneJobs:
    """The cluster, if it runs trainings; else ``ConfigError``."""
    if not isinstance(cluster, LoneJobs):
        raise ConfigError(
            f"a training cannot be submitted to {cluster.name} yet; submit it to slurm or kubernetes (--on slurm), or "
            "run `petaseg train` in a job of your own: it goes on from its checkpoint when it is started again"
        )
    return cluster


class WorkerPool(Protocol):
    """A Dask scheduler in this process and the jobs that work for it."""

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        ...

    @property
    def problem(self) -> str:
        """Why no worker will start, in the cluster's words, with the scheduler closed; "" while one may start."""
        ...

    def scale(self, workers: int) -> None:
        """Keep this number of workers running; lost ones are replaced; 0 ends all."""
        ...

    def avoid(self, node: str) -> None:
        """Start no more workers on a node, if the cluster supports that."""
        ...

    def close(self) -> None:
        """End workers and scheduler; a second call does nothing."""
        ...


def cluster_folder(run_url: str) -> Path:
    """Folder of a run's job files: ``cluster/`` in the run directory, or in the home folder if that is a bucket."""
    local = local_path(run_url)
    return Path(local or Path.home() / ".petaseg" / fingerprint(run_url)[:8]).resolve() / "cluster"


def driver_command(submission: Submission, cluster: str) -> Sequence[str]:
    """Arguments of the driver, after ``python -P``."""
    return ["-m", "workflows.cli", "run", submission.run_url, "--on", cluster, "--quiet"]


def dashboard_of(config: RunConfig, pool: str) -> str | None:
    """The address of a pool's dashboard; ports are counted from the configured one in the order of ``POOLS``."""
    if config.execution.dashboard is None:
        return None
    host, _, port = config.execution.dashboard.rpartition(":")
    return f"{host}:{int(port) and int(port) + POOLS.index(pool)}"


def tell_dashboard(pool: str, address: str | None, cluster: Any) -> None:
    """Log the address of a started Dask cluster's dashboard, if it has one."""
    if address is not None:
        port = cluster.scheduler_info["services"]["dashboard"]
        logger.info("Dask dashboard of the %s workers: http://%s:%d/status", pool, address.rpartition(":")[0], port)


def worker_shapes(cluster: ClusterTable) -> dict[str, WorkerShape]:
    """The shapes of the run file, by pool."""
    inference = {} if cluster.inference_workers is None else {INFERENCE: cluster.inference_workers}
    return {GENERAL: cluster.workers, **inference}


def large(shape: WorkerShape) -> WorkerShape:
    """One worker with more memory, for one chunk at a time."""
    one = {"threads": 1, "count": 1, "gpus_per_node": None}
    return shape.model_copy(update={"memory_gb": MORE_MEMORY * shape.memory_gb, **one})
