"""Workers as jobs of a real SLURM: they start, are replaced when lost, drain, and end."""

import re
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask
import pytest

from pipeline.clusters.base import Submission
from pipeline.clusters.slurm import arrays, names
from pipeline.clusters.slurm import pool as slurm_pool
from pipeline.clusters.slurm.cluster import SlurmCluster
from pipeline.clusters.slurm.pool import SlurmPool
from pipeline.clusters.tls import Tls, create_tls
from pipeline.config.reading import parse_config
from pipeline.errors import ClusterError, ConfigError
from pipeline.execution.base import Outcome
from pipeline.execution.dask import DaskExecutor, configure_dask
from pipeline.execution.pools import ClusterExecutor
from pipeline.needs import Needs
from tests.contracts.worker_pool import WorkerPoolContract
from tests.deploy.slurm import CPU_NODES, ROOT, Slurm, command, wait_until, where

pytestmark = pytest.mark.timeout(500)
SHAPE = {"memory_gb": 0.5, "count": 2}
NEEDS = Needs(items=2)


def submission(folder: Path, setup: str = "", **cluster: object) -> Submission:
    data = {
        "run_directory": str(folder),
        "input": {"affinities": "a.zarr"},
        "cluster": {"interface": "lo", "workers": SHAPE, **cluster},
    }
    return Submission(str(folder), parse_config(data), setup=setup)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tls:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the workers call functions of the tests
    tls = create_tls(tmp_path / "run" / "cluster" / "tls")
    configure_dask(tls.settings())
    return tls


@pytest.fixture
def pool(slurm: Slurm, tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmPool]:
    monkeypatch.setattr(slurm_pool, "LOOK_SECONDS", 1)
    given = submission(tmp_path / "run")
    pool = SlurmCluster().pool("general", given.config.cluster.workers, given, tls)
    yield pool
    pool.close()
    assert not slurm.jobs("-t", "PD,R")


@pytest.fixture
def executor(pool: SlurmPool) -> Iterator[DaskExecutor]:
    executor = DaskExecutor(scheduler=pool.address)
    yield executor
    executor.close()


class SlurmWorkplace:
    """Workers as running jobs, by their numbers."""

    node = "node3"

    def __init__(self, pool: SlurmPool, slurm: Slurm) -> None:
        self.pool, self._slurm = pool, slurm

    def workers(self) -> set[str]:
        return set(self._slurm.jobs("-t", "R"))

    def lose(self, worker: str) -> None:
        command("scancel", worker)


class TestSlurmPool(WorkerPoolContract):
    @pytest.fixture
    def workplace(
        self, slurm: Slurm, tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SlurmWorkplace]:
        monkeypatch.setattr(slurm_pool, "LOOK_SECONDS", 1)
        given = submission(tmp_path / "run")
        workplace = SlurmWorkplace(SlurmCluster().pool("general", given.config.cluster.workers, given, tls), slurm)
        yield workplace
        workplace.pool.close()


def nodes(outcomes: list[Outcome[int, str]]) -> set[str | None]:
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    return {outcome.result for outcome in outcomes}


def test_workers_are_jobs_that_talk_in_cipher(
    slurm: Slurm, pool: SlurmPool, executor: DaskExecutor, tmp_path: Path, tls: Tls
) -> None:
    """Workers run as jobs on the CPU nodes; their scheduler talks TLS and refuses a client without a certificate."""
    pool.scale(2)
    found = nodes(list(executor.map_unordered(partial(where, tmp_path), range(12), needs=NEEDS)))
    assert found <= CPU_NODES
    assert pool.address.startswith("tls://127.0.0.1:")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tls.key, tls.certificate, tls.ca)} == {0o600}
    stranger = f"from distributed import Client; Client('{pool.address.replace('tls', 'tcp')}', timeout=2)"
    assert subprocess.run([sys.executable, "-c", stranger], capture_output=True).returncode != 0
    jobs = slurm.jobs("-t", "R")
    assert {name for name, _, _ in jobs.values()} == {names.job_name(str(tmp_path / "run"), "general")}
    script = command("scontrol", "write", "batch_script", next(iter(jobs)), "-")
    assert pool.address in script
    log = names.worker_log(str(tmp_path / "run"), "general", next(iter(jobs)))
    assert "Registered to" in log.read_text()


def test_each_pool_shows_a_dashboard_on_this_node_where_it_is_asked_for(
    slurm: Slurm, tmp_path: Path, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``execution.dashboard`` set, a pool serves its dashboard on 127.0.0.1 and logs the link."""
    given = submission(tmp_path / "run")
    config = parse_config({**given.config.model_dump(mode="json"), "execution": {"dashboard": "127.0.0.1:0"}})
    caplog.set_level("INFO", "petaseg.clusters")
    pool = SlurmCluster().pool("general", given.config.cluster.workers, replace(given, config=config), tls)
    try:
        link = re.search(r"of the general workers: (http://127\.0\.0\.1:\d+/status)", caplog.text)[1]
        with urllib.request.urlopen(link, timeout=30) as page:
            assert "bokeh" in page.read().decode().lower()
    finally:
        pool.close()


def test_scaling_to_nothing_ends_the_jobs_and_the_pool_can_be_used_again(
    slurm: Slurm, pool: SlurmPool, executor: DaskExecutor, tmp_path: Path
) -> None:
    """Scaling to 0 ends all jobs of the pool, and scaling up again starts new ones."""
    for wanted in (2, 1):
        pool.scale(wanted)
        assert nodes(list(executor.map_unordered(partial(where, tmp_path), range(4), needs=NEEDS))) <= CPU_NODES
        wait_until(lambda: len(slurm.jobs("-t", "R")) == wanted, f"{wanted} jobs")
        pool.scale(0)
        wait_until(lambda: not slurm.jobs("-t", "PD,R"), "no job is left")


def test_a_lost_node_loses_no_chunk_and_its_worker_is_replaced(
    slurm: Slurm, pool: SlurmPool, executor: DaskExecutor, tmp_path: Path
) -> None:
    """When a node is lost, every item still has its outcome, and new jobs replace the workers of that node."""
    pool.scale(4)  # two a node
    outcomes = executor.map_unordered(partial(where, tmp_path), range(40), needs=NEEDS)
    wait_until(lambda: len(slurm.jobs("-t", "R")) == 4, "four jobs")
    executor.client.wait_for_workers(4, timeout=200)
    first = [next(outcomes) for _ in range(4)]
    before = set(slurm.jobs())
    slurm.kill_node("node4")
    try:
        assert nodes([*first, *outcomes]) <= CPU_NODES
        wait_until(lambda: len(set(slurm.jobs("-t", "PD,R")) - before) == 2, "two jobs replace those of the node")
    finally:
        slurm.start_node("node4")
    wait_until(lambda: len(executor.client.nthreads()) == 4, "four workers")


def test_a_job_that_never_became_a_worker_is_replaced(slurm: Slurm, pool: SlurmPool, executor: DaskExecutor) -> None:
    """A job that is cancelled while it waits in the queue is replaced by another."""
    command("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        pool.scale(2)
        wait_until(lambda: len(slurm.jobs("-t", "PD")) == 2, "two jobs wait")
        cancelled = set(slurm.jobs("-t", "PD"))
        for job in cancelled:
            command("scancel", job)
    finally:
        command("scontrol", "update", "PartitionName=cpu", "State=UP")
    executor.client.wait_for_workers(2, timeout=200)
    running = set(slurm.jobs("-t", "R"))
    assert len(running) == 2
    assert not running & cancelled


def test_a_node_that_is_avoided_gets_no_more_workers(
    slurm: Slurm, pool: SlurmPool, executor: DaskExecutor, tmp_path: Path
) -> None:
    """No worker is started on a node that the pool avoids."""
    pool.avoid("node3")
    pool.scale(2)
    outcomes = list(executor.map_unordered(partial(where, tmp_path), range(8), needs=NEEDS))
    assert nodes(outcomes) == {"node4"}


def test_jobs_of_a_driver_that_died_are_ended_by_the_next_one(
    slurm: Slurm, pool: SlurmPool, tmp_path: Path, tls: Tls
) -> None:
    """A new pool of the same run ends the jobs that a dead driver left in the queue."""
    command("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        pool.scale(1)
        wait_until(lambda: slurm.jobs("-t", "PD"), "a job waits")
        left = set(slurm.jobs())
        given = submission(tmp_path / "run")
        heir = SlurmCluster().pool("general", given.config.cluster.workers, given, tls)
        assert not left & set(slurm.jobs("-t", "PD,R"))
        heir.close()
    finally:
        command("scontrol", "update", "PartitionName=cpu", "State=UP")


def test_jobs_that_fail_everywhere_fail_the_run_with_the_way_to_the_reason(
    slurm: Slurm, tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every job fails early, the run fails with an error that names the log of a job."""
    monkeypatch.setattr(slurm_pool, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(slurm_pool, "HOPELESS", 4)
    given = submission(tmp_path / "run", setup="module load nothing-of-this-name\n")
    start = lambda name, shape: SlurmCluster().pool(name, shape, given, tls)  # noqa: E731
    executor = ClusterExecutor(start, {"general": given.config.cluster.workers})
    try:
        with (
            dask.config.set(
                {"distributed.comm.timeouts.connect": "2s"}
            ),  # how long the executor tries to reach the scheduler
            pytest.raises(
                ClusterError, match=r"no general worker comes: job [\d_]+ ended early; see .*worker-general-[\d_]+\.log"
            ),
        ):
            list(executor.map_unordered(partial(where, tmp_path), range(4), needs=NEEDS))
    finally:
        executor.close()
    assert not slurm.jobs("-t", "PD,R")


def test_a_refused_submission_is_tried_again(
    slurm: Slurm, pool: SlurmPool, executor: DaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission that SLURM refuses, as at a limit on jobs, is tried again until all workers have started."""
    submit, refusals = arrays.submit_script, iter(["SLURM refused: limit"] * 3)

    def sometimes(script: str) -> str:
        for words in refusals:
            raise ClusterError(words)
        return submit(script)

    monkeypatch.setattr(arrays, "submit_script", sometimes)
    pool.scale(2)
    executor.client.wait_for_workers(2, timeout=200)
    assert pool.problem == ""


def test_an_interface_that_is_not_there_is_named(slurm: Slurm, tmp_path: Path) -> None:
    """An unknown ``cluster.interface`` is an error that names it and lists the interfaces of the node."""
    given = submission(tmp_path / "run", interface="ib7")
    with pytest.raises(ConfigError, match=r"cluster.interface 'ib7': 'ib7' is not a valid network interface.*'lo'"):
        SlurmCluster().pool("general", given.config.cluster.workers, given, None)
