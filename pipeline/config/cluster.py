"""The table ``cluster`` of a run file: where driver and workers run. No value can become a command."""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.config.base import Amount, Cores, Line, Name, Processes, Table
from pipeline.config.kubernetes import KubernetesTable, WorkerPodOptions
from pipeline.config.registered import KeyOf
from pipeline.config.slurm import MailType, Ports, SlurmJob

LONGEST_DAYS = 3650
WALLTIME = re.compile(
    r"(?P<d>\d+)-(?P<h>2[0-3]|[01]?\d)(?::(?P<m>[0-5]?\d)(?::(?P<s>[0-5]?\d))?)?"
    r"|(?P<hours>\d+):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d)|(?P<only_minutes>\d+)(?::(?P<rest>[0-5]?\d))?",
    re.ASCII,
)
"""The forms of a walltime that SLURM knows."""


def seconds_of(walltime: str) -> int:
    """A walltime in seconds; ``ValueError`` if SLURM would not understand it, and for less than a minute.

    As for SLURM: ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes``
    or ``days-hours:minutes:seconds``.
    """
    found = WALLTIME.fullmatch(walltime) if len(walltime) < 20 else None
    total = 0 if found is None else _total({name: int(text) for name, text in found.groupdict("0").items()})
    if not 60 <= total <= LONGEST_DAYS * 86400:
        raise ValueError(
            f"{json.dumps(walltime)} is no walltime from a minute to {LONGEST_DAYS} days; write hours:minutes:seconds, "
            "days-hours:minutes:seconds, or another form of SLURM, like 04:00:00, 1-12:00, 2-12 or 90 (minutes)"
        )
    return total


def _total(parts: dict[str, int]) -> int:
    days, hours = parts["d"], parts["h"] + parts["hours"]
    minutes = parts["m"] + parts["minutes"] + parts["only_minutes"]
    return ((days * 24 + hours) * 60 + minutes) * 60 + parts["s"] + parts["seconds"] + parts["rest"]


def _minutes_as_text(value: object) -> object:
    """A number without quotes is minutes, as for SLURM."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_walltime(text: str) -> str:
    seconds_of(text)
    return text


Walltime = Annotated[str, BeforeValidator(_minutes_as_text), AfterValidator(_check_walltime)]
Memory = Annotated[float, Field(ge=0.1, le=1e6)]
"""Memory of one process in GB; Python and its packages alone take a tenth."""


class Worker(Table):
    """The number of workers, and the resources of each."""

    count: Processes = 4
    """The most workers; a stage with fewer chunks starts fewer."""
    cpus: Cores = 1
    """CPU cores of a worker."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs of a worker: one process has one GPU, or none."""
    memory_gb: Memory = 4.0
    """Memory of a worker in GB."""
    threads: Cores = 1
    """Chunks that a worker processes in parallel."""
    walltime: Walltime = "04:00:00"
    """Longest time of a worker, in any form that SLURM knows; it drains before its end and is replaced (SLURM)."""
    gpus_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one job, which runs so many of these workers, each with one of the GPUs; one if left out (SLURM)."""
    array_limit: Processes | None = None
    """The most jobs of one array that run at the same time; the others wait (SLURM)."""


class WorkerShape(WorkerPodOptions, SlurmJob, Worker):  # the keys of the last come first
    """Workers of one shape: their number, the resources of each, and what jobs and pods ask of SLURM and Kubernetes."""

    @property
    def workers_per_job(self) -> int:
        """Worker processes of one job of SLURM."""
        return self.gpus_per_node or 1

    @model_validator(mode="after")
    def _gpus_of_a_node(self) -> WorkerShape:
        """Workers that share the GPUs of a node have one each; the file need not say so again."""
        if self.gpus_per_node is not None and "gpus" not in self.model_fields_set:
            object.__setattr__(self, "gpus", 1)
        if self.gpus_per_node is not None and not self.gpus:
            raise ValueError(
                f"gpus_per_node is {self.gpus_per_node}, but gpus is 0: such workers have a GPU each; leave one of "
                "the two keys out"
            )
        return self


class DriverProcess(Table):
    """The resources of the driver."""

    cpus: Cores = 1
    """CPU cores."""
    memory_gb: Memory = 4.0
    """Memory in GB."""
    walltime: Walltime = "2-00:00:00"
    """Longest time of the driver; before its end it stops, is queued again and continues (SLURM)."""
    restarts: Annotated[int, Field(ge=0, le=1000)] = 20
    """How often a driver that was killed is started again."""
    mail_user: Name | None = None
    """Address to which SLURM sends mail about the driver's job; no mail if left out (SLURM)."""
    mail_type: tuple[MailType, ...] = ("END", "FAIL")
    """Events of the driver's job about which SLURM sends mail, like REQUEUE or TIME_LIMIT_90 (SLURM)."""


class Driver(WorkerPodOptions, SlurmJob, DriverProcess):
    """The process that hands out the chunks and writes the ledger; it runs as a job itself."""


class Prices(Table):
    """Prices of an hour, in any currency; `petaseg status` computes the run's cost from them."""

    cpu_hour: Amount = 0.0
    """Price of one CPU core for an hour."""
    gpu_hour: Amount = 0.0
    """Price of one GPU for an hour."""
    currency: Line = ""
    """Printed behind the figures, like EUR."""


class Places(Table):
    """The places of a cluster that driver and workers share."""

    kind: Annotated[str, KeyOf("pipeline.clusters:CLUSTERS")] | None = None
    """Kind of cluster that `petaseg submit` uses without --on."""
    interface: Name | None = None
    """Network interface between nodes, like ib0 (SLURM)."""
    ports: Ports | None = None
    """Ports on which driver and workers listen, like 40000-40100, for firewalls; any if left out (SLURM)."""
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
    kubernetes: KubernetesTable = KubernetesTable()


class ClusterTable(SlurmJob, Places):
    """Where `petaseg submit` runs the driver and its workers; nothing here changes a byte of the result."""

    driver: Driver = Driver()
    workers: WorkerShape = WorkerShape()
    inference_workers: WorkerShape | None = None
    """Workers that run only the network; if left out, all workers run every stage."""
    prices: Prices = Prices()
