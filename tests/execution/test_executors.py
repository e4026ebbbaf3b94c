"""Every executor keeps the contract; the registry finds them by name."""

import subprocess
import sys

import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import ConfigError
from pipeline.execution import EXECUTORS, engine_of, executor_of, make_executor
from pipeline.execution.dask import DaskExecutor
from pipeline.execution.serial import SerialExecutor
from pipeline.execution.threads import ThreadExecutor
from tests.contracts.executor import ExecutorContract


class TestSerial(ExecutorContract):
    @classmethod
    def make(cls) -> SerialExecutor:
        return SerialExecutor()


class TestThreads(ExecutorContract):
    @classmethod
    def make(cls) -> ThreadExecutor:
        return ThreadExecutor(workers=3)


class TestDask(ExecutorContract):
    @classmethod
    def make(cls) -> DaskExecutor:
        return DaskExecutor(workers=2)


def test_executors_are_made_by_name() -> None:
    """Each name in the registry gives its executor, and every executor has its contract tests in this file."""
    made = {name: type(make_executor(name)) for name in EXECUTORS}
    assert made == {"serial": SerialExecutor, "threads": ThreadExecutor, "dask": DaskExecutor}


@pytest.mark.parametrize(("name", "slots", "of_process"), [("serial", 1, 1), ("threads", 3, 3), ("dask", 6, 2)])
def test_a_row_says_how_many_chunks_run_at_a_time(name: str, slots: int, of_process: int) -> None:
    """Of workers and their threads, a row counts those that its executor takes."""
    settings = Execution(executor=name, workers=3, threads_per_worker=2)
    assert (engine_of(name).slots(settings), engine_of(name).slots_of_process(settings)) == (slots, of_process)


def test_an_executor_gets_the_settings_that_its_row_names() -> None:
    settings = Execution(executor="dask", workers=3, threads_per_worker=2, dashboard="127.0.0.1:8787")
    executor = executor_of(settings)
    assert isinstance(executor, DaskExecutor)
    assert (executor.workers, executor.threads_per_worker, executor.scheduler, executor.dashboard) == (
        3,
        2,
        None,
        "127.0.0.1:8787",
    )


def test_an_unknown_executor_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"execution\.executor is 'slurm'; there are serial, threads, dask"):
        make_executor("slurm")


@pytest.mark.parametrize("name", ["threads", "dask"])
def test_no_workers_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="workers is 0"):
        make_executor(name, workers=0)


def test_dask_is_loaded_only_when_asked_for() -> None:
    """Importing the runner and making a thread executor do not load distributed, which takes seconds."""
    code = (
        "import sys; from pipeline.execution import make_executor; import pipeline.execution.runner;"
        "make_executor('threads'); sys.exit('distributed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
