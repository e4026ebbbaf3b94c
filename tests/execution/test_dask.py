"""Every item has its outcome, even if Dask workers die, hang, or are not there."""

import io
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from distributed import LocalCluster

from pipeline.errors import ConfigError, StageFailed
from pipeline.execution import dask as under_test
from pipeline.execution.base import Outcome
from pipeline.execution.dask import DaskExecutor, run_batch
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.needs import Needs
from pipeline.stages.within import listening_within, within
from tests.contracts.executor import NEEDS, square

BAD = 17
IN_THREADS = {
    "n_workers": 1,
    "threads_per_worker": 2,
    "processes": False,
    "protocol": "tcp",
    "dashboard_address": "127.0.0.1:0",
}
"""A cluster with these options starts at once."""
SCHEDULER = f"""
import time
import urllib.request
from distributed import LocalCluster
cluster = LocalCluster(**{IN_THREADS})
print(cluster.scheduler_address, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[DaskExecutor]:
    executor = DaskExecutor(workers=2)
    yield executor
    executor.close()


def kill_worker_once(mark: Path, item: int) -> int:
    """The function kills its process on one item, the first time only."""
    if item == BAD and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item)


def kill_worker_always(item: int) -> int:
    """The function kills its process on one item, every time."""
    if item == BAD:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item)


def hang(item: int) -> int:
    """The function never ends on one item."""
    while item == BAD:
        time.sleep(0.05)
    return square(item)


def slow_after_ten(item: int) -> int:
    time.sleep(0.05 if item > 10 else 0.0)
    return item


def unpicklable(item: int) -> object:
    """A result that cannot travel, for one item."""
    return (part for part in ()) if item == BAD else square(item)


def split(outcomes: Iterable[Outcome[int, int]]) -> tuple[dict[int, int | None], dict[int, str]]:
    """Results and errors by item; no item twice."""
    found = list(outcomes)
    assert len({o.item for o in found}) == len(found)
    return {o.item: o.result for o in found if o.error is None}, {o.item: o.error for o in found if o.error}


SQUARES = {item: item**2 for item in range(60)}
OTHERS = {item: value for item, value in SQUARES.items() if item != BAD}


@pytest.mark.parametrize("window", [None, 4])
def test_a_worker_that_dies_once_costs_nothing_but_time(
    executor: DaskExecutor, tmp_path: Path, window: int | None
) -> None:
    """All items have their results although one of them killed its worker the first time."""
    function = partial(kill_worker_once, tmp_path / "killed")
    results, errors = split(executor.map_unordered(function, range(60), needs=NEEDS, max_in_flight=window))
    assert (results, errors) == (SQUARES, {})
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("window", [None, 4])
def test_an_item_that_always_kills_its_worker_is_the_only_one_that_fails(
    executor: DaskExecutor, window: int | None
) -> None:
    """Only the item that kills its worker fails, and not others of its batch or of the worker's queue."""
    results, errors = split(executor.map_unordered(kill_worker_always, range(60), needs=NEEDS, max_in_flight=window))
    assert results == OTHERS
    assert list(errors) == [BAD]
    assert "worker died" in errors[BAD]


@pytest.mark.parametrize("window", [None, 4])
def test_a_hanging_item_fails_after_its_time_and_the_rest_goes_on(executor: DaskExecutor, window: int | None) -> None:
    """An item that hangs fails after its time limit, the others succeed, and its worker is replaced."""
    needs = Needs(timeout_seconds=2.0)
    results, errors = split(executor.map_unordered(hang, range(60), needs=needs, max_in_flight=window))
    assert results == OTHERS
    assert list(errors) == [BAD]
    assert "no result after 2 seconds" in errors[BAD]
    executor.client.wait_for_workers(2, timeout=200)  # the stuck one has a successor


def test_a_result_that_cannot_travel_fails_alone(executor: DaskExecutor) -> None:
    """An item whose result cannot be pickled fails alone, and the rest of its batch succeeds."""
    results, errors = split(executor.map_unordered(unpicklable, range(60), needs=NEEDS))
    assert results == OTHERS
    assert "pickle" in errors[BAD]


def test_a_batch_ends_in_time_and_gives_the_rest_back() -> None:
    """A batch ends after BATCH_SECONDS and gives back the items that it has not begun."""
    outcomes, took, stuck = run_batch(slow_after_ten, range(32), None)
    assert [o.item for o in outcomes] == list(range(len(outcomes)))
    assert 11 < len(outcomes) < 32
    assert took > under_test.BATCH_SECONDS
    assert not stuck


def test_items_that_a_batch_gave_back_are_not_lost(executor: DaskExecutor) -> None:
    """Every item that a slow batch gave back has exactly one result."""
    results, errors = split(executor.map_unordered(slow_after_ten, range(60), needs=NEEDS))
    assert (results, errors) == ({item: item for item in range(60)}, {})


def test_no_scheduler_at_an_address_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no scheduler answers, a ConfigError names the address and the setting to change."""
    monkeypatch.setattr(under_test, "CONNECT_SECONDS", 1)
    executor = DaskExecutor(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 .*execution\.scheduler"):
        list(executor.map_unordered(square, range(3), needs=NEEDS))
    executor.close()


@pytest.mark.parametrize("address", ["", "localhost", "tcp://localhost", "no scheme://here:8786"])
def test_what_is_no_address_is_said_too(address: str) -> None:
    """A malformed address raises the same ConfigError as an address without a scheduler."""
    executor = DaskExecutor(scheduler=address)
    with pytest.raises(ConfigError, match="no Dask scheduler answers at"):
        list(executor.map_unordered(square, range(3), needs=NEEDS))
    executor.close()


def test_an_existing_cluster_is_used_and_left_running() -> None:
    """An existing cluster serves one executor after the other and goes on running when they close."""
    with LocalCluster(**IN_THREADS) as cluster:
        for _ in range(2):
            executor = DaskExecutor(workers=7, scheduler=cluster.scheduler_address)
            results, errors = split(executor.map_unordered(square, range(60), needs=NEEDS))
            assert (results, errors) == (SQUARES, {})
            executor.close()
        assert len(cluster.scheduler.workers) == 1


@pytest.mark.parametrize("window", [None, 4])
def test_a_scheduler_that_dies_ends_the_run_with_a_message(window: int | None) -> None:
    """When the scheduler dies, the run ends with a StageFailed that says how to continue, and no chunk fails."""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", SCHEDULER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        executor = DaskExecutor(scheduler=process.stdout.readline().strip())
        outcomes = executor.map_unordered(slow_after_ten, range(1000), needs=NEEDS, max_in_flight=window)
        try:
            assert next(outcomes).ok
        finally:
            process.kill()
        with pytest.raises(StageFailed, match=r"connection to the Dask scheduler tcp.* give the same command again"):
            assert all(outcome.ok for outcome in outcomes)
        executor.close()


@pytest.mark.parametrize("taken_out", [False, True])
def test_workers_whose_nannies_gave_up_are_replaced(taken_out: bool) -> None:
    """Workers are replaced after their nannies have closed, also if Dask took these out of its cluster."""
    executor = DaskExecutor(workers=2)
    try:
        assert all_of(executor, 4) == [0, 1, 4, 9]
        cluster = executor._workers.cluster
        for name, nanny in list(cluster.workers.items()):
            cluster.sync(nanny.close)
            if taken_out:
                del cluster.workers[name]
        assert all_of(executor, 6) == [0, 1, 4, 9, 16, 25]
        end = time.monotonic() + 200
        while len(cluster.workers) < 2:  # the second one may still be on its way
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        executor.close()


def half_a_second_a_part(item: int) -> int:
    """A chunk of six parts, as a stage with a network has patches."""
    chunk = next(iter(ChunkGrid(BOX, BOX, BOX.shape)))
    for done in range(1, 7):
        time.sleep(0.5)
        within("predict_heads", chunk, done, 6)
    return item


BOX = BoundingBox.from_shape((8, 8, 8))


def test_a_driver_hears_how_far_the_chunks_of_its_workers_are(executor: DaskExecutor) -> None:
    """Parts of a chunk in a worker process reach who listens in the driver, about once a second."""
    heard: list[tuple[str, str, int, int]] = []
    with listening_within(lambda stage, chunk, done, total: heard.append((stage, chunk.name, done, total))):
        results, errors = split(executor.map_unordered(half_a_second_a_part, [3], needs=NEEDS))
    assert (results, errors) == ({3: 3}, {})
    assert 1 <= len(heard) <= 4
    assert {(stage, name, total) for stage, name, _, total in heard} == {("predict_heads", "0_0_0", 6)}
    assert [done for _, _, done, _ in heard] == sorted({done for _, _, done, _ in heard})


def test_nothing_is_printed_of_the_connections_to_ended_workers() -> None:
    """After the workers are ended at once, Dask's tracebacks of broken connections reach no terminal, then or later."""
    logger, printed = logging.getLogger("distributed"), io.StringIO()
    handler = logging.StreamHandler(printed)
    filters = {other: list(other.filters) for other in logger.handlers}
    logger.addHandler(handler)
    try:
        executor = DaskExecutor(workers=1)
        assert all_of(executor, 1) == [0]
        logger.critical("before")
        executor._workers.kill()
        executor.close()
        logging.getLogger("distributed.batched").critical("after")
    finally:
        logger.removeHandler(handler)
        for other, before in filters.items():
            other.filters[:] = before
    assert printed.getvalue() == "before\n"


def all_of(executor: DaskExecutor, count: int) -> list[int | None]:
    return sorted(outcome.result for outcome in executor.map_unordered(square, range(count), needs=NEEDS))


def test_a_cluster_that_does_not_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, object]] = []

    def start(**options: object) -> LocalCluster:
        started.append(options)
        if len(started) < 3:
            raise RuntimeError("Nanny failed to start.")
        return LocalCluster(**options)

    monkeypatch.setattr("pipeline.execution.local_cluster.LocalCluster", start)
    executor = DaskExecutor(workers=1)
    try:
        assert all_of(executor, 3) == [0, 1, 4]
    finally:
        executor.close()
    assert len(started) == 3


def test_the_dashboard_is_there_when_it_is_asked_for_and_only_here() -> None:
    """The dashboard answers at its printed address, shows the workers, and listens on this machine alone."""
    executor = DaskExecutor(workers=1, dashboard="127.0.0.1:0")
    try:
        link = urlsplit(executor.dashboard_link)
        with urllib.request.urlopen(link.geturl(), timeout=30) as page:
            assert page.status == 200
        with urllib.request.urlopen(f"http://{link.netloc}/info/main/workers.html", timeout=30) as page:
            assert "tcp://127.0.0.1" in page.read().decode()
        with urllib.request.urlopen(f"http://{link.netloc}/status", timeout=30) as page:
            assert "bokeh" in page.read().decode().lower()  # the graphs, and not only the plain pages
        assert link.hostname == "127.0.0.1"
        listening = {c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening <= {"127.0.0.1", "::1"}
    finally:
        executor.close()
