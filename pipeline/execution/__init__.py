"""Executors that run chunks (a loop, threads, Dask), and the runner that connects stage, ledger and executor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.registry import find, load

if TYPE_CHECKING:
    from pipeline.config.run_file import Execution
    from pipeline.execution.base import Executor


@dataclass(frozen=True)
class Engine:
    """The row of an executor."""

    path: str
    """``module:class`` of an ``Executor``; loaded when it is asked for."""
    takes: tuple[str, ...] = ()
    """Settings of ``execution`` that are arguments of the class, by the same names.

    With ``workers`` and ``threads_per_worker`` it runs so many chunks at a time, without them one. A class that takes
    ``dashboard`` has a ``dashboard_link``.
    """
    in_processes: bool = False
    """True if each worker is a process; otherwise all chunks run in the driver's."""

    def slots(self, settings: Execution) -> int:
        """How many chunks run at a time."""
        workers = settings.workers if "workers" in self.takes else 1
        return workers * (settings.threads_per_worker if "threads_per_worker" in self.takes else 1)

    def slots_of_process(self, settings: Execution) -> int:
        """How many of them share one process."""
        return self.slots(settings) // (settings.workers if self.in_processes else 1)


EXECUTORS = {
    "serial": Engine("pipeline.execution.serial:SerialExecutor"),
    "threads": Engine("pipeline.execution.threads:ThreadExecutor", takes=("workers",)),
    "dask": Engine(
        "pipeline.execution.dask:DaskExecutor",
        takes=("workers", "threads_per_worker", "scheduler", "dashboard"),
        in_processes=True,
    ),
}
"""Executors by name."""


def engine_of(name: str) -> Engine:
    """The row of an executor; ``ConfigError`` if there is none of this name."""
    return find(EXECUTORS, name, "execution.executor is")


def make_executor(name: str, **options: Any) -> Executor:
    """An executor by name; ``ConfigError`` if there is none of this name."""
    executor: Executor = load(engine_of(name).path)(**options)
    return executor


ON_CLUSTERS = ("dashboard", "timeout_seconds")
"""Settings that the workers of a cluster use too, whatever the executor is."""


def check_settings(settings: Execution, cluster: str | None) -> None:
    """Raise ``ConfigError`` if a setting was given that nothing would use.

    cluster: the cluster whose workers process the chunks, if there is one; the executor is not used then.
    """
    for name in sorted({"timeout_seconds"}.union(*(row.takes for row in EXECUTORS.values())) - {"workers"}):
        if getattr(settings, name) == type(settings).model_fields[name].default:
            continue
        used = name in ON_CLUSTERS if cluster else _takes(engine_of(settings.executor), name)
        if not used:
            raise ConfigError(_unused(settings, name, cluster))


def _takes(engine: Engine, name: str) -> bool:
    return engine.in_processes if name == "timeout_seconds" else name in engine.takes


def _unused(settings: Execution, name: str, cluster: str | None) -> str:
    said = f"execution.{name} is {getattr(settings, name)}"
    if cluster:
        return f"{said}; on {cluster} the driver starts its own workers, as cluster.workers says: leave {name} out"
    able = " or ".join(f"executor: {other}" for other, row in EXECUTORS.items() if _takes(row, name))
    return (
        f"{said}, which executor: {settings.executor} does not use; set {able}, or leave {name} out "
        f"(--set execution.{name}={json.dumps(type(settings).model_fields[name].default)})"
    )


def executor_of(settings: Execution) -> Executor:
    """The executor that a run file names, with the settings that it takes."""
    return make_executor(
        settings.executor, **{name: getattr(settings, name) for name in engine_of(settings.executor).takes}
    )
