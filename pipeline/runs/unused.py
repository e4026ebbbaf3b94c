"""The keys of a run file that another key, the input or the machine makes useless, in one table.

``pipeline/runs/changes.py`` says which stages a key changes where it has an effect; ``tests/runs/test_unused.py`` holds
the two tables together: a key has an effect, or is refused or named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import cluster_use
from pipeline.config.cluster import ClusterTable
from pipeline.config.run_file import SOURCES, RunConfig
from pipeline.config.unused import NoUse, Unused, refuse, unused
from pipeline.execution import EXECUTORS, Engine, engine_of
from pipeline.stages.predict_heads import options_of

if TYPE_CHECKING:
    from pipeline.runs.run import Run

OF_DASK = ("scheduler", "dashboard", "threads_per_worker", "timeout_seconds")
"""Settings of ``execution`` that only some engines have."""
NOT_ON_CLUSTERS = ("scheduler", "threads_per_worker")
"""Those of them that the workers of a cluster do not have."""


@dataclass(frozen=True)
class RunCase:
    """A run, and where it computes."""

    config: RunConfig
    device: str
    """The device of the network, cpu or cuda; an empty text if no network is run."""
    cluster: str | None = None
    """The cluster whose workers process the chunks; ``None`` for the table ``execution``."""

    @classmethod
    def of(cls, run: Run, cluster: str | None) -> RunCase:
        """The case of a run that is open."""
        network = run.inputs.network
        return cls(run.config, "" if network is None else options_of(network).resolved_device(), cluster)

    @property
    def table(self) -> ClusterTable:
        """Its table ``cluster``."""
        return self.config.cluster

    @property
    def engine(self) -> Engine:
        """The engine that the run file names."""
        return engine_of(self.config.execution.executor)


def _of_engines(name: str) -> NoUse[RunCase]:
    """A setting that only some engines take."""

    def why(case: RunCase) -> str:
        if case.cluster is not None:
            started = f"on {case.cluster}, where the driver starts its own workers as cluster.workers says"
            return started if name in NOT_ON_CLUSTERS else ""
        return "" if case.engine.uses(name) else f"with execution.executor: {case.config.execution.executor}"

    able = " or ".join(f"executor: {other}" for other, row in EXECUTORS.items() if row.uses(name))
    return NoUse((f"execution.{name}",), why, f"take {able} on this machine", refused=True)


def _one_at_a_time(case: RunCase) -> str:
    alone = case.cluster is None and not case.engine.uses("workers")
    return f"with execution.executor: {case.config.execution.executor}" if alone else ""


def _others_workers(case: RunCase) -> str:
    own = case.config.execution.scheduler is None or not case.engine.uses("scheduler")
    return "" if own or case.cluster is not None else "with execution.scheduler, whose workers are there already"


def _is_upright(case: RunCase) -> bool:
    return bool(case.device) and case.config.inference.augmentation == "none"


ROWS: tuple[NoUse[RunCase], ...] = (
    NoUse(
        ("supervoxels", "agglomeration"),
        lambda case: "" if _kind(case) == "neurons" else f"with segmentation.kind: {_kind(case)}",
        "keep it for segmentation.kind: neurons",
    ),
    NoUse(
        ("agglomeration.quantile",),
        lambda case: f"with agglomeration.linkage: {_linkage(case)}" if _linkage(case) != "quantile" else "",
        "set agglomeration.linkage: quantile",
        refused=True,
    ),
    NoUse(
        ("supervoxels.border_level",),
        lambda case: f"with supervoxels.borders: {_borders(case)}" if _borders(case) != "evidence" else "",
        "set supervoxels.borders: evidence",
        refused=True,
    ),
    NoUse(
        ("input.affinity_offsets",),
        lambda case: "" if "affinities" in case.config.input.given else f"with input.{_input(case)}",
        "give affinities instead (input.affinities)",
        refused=True,
    ),
    NoUse(
        ("inference.augmentation_rule",),
        lambda case: "with inference.augmentation: none" if _is_upright(case) else "",
        "set inference.augmentation: flips",
        refused=True,
    ),
    NoUse(
        ("segmentation.min_size_threshold",),
        lambda case: f"with segmentation.min_size: {_min_size(case)}" if _min_size(case) < 2 else "",
        "set segmentation.min_size",
        refused=True,
    ),
    *map(_of_engines, OF_DASK),
    NoUse(
        ("inference", "cluster.inference_workers"),
        lambda case: "" if case.device else f"with input.{_input(case)}, since no network is run",
        "keep what you need with input.image",
    ),
    NoUse(
        ("inference.batch_size",),
        lambda case: "on a CPU, which runs patch by patch" if case.device == "cpu" else "",
        "keep it for a GPU",
    ),
    NoUse(
        ("inference.gpu",),
        lambda case: "with inference.device: cpu" if case.device == "cpu" else "",
        "set inference.device: cuda",
    ),
    NoUse(
        ("inference.threads",),
        lambda case: "on a GPU" if case.device == "cuda" else "",
        "keep it for a CPU",
    ),
    NoUse(("cluster.driver.gpu_resource",), lambda case: "by a run, whose driver has no GPU", "keep it for trainings"),
    NoUse(
        ("execution.executor", "execution.workers"),
        lambda case: f"on {case.cluster}, where cluster.workers says it" if case.cluster else "",
        "keep what you need for this machine",
    ),
    NoUse(("execution.workers", "execution.max_in_flight"), _one_at_a_time, "set execution.executor: threads or dask"),
    NoUse(
        ("execution.workers", "execution.threads_per_worker", "execution.dashboard"),
        _others_workers,
        "leave execution.scheduler out",
    ),
    NoUse(
        ("execution.backoff_seconds",),
        lambda case: "with execution.attempts: 1" if case.config.execution.attempts == 1 else "",
        "raise execution.attempts",
    ),
    *cluster_use.ROWS,
)
"""Keys -> what makes them useless; the first row that says why is the one that is told."""


def _input(case: RunCase) -> str:
    """The key that names the input; labels go before the image that accompanies them."""
    return next(name for name in reversed(SOURCES) if getattr(case.config.input, name))


def _kind(case: RunCase) -> str:
    return case.config.segmentation.kind


def _borders(case: RunCase) -> str:
    return case.config.supervoxels.borders


def _linkage(case: RunCase) -> str:
    return case.config.agglomeration.linkage


def _min_size(case: RunCase) -> int:
    return case.config.segmentation.min_size


def unused_keys(run: Run, cluster: str | None) -> list[Unused]:
    """What the user has set in vain, for the commands that name it.

    cluster: the cluster whose workers process the chunks, if there is one. Raises ``ConfigError`` for keys that
    contradict others.
    """
    case = RunCase.of(run, cluster)
    found = unused(case.config, case, ROWS)
    refuse(found)
    return found
