"""Executors that run chunks (a loop, threads, Dask), and the runner that connects stage, ledger and executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    def uses(self, setting: str) -> bool:
        """True if a setting of ``execution`` that only some engines have has an effect."""
        return self.in_processes if setting == "timeout_seconds" else setting in self.takes

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


def executor_of(settings: Execution) -> Executor:
    """The executor that a run file names, with the settings that it takes."""
    return make_executor(
        settings.executor, **{name: getattr(settings, name) for name in engine_of(settings.executor).takes}
    )
