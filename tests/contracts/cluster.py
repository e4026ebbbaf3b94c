"""The promises of every kind of cluster, seen from outside. Subclass ``ClusterContract`` and give its fixtures."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.clusters import CLUSTERS, make_cluster
from pipeline.clusters.base import Cluster, DriverJob, Submission
from tests.deploy.slurm import wait_until

ALIVE = ("pending", "running")


class ClusterContract:
    """The fixture ``given`` is a submission whose driver writes a line and then runs until it is cancelled."""

    name: str
    """Key of ``CLUSTERS``."""

    @property
    def cluster(self) -> Cluster:
        """Made anew at each use: a cluster is a value without state, as every command makes its own."""
        return make_cluster(self.name)

    def submitted(self, given: Submission) -> DriverJob:
        """Submit, and wait until the driver runs."""
        job = self.cluster.submit(given)
        wait_until(lambda: self.cluster.state(job).phase == "running", f"{job.id} runs")
        return job

    def test_its_name_is_that_of_its_row(self) -> None:
        """A cluster's ``name`` is its key in ``CLUSTERS``, by which its jobs are found again."""
        assert self.name in CLUSTERS
        assert self.cluster.name == self.name

    def test_render_shows_texts_and_does_nothing(self, given: Submission) -> None:
        """``render`` gives the same named texts each time, without private keys, and makes no run directory."""
        shown = self.cluster.render(given)
        assert shown
        assert all(shown.values())
        assert shown == self.cluster.render(given)
        assert not any("PRIVATE KEY" in text for text in shown.values())
        assert not Path(given.run_url).exists()

    def test_a_driver_is_found_again_by_its_record(self, given: Submission) -> None:
        """The record of a driver survives JSON, and shows its state and its lines to another process."""
        job = self.submitted(given)
        assert job.cluster == self.name
        again = DriverJob(**json.loads(json.dumps(job.as_dict())))
        assert again == job
        state = self.cluster.state(again)
        assert (state.phase, state.restarts) == ("running", 0)
        assert min(state.workers_running, state.workers_pending) >= 0
        wait_until(lambda: list(self.cluster.logs(again)), "the driver has written a line")
        assert all(isinstance(line, str) for line in self.cluster.logs(again, workers=True))

    def test_a_cancelled_driver_ends_and_may_be_cancelled_again(self, given: Submission) -> None:
        """After ``cancel`` the driver is not alive; a second one does nothing, and its logs may still be asked for."""
        job = self.submitted(given)
        for _ in range(2):
            self.cluster.cancel(job)
            assert self.cluster.state(job).phase not in ALIVE
        assert all(isinstance(line, str) for line in self.cluster.logs(job))

    def test_a_cancelled_run_is_submitted_again(self, given: Submission) -> None:
        """A run that was cancelled can be submitted again, and its new driver runs."""
        self.cluster.cancel(self.submitted(given))
        self.cluster.cancel(self.submitted(given))
