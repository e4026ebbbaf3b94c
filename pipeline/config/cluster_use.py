"""The keys of the table ``cluster`` that have no effect on some cluster, or beside other keys of it."""

from __future__ import annotations

import math
from typing import Protocol

from pipeline.config.cluster import ClusterTable, WorkerShape
from pipeline.config.kubernetes import WorkerPodOptions
from pipeline.config.slurm import SlurmJob
from pipeline.config.unused import NoUse

WORKERS = ("cluster.workers", "cluster.inference_workers")
PROCESSES = ("cluster.driver", *WORKERS)
ONLY_ON: dict[str, tuple[str, ...]] = {
    "slurm": (
        *("cluster.interface", "cluster.ports"),
        *("cluster.driver.walltime", "cluster.driver.mail_user", "cluster.driver.mail_type"),
        *(f"{table}.{key}" for table in WORKERS for key in ("walltime", "gpus_per_node", "array_limit")),
        *(f"{table}.{key}" for table in ("cluster", *PROCESSES) for key in SlurmJob.model_fields),
    ),
    "kubernetes": (
        *(f"cluster.{key}" for key in ("namespace", "image", "claim", "secrets", "image_pull_secret", "kubernetes")),
        *(f"{table}.{key}" for table in PROCESSES for key in WorkerPodOptions.model_fields),
    ),
}
"""Kind of cluster -> the keys that only this kind reads."""
PLACES = tuple(f"cluster.{key}" for key in ClusterTable.model_fields if key != "prices")
"""All keys of the table but the prices, which hold on every machine."""


class Placed(Protocol):
    """What computes somewhere: a run or a training."""

    @property
    def table(self) -> ClusterTable:
        """Its table ``cluster``."""
        ...

    @property
    def cluster(self) -> str | None:
        """The cluster on which it computes; ``None`` for this machine."""
        ...


def _of_another_kind(kind: str) -> NoUse[Placed]:
    def why(case: Placed) -> str:
        return f"on {case.cluster}, but on {kind}" if case.cluster not in (None, kind) else ""

    return NoUse(ONLY_ON[kind], why, f"keep what you need for --on {kind}")


def _shapes(case: Placed) -> dict[str, WorkerShape | None]:
    return {"workers": case.table.workers, "inference_workers": case.table.inference_workers}


def _without_gpu(name: str) -> NoUse[Placed]:
    def why(case: Placed) -> str:
        shape = _shapes(case)[name]
        return f"with cluster.{name}.gpus: 0" if shape is not None and not shape.gpus else ""

    return NoUse((f"cluster.{name}.gpu_resource",), why, f"set cluster.{name}.gpus: 1")


def _without_array(name: str) -> NoUse[Placed]:
    def why(case: Placed) -> str:
        shape = _shapes(case)[name]
        alone = shape is not None and math.ceil(shape.count / shape.workers_per_job) == 1
        return f"with cluster.{name}.count: {shape.count}, which is one job" if shape is not None and alone else ""

    return NoUse((f"cluster.{name}.array_limit",), why, f"raise cluster.{name}.count")


ROWS: tuple[NoUse[Placed], ...] = (
    NoUse(
        PLACES,
        lambda case: "" if case.cluster else "on this machine, but by `petaseg submit`",
        "keep what you need there",
    ),
    *map(_of_another_kind, ONLY_ON),
    NoUse(
        ("cluster.kind",),
        lambda case: f"with --on {case.cluster}" if case.cluster != case.table.kind else "",
        "leave --on out",
    ),
    NoUse(
        ("cluster.driver.mail_type",),
        lambda case: "" if case.table.driver.mail_user else "without cluster.driver.mail_user",
        "set cluster.driver.mail_user",
    ),
    *map(_without_gpu, ("workers", "inference_workers")),
    *map(_without_array, ("workers", "inference_workers")),
    NoUse(
        ("cluster.kubernetes.outside_ports",),
        lambda case: "" if case.table.kubernetes.network_policy else "with cluster.kubernetes.network_policy: false",
        "set cluster.kubernetes.network_policy: true",
    ),
    NoUse(
        ("cluster.prices.currency",),
        lambda case: "" if case.table.prices.cpu_hour or case.table.prices.gpu_hour else "without a price",
        "set cluster.prices.cpu_hour or gpu_hour",
    ),
)
"""The first row that says why is the one that is told."""
