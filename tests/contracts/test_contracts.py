"""The contracts themselves hold for the stand-ins that other tests use, so that those keep the promises too."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clusters import CLUSTERS
from pipeline.clusters.base import Submission
from pipeline.config.cluster import WorkerShape
from pipeline.config.reading import parse_config
from tests.contracts.cluster import ClusterContract
from tests.contracts.local_pool import LocalPool
from tests.contracts.worker_pool import WorkerPoolContract


class LocalWorkplace:
    """Workers as processes of this machine, by the numbers of their processes."""

    node = "node0"

    def __init__(self) -> None:
        self.pool = LocalPool("general", WorkerShape(count=2))

    def workers(self) -> set[str]:
        nannies = self.pool.cluster.workers.values()
        return {str(nanny.pid) for nanny in nannies if nanny.pid and str(nanny.status) == "Status.running"}

    def lose(self, worker: str) -> None:
        os.kill(int(worker), signal.SIGKILL)


class TestLocalPool(WorkerPoolContract):
    @pytest.fixture
    def workplace(self) -> Iterator[LocalWorkplace]:
        workplace = LocalWorkplace()
        yield workplace
        workplace.pool.close()


class TestPaperCluster(ClusterContract):
    name = "paper"

    @pytest.fixture(autouse=True)
    def _row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(CLUSTERS, "paper", "tests.toys:PaperCluster")

    @pytest.fixture
    def given(self, tmp_path: Path) -> Submission:
        config = parse_config({"run_directory": str(tmp_path / "run"), "input": {"affinities": "a.zarr"}})
        return Submission(str(tmp_path / "run"), config)
