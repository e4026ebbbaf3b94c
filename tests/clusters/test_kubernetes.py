"""Runs on a real Kubernetes API server with its controllers and scheduler; pods are processes, not containers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clusters.kubernetes import KubernetesCluster
from tests.deploy.kubernetes import CHUNK, LIMIT_SECONDS, SHAPE, Lab, lab, plane  # noqa: F401  (fixtures)
from tests.runs import real_affinities, results, run, write_run, write_volume

CLUSTER = KubernetesCluster()


@pytest.fixture(scope="module")
def reference(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of the same run on this machine."""
    folder = tmp_path_factory.mktemp("reference")
    affinities = write_volume(folder / "affinities.zarr", real_affinities(shared_data, SHAPE))
    return results(run(write_run(folder, input={"affinities": affinities}, chunk_shape=CHUNK, storage_chunk_shape=CHUNK)))


def wait_for_phase(lab: Lab, job, phase: str) -> None:
    lab.plane.wait(lambda: CLUSTER.state(job).phase == phase, f"{CLUSTER.state(job)}", LIMIT_SECONDS)


@pytest.mark.slow
def test_a_submitted_run_gives_the_same_bytes_and_sends_its_workers_home(lab: Lab, reference) -> None:
    lab.write_run()
    said = lab.petaseg("submit", "/data/run.yaml", "--on", "kubernetes")
    assert "submitted to kubernetes as petaseg-" in said
    from pipeline.launch import submitted_driver

    job = submitted_driver(lab.opened())
    wait_for_phase(lab, job, "finished")
    assert results(lab.opened()) == reference
    lab.plane.wait(lambda: len(lab.pods()) == 1, "workers are left")


@pytest.mark.slow
def test_lost_workers_lose_no_chunk(lab: Lab, reference) -> None:
    lab.write_run()
    job = CLUSTER.submit(lab.submission())
    lab.wait_for_chunks(10)
    for pod in lab.pods("worker-general"):
        lab.delete_pod(pod)
    lab.wait_for_chunks(lab.chunks_done() + 10)
    for pod in lab.pods("worker-general"):
        lab.kill(pod)
    assert CLUSTER.state(job).phase == "running"
    wait_for_phase(lab, job, "finished")
    assert results(lab.opened()) == reference


@pytest.mark.slow
def test_a_lost_driver(lab: Lab, reference) -> None:
    lab.write_run()
    job = CLUSTER.submit(lab.submission())
    lab.wait_for_chunks(10)
    (pod,) = lab.pods("driver")
    lab.kill(pod)
    wait_for_phase(lab, job, "finished")
    assert CLUSTER.state(job).restarts == 1
    assert results(lab.opened()) == reference
