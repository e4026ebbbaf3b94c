"""A real SLURM understands what a run file asks of it: keys, free texts, arrays, several GPUs a job, ports."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.clusters.base import DriverJob, Submission
from pipeline.clusters.slurm import names
from pipeline.clusters.slurm import pool as slurm_pool
from pipeline.clusters.slurm.cluster import SlurmCluster
from pipeline.clusters.slurm.pool import SlurmPool
from pipeline.clusters.tls import Tls, create_tls
from pipeline.config.base import is_line
from pipeline.config.reading import parse_config
from pipeline.errors import ClusterError
from pipeline.execution.dask import DaskExecutor, configure_dask
from pipeline.needs import Needs
from tests.clusters.test_hostile_texts import ATTACKS
from tests.deploy.slurm import ROOT, Slurm, command, gpu_and_address, wait_until

pytestmark = pytest.mark.timeout(500)
LATER = {"memory_gb": 0.2, "options": ["--begin=now+1hour"]}
NEEDS = Needs(items=4)


def submission(folder: Path, **cluster: object) -> Submission:
    small = {"interface": "lo", "driver": LATER, "workers": {"memory_gb": 0.2, "count": 4}}
    data = {"run_directory": str(folder), "input": {"affinities": "a.zarr"}, "cluster": {**small, **cluster}}
    return Submission(str(folder), parse_config(data))


def shown(job: DriverJob) -> dict[str, str]:
    """What SLURM knows about a job; each field is a line, so that blanks in values do no harm."""
    lines = command("scontrol", "show", "job", job.id).splitlines()
    fields = (line.strip().partition("=")[::2] for line in lines)
    return {name: value for name, value in fields} | dict(
        part.partition("=")[::2] for line in lines for part in line.split() if "=" in part and "Comment" not in line
    )


def test_slurm_knows_every_key_of_a_driver(slurm: Slurm, tmp_path: Path) -> None:
    """Each key of the run file stands in SLURM's own description of the job."""
    command("scontrol", "create", "reservation=course", "StartTime=now", "Duration=60", "Users=root", "Nodes=node1")
    try:
        driver = {
            **{**LATER, "queue": "gpu", "constraint": "fake&gpu", "reservation": "course", "nodelist": "node1"},
            **{"exclude": "node2", "licenses": "matlab:2", "tmp_gb": 2.0, "comment": "mouse 7: it's # 1"},
            **{"mail_user": "ada@lab.org", "mail_type": ["END", "TIME_LIMIT_90"], "walltime": "3:00:00"},
        }
        job = SlurmCluster().submit(submission(tmp_path / "mouse", driver=driver))
        found = shown(job)
        command("scancel", job.id)
    finally:
        command("scontrol", "delete", "reservation=course", check=False)
    expected = {
        **{"Partition": "gpu", "Features": "fake&gpu", "Reservation": "course", "ReqNodeList": "node1"},
        **{"ExcNodeList": "node2", "Licenses": "matlab:2", "MinTmpDiskNode": "1908M", "Comment": "mouse 7: it's # 1"},
        **{"MailUser": "ada@lab.org", "MailType": "END,TIME_LIMIT_90", "TimeLimit": "03:00:00"},
    }
    assert {key: found.get(key) for key in expected} == expected
    assert re.fullmatch(r"mouse\.petaseg-[0-9a-f]{8}-driver", found["JobName"])


@pytest.mark.parametrize("text", [*(text for text in ATTACKS if is_line(text)), "a'b\\'c\\", "a  b", "日本"])
def test_a_hostile_comment_reaches_slurm_as_it_is(slurm: Slurm, tmp_path: Path, text: str) -> None:
    """sbatch reads each text as the comment and nothing else: its own words are unquoted as the tests believe."""
    job = SlurmCluster().submit(submission(tmp_path / "run", driver={**LATER, "comment": text}))
    assert shown(job)["Comment"] == text
    assert shown(job)["JobName"] == names.job_name(str(tmp_path / "run"), "driver")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"constraint": "nosuch"}, r"[Ii]nvalid feature"),
        ({"licenses": "nosuch:1"}, r"[Ii]nvalid license"),
        ({"reservation": "nosuch"}, r"reservation is invalid"),
        ({"nodelist": "nosuch"}, r"[Ii]nvalid node name"),
        ({"tmp_gb": 500.0}, r"node configuration is not available"),
        ({"gpus": 1, "gpus_per_node": 3, "queue": "gpu"}, r"node configuration is not available.*ask for less"),
    ],
)
def test_a_key_that_slurm_does_not_like_is_refused_in_its_words(
    slurm: Slurm, tmp_path: Path, shape: dict[str, object], words: str
) -> None:
    """A wrong word for workers is refused at the submission, and nothing is queued."""
    with pytest.raises(ClusterError, match=words):
        SlurmCluster().submit(submission(tmp_path / "run", workers={"memory_gb": 0.2, **shape}))
    assert not slurm.jobs("-t", "PD,R")


@pytest.fixture
def start(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[SlurmPool, DaskExecutor]]]:
    """Start a pool of workers without any, and an executor on it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(slurm_pool, "LOOK_SECONDS", 1)
    tls = create_tls(tmp_path / "run" / "cluster" / "tls")
    configure_dask(tls.settings())
    started: list[tuple[SlurmPool, DaskExecutor]] = []

    def begin(**cluster: object) -> tuple[SlurmPool, DaskExecutor]:
        pool = make_pool(submission(tmp_path / "run", **cluster), tls)
        started.append((pool, DaskExecutor(scheduler=pool.address)))
        return started[-1]

    yield begin
    for pool, executor in started:
        executor.close()
        pool.close()
    assert not slurm.jobs("-t", "PD,R")


def make_pool(given: Submission, tls: Tls) -> SlurmPool:
    """The pool of general workers."""
    pool = SlurmCluster().pool("general", given.config.cluster.workers, given, tls)
    assert isinstance(pool, SlurmPool)
    return pool


def test_many_workers_are_one_array_and_end_together(
    slurm: Slurm, start: Callable[..., tuple[SlurmPool, DaskExecutor]]
) -> None:
    """Two hundred workers are one line of the queue, of which so many run as the limit says."""
    pool, _ = start(workers={"memory_gb": 0.2, "count": 200, "array_limit": 3})
    command("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        pool.scale(200)
        wait_until(lambda: len(slurm.jobs("-t", "PD")) == 200, "200 workers wait")
        (line,) = command("squeue", "-h", "-o", "%i").splitlines()
        assert re.fullmatch(r"\d+_\[0-199%3\]", line)
        pool.scale(0)
        wait_until(lambda: not slurm.jobs("-t", "PD,R"), "no worker is left")
    finally:
        command("scontrol", "update", "PartitionName=cpu", "State=UP")


def test_each_gpu_of_a_node_has_a_worker_and_a_lost_job_is_replaced_as_a_whole(
    slurm: Slurm, start: Callable[..., tuple[SlurmPool, DaskExecutor]]
) -> None:
    """Four workers are two jobs of two GPUs; each sees one GPU. When a job is lost, one job replaces it."""
    shape = {"memory_gb": 0.4, "gpus": 1, "gpus_per_node": 2, "queue": "gpu", "count": 3}
    pool, executor = start(workers=shape, ports="41000-41400")
    pool.scale(3)
    executor.client.wait_for_workers(4, timeout=200)
    assert len(slurm.jobs("-t", "R")) == 2
    outcomes = list(executor.map_unordered(gpu_and_address, range(24), needs=NEEDS))
    assert [outcome.error for outcome in outcomes] == [None] * 24
    found = {outcome.result for outcome in outcomes}
    assert {each[:2] for each in found if each} == {(node, gpu) for node in ("node1", "node2") for gpu in "01"}
    addresses = [*(each[2] for each in found if each), pool.address]
    assert all(41000 <= (urlsplit(address).port or 0) <= 41400 for address in addresses)
    lost, kept = sorted(slurm.jobs("-t", "R"))
    command("scancel", lost)
    wait_until(lambda: len(set(slurm.jobs("-t", "R")) - {lost, kept}) == 1, "one job replaces the lost one")
    executor.client.wait_for_workers(4, timeout=200)
    assert kept in slurm.jobs("-t", "R")
