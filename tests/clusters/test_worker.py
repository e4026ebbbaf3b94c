"""Workers that end before their walltime lose no chunk, compute none twice, and their chunks are not blamed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from pipeline.execution.dask import SETTINGS, DaskExecutor
from pipeline.needs import Needs

HANGS_ON = "first"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def scheduler() -> Iterator[str]:
    """A scheduler without workers, which blames a chunk for the first worker that dies on it."""
    with (
        dask.config.set(SETTINGS),
        LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster,
    ):
        yield cluster.scheduler_address


@contextmanager
def worker(address: str, name: str, **variables: object) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with its nanny, in a process session of its own as in a SLURM job."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    command += ["--worker-class", "pipeline.clusters.worker.DrainingWorker", "--dashboard-address", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "PETASEG_NODE": name}
    environment |= {f"DASK_PETASEG__{key}": str(value) for key, value in variables.items()}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def note(folder: Path, item: int) -> str:
    """Take a moment, and leave a mark for each call."""
    time.sleep(0.3)
    with open(folder / str(item), "a") as file:
        file.write("x")
    return os.environ["PETASEG_NODE"]


def hang_on_the_first(folder: Path) -> str:
    """Hang for ever on the first worker, return at once on others."""
    node = os.environ["PETASEG_NODE"]
    (folder / node).touch()
    while node == HANGS_ON:
        time.sleep(0.1)
    return node


def test_a_worker_near_its_walltime_finishes_its_chunk_and_takes_no_more(scheduler: str, tmp_path: Path) -> None:
    """A worker near its walltime ends its chunk and leaves; another computes the rest, each chunk once."""
    with worker(scheduler, "first", JOB_END=time.time() + 12, DRAIN_SECONDS=6) as first:
        second = threading.Thread(target=replace, args=(first, scheduler))
        second.start()
        executor = DaskExecutor(scheduler=scheduler)
        outcomes = list(executor.map_unordered(partial(note, tmp_path), range(24), needs=Needs()))
        executor.close()
        second.join()
    assert sorted(outcome.item for outcome in outcomes) == list(range(24))
    assert {outcome.error for outcome in outcomes} == {None}
    assert {outcome.result for outcome in outcomes} == {"first", "second"}
    assert {file.read_text() for file in tmp_path.iterdir()} == {"x"}


def replace(first: subprocess.Popen[bytes], scheduler: str) -> None:
    """Start another worker when the first has left by itself, and end it when it is idle for good."""
    first.wait()
    with worker(scheduler, "second"), Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=200)
        wait_until_idle(client)


def wait_until_idle(client: Client) -> None:
    quiet = 0
    while quiet < 10:
        time.sleep(0.2)
        quiet = 0 if any(client.processing().values()) else quiet + 1


@pytest.mark.parametrize("end", ["walltime", "TERM"])
def test_a_chunk_that_does_not_end_in_time_is_given_back_and_not_blamed(
    scheduler: str, tmp_path: Path, end: str
) -> None:
    """A chunk in hand when its worker must end is computed by another worker, and no failure is counted against it."""
    variables = {"JOB_END": time.time() + 8, "DRAIN_SECONDS": 4} if end == "walltime" else {}
    with worker(scheduler, HANGS_ON, **variables) as first, Client(scheduler, set_as_default=False) as client:
        future = client.submit(hang_on_the_first, tmp_path, retries=0)
        while not (tmp_path / HANGS_ON).exists() and first.poll() is None:
            time.sleep(0.05)
        with worker(scheduler, "second"):
            if end == "TERM":  # as SLURM does: TERM goes to every process of the job
                os.killpg(first.pid, signal.SIGTERM)
            assert future.result(timeout=120) == "second"
        first.wait(timeout=120)
