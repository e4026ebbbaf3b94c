"""Fixtures: a real Kubernetes cluster of three nodes, and a namespace in it with a volume of data."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from kubernetes import client

from pipeline.clusters.base import Submission
from pipeline.config.reading import parse_config
from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from tests.deploy.control_plane import ControlPlane
from tests.runs import real_affinities, results, run, write_run, write_volume

SHAPE = (32, 40, 48)
CHUNKS = {"chunk_shape": [8, 10, 12], "storage_chunk_shape": [8, 10, 12]}
LIMIT_SECONDS = 420.0
WORKER_NODES = ("small-1", "small-2")
FOR_WORKERS = {"petaseg-role": "worker"}


class Lab:
    """A namespace, its data folder, and the pods in it."""

    def __init__(self, plane: ControlPlane, namespace: str, data: Path) -> None:
        self.plane, self.namespace, self.data = plane, namespace, data
        self.config: dict[str, Any] = {}

    def create(self) -> None:
        """Make the namespace and the claim of its data."""
        self.plane.kubectl("create", "namespace", self.namespace)
        self.plane.apply(*claim(self.namespace, self.data))

    def destroy(self) -> None:
        """Delete the namespace and wait until its pods are gone; the rest goes later."""
        for kind in ("job", "deployment", "pod"):
            self.plane.kubectl("delete", kind, "--all", "--wait=false", "-n", self.namespace)
        self.plane.wait(lambda: not self.all_pods(), f"pods of namespace {self.namespace} do not go")
        self.plane.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def write_run(self, max_in_flight: int | None = None, **tables: Any) -> Submission:
        """Write ``run.yaml`` as its user would, with the paths that driver and workers see."""
        workers = {"count": 2, "memory_gb": 1.0, "node_selector": FOR_WORKERS}
        where = {"image": "petaseg:test", "namespace": self.namespace, "claim": "data"}
        cluster = {**where, "driver": {"memory_gb": 1.0}, "workers": workers, **tables.pop("cluster", {})}
        self.config = {
            "run_directory": "/data/run",
            "input": {"affinities": "/data/affinities.zarr"},
            **CHUNKS,
            "execution": {"lease_seconds": 2.0, "backoff_seconds": 0.1, "attempts": 10, "max_in_flight": max_in_flight},
            "cluster": cluster,
            **tables,
        }
        (self.data / "run.yaml").write_text(yaml.safe_dump(self.config))
        return Submission("/data/run", parse_config(self.config))

    def petaseg(self, *arguments: str) -> str:
        """Run the real command as a user of the cluster does; returns what it prints."""
        done = self.plane.login(self.data, "python", "-P", "-m", "workflows.cli", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def opened(self) -> Run:
        """The run, opened by this process."""
        here = {"run_directory": self.data / "run"}
        for key, path in self.config["input"].items():
            here[f"input.{key}"] = self.data / Path(path).relative_to("/data")
        return Run.open(self.data / "run.yaml", [f"{key}={path}" for key, path in here.items()])

    def chunks_done(self) -> int:
        """The number of chunks in the ledger, over all stages."""
        return sum(stage.done for stage in read_status(self.opened()))

    def wait_for_chunks(self, more_than: int = 0) -> None:
        """Wait until the ledger holds more than a number of chunks."""
        self.plane.wait(lambda: self.chunks_done() > more_than, "no chunk is finished", LIMIT_SECONDS)

    def all_pods(self, component: str = "") -> list[client.V1Pod]:
        """All pods of the namespace."""
        label = f"app.kubernetes.io/component={component}" if component else ""
        return self.plane.api.list_namespaced_pod(self.namespace, label_selector=label).items

    def pods(self, component: str = "") -> dict[str, str]:
        """The running pods that are not being deleted, with their nodes."""
        return {
            pod.metadata.name: pod.spec.node_name
            for pod in self.all_pods(component)
            if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None
        }

    def kill(self, pod: str) -> None:
        """Kill the processes of a pod, as a kernel short of memory does."""
        uid = self.plane.api.read_namespaced_pod(pod, self.namespace).metadata.uid
        victims = [process for process in psutil.process_iter(["cmdline"]) if runs_pod(process, uid)]
        assert victims, f"pod {pod} has no process"
        for process in victims:
            process.send_signal(signal.SIGKILL)

    def delete_pod(self, pod: str) -> None:
        """Take a pod away at once, without notice."""
        self.plane.api.delete_namespaced_pod(pod, self.namespace, grace_period_seconds=0)


def runs_pod(process: psutil.Process, uid: str) -> bool:
    """True for the process that waits for a pod's process 1; killing it ends the pod."""
    return any(f"{uid}/enter.sh" in part for part in process.info["cmdline"] or ())


def claim(namespace: str, data: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a folder of this machine the claim "data" of a namespace."""
    size = {"storage": "1Gi"}
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        **{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace}},
        "spec": {**shared, "capacity": size, "hostPath": {"path": str(data)}},
    }
    request = {
        **{"apiVersion": "v1", "kind": "PersistentVolumeClaim"},
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {**shared, "resources": {"requests": size}, "volumeName": namespace},
    }
    return volume, request


@pytest.fixture(scope="session")
def reference(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a run on the lab's affinities, computed on this machine."""
    folder = tmp_path_factory.mktemp("reference")
    affinities = write_volume(folder / "affinities.zarr", real_affinities(shared_data, SHAPE))
    return results(run(write_run(folder, input={"affinities": affinities}, **CHUNKS)))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory, reference: dict[str, bytes]) -> Iterator[ControlPlane]:
    """A cluster with one node for drivers and two for workers; after ``reference``, which compiles the kernels."""
    with ControlPlane(tmp_path_factory.mktemp("kubernetes") / "plane") as running:
        running.add_node("big", {"cpu": "8"})
        for name in WORKER_NODES:
            running.add_node(name, labels=FOR_WORKERS)
        yield running


@pytest.fixture
def lab(
    plane: ControlPlane, tmp_path: Path, shared_data: Path, request: pytest.FixtureRequest, monkeypatch: Any
) -> Iterator[Lab]:
    """A namespace of its own for a test, with affinities in its data; this process is logged in."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    write_volume(data / "affinities.zarr", real_affinities(shared_data, SHAPE))
    lab = Lab(plane, f"lab-{os.getpid()}-{time.monotonic_ns() % 10**9}", data)
    lab.create()
    yield lab
    lab.destroy()
