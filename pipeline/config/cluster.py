"""The table ``cluster`` of a run file: where driver and workers run. No value can become a command."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Amount, Count, CountOrZero, Positive, Table
from pipeline.config.registered import KeyOf

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$", max_length=253)]
"""A word that is safe in a job script, so that no value of a run file can become a command."""
Walltime = Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")]
SbatchOption = Annotated[
    str,
    Field(
        pattern=r"^--(constraint|exclude|exclusive|gres|gpus|hint|licenses|nice|nodelist|qos|reservation)(=[\w.,:@+&|*()\[\]-]+)?$"
    ),
]


class WorkerShape(Table):
    """Workers of one shape: their number, and the resources of each."""

    count: Count = 4
    """The most workers; a stage with fewer chunks starts fewer."""
    cpus: Count = 1
    """CPU cores of a worker."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs of a worker: one process has one GPU, or none."""
    memory_gb: Positive = 4.0
    """Memory of a worker in GB."""
    threads: Count = 1
    """Chunks that a worker processes in parallel."""
    walltime: Walltime = "04:00:00"
    """Longest time of a worker, [days-]hours:minutes:seconds (SLURM); it drains before its end and is replaced."""
    queue: Name | None = None
    """Partition of these workers (SLURM); cluster.queue if left out."""
    options: tuple[SbatchOption, ...] = ()
    """More options of sbatch that choose nodes, like "--constraint=skylake" or "--qos=long" (SLURM)."""
    node_selector: dict[Name, Name] = Field(default_factory=dict)
    """Labels that a node must have (Kubernetes)."""


class Driver(Table):
    """The process that hands out the chunks and writes the ledger; it runs as a job itself."""

    cpus: Count = 1
    """CPU cores."""
    memory_gb: Positive = 4.0
    """Memory in GB."""
    walltime: Walltime = "2-00:00:00"
    """Longest time of the driver; before its end it stops, is queued again and continues (SLURM)."""
    restarts: CountOrZero = 20
    """How often a driver that was killed is started again."""


class Prices(Table):
    """Prices of an hour, in any currency; `petaseg status` computes the run's cost from them."""

    cpu_hour: Amount = 0.0
    """Price of one CPU core for an hour."""
    gpu_hour: Amount = 0.0
    """Price of one GPU for an hour."""
    currency: str = ""
    """Printed behind the figures, like EUR."""


class ClusterTable(Table):
    """Where `petaseg submit` runs the driver and its workers; nothing here changes a byte of the result."""

    kind: Annotated[str, KeyOf("pipeline.clusters:CLUSTERS")] | None = None
    """Kind of cluster that `petaseg submit` uses without --on."""
    queue: Name | None = None
    """Partition of the driver and of workers that name none (SLURM)."""
    account: Name | None = None
    """Account that is charged (SLURM)."""
    interface: Name | None = None
    """Network interface between nodes, like ib0 (SLURM)."""
    namespace: Name = "default"
    """Namespace of all resources (Kubernetes)."""
    image: Name | None = None
    """Container image (Kubernetes)."""
    claim: Name | None = None
    """Persistent volume claim mounted at /data in every pod (Kubernetes); not needed with object stores."""
    secrets: tuple[Name, ...] = ()
    """Names of Secrets whose keys become environment variables of every pod, for object stores (Kubernetes)."""
    image_pull_secret: Name | None = None
    """Name of the Secret with which nodes fetch the image (Kubernetes)."""
    driver: Driver = Driver()
    workers: WorkerShape = WorkerShape()
    inference_workers: WorkerShape | None = None
    """Workers that run only the network; if left out, all workers run every stage."""
    prices: Prices = Prices()
