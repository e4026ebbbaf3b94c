"""The table ``cluster`` of a run file: where a driver and its workers run. Nothing in it can become a command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Amount, Count, CountOrZero, Positive, Table

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$", max_length=253)]
"""A word that is safe in a job script: nothing in a run file can become a command."""
Walltime = Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")]
SbatchOption = Annotated[
    str,
    Field(
        pattern=r"^--(constraint|exclude|exclusive|gres|gpus|hint|licenses|nice|nodelist|qos|reservation)(=[\w.,:@+&|*()\[\]-]+)?$"
    ),
]


class WorkerShape(Table):
    """Workers of one shape: how many, and what each of them gets."""

    count: Count = 4
    """Workers at most; a stage with fewer chunks starts fewer."""
    cpus: Count = 1
    """CPU cores of a worker."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs of a worker: one process has one GPU, or none."""
    memory_gb: Positive = 4.0
    """Memory of a worker in GB."""
    threads: Count = 1
    """Chunks that a worker processes side by side."""
    walltime: Walltime = "04:00:00"
    """Longest life of a worker, [days-]hours:minutes:seconds (SLURM); it drains before and is replaced."""
    queue: Name | None = None
    """Partition of these workers (SLURM); the cluster's if left out."""
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
    """Longest life; before its end the driver stops, is queued again and goes on (SLURM)."""
    restarts: CountOrZero = 20
    """A driver that was killed is started again, unless its job was started so often already."""


class Prices(Table):
    """What an hour costs, in any currency; `petaseg status` then tells what the run has cost and will cost."""

    cpu_hour: Amount = 0.0
    """One CPU core for an hour."""
    gpu_hour: Amount = 0.0
    """One GPU for an hour."""
    currency: str = ""
    """Printed behind the figures, like EUR."""


class ClusterTable(Table):
    """Where `petaseg submit` runs the driver and its workers; nothing here changes a byte of the result."""

    kind: Literal["slurm", "kubernetes"] | None = None
    """What `petaseg submit` uses without --on."""
    queue: Name | None = None
    """Partition of the driver and of workers that name none (SLURM)."""
    account: Name | None = None
    """Account that is charged (SLURM)."""
    interface: Name | None = None
    """Network interface between nodes, like ib0 (SLURM)."""
    namespace: Name = "default"
    """Namespace of everything (Kubernetes)."""
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
    """Workers that run the network, and only that; if left out, all workers run everything."""
    prices: Prices = Prices()
