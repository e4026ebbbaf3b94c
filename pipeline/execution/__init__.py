"""Executors that run chunks (a loop, threads, Dask), and the runner that connects stage, ledger and executor."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.errors import ConfigError
from pipeline.execution.base import Executor

EXECUTORS = {
    "serial": "pipeline.execution.serial:SerialExecutor",
    "threads": "pipeline.execution.threads:ThreadExecutor",
    "dask": "pipeline.execution.dask:DaskExecutor",
}
"""Executor -> "module:class", loaded when needed."""


def make_executor(name: str, **options: Any) -> Executor:
    """An executor by name; ``ConfigError`` if there is none of this name."""
    if name not in EXECUTORS:
        raise ConfigError(f"executor is {name!r}; there are {', '.join(EXECUTORS)}")
    module, _, attribute = EXECUTORS[name].partition(":")
    executor: Executor = getattr(import_module(module), attribute)(**options)
    return executor
