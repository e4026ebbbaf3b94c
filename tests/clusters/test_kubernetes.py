"""Runs on a real Kubernetes API server with its controllers and scheduler; pods are processes, not containers."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from pipeline.clusters.base import DriverJob, Submission
from pipeline.clusters.kubernetes.api import Api
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.clusters.kubernetes.manifests import NAME, NAMESPACE
from pipeline.clusters.kubernetes.pool import KubernetesPool
from pipeline.clusters.tls import create_tls
from pipeline.errors import ClusterError
from pipeline.runs.launch import driver_of
from tests.contracts.cluster import ClusterContract
from tests.contracts.worker_pool import WorkerPoolContract
from tests.deploy.control_plane import ControlPlane
from tests.deploy.kubernetes import CHUNKS, FOR_WORKERS, LIMIT_SECONDS, SHAPE, WORKER_NODES, Lab
from tests.deploy.sandbox import ROOT
from tests.runs import results, run, write_run, write_volume

CLUSTER = KubernetesCluster()
NETWORK = {"model": "identity", "patch_shape": [12, 12, 12], "overlap": [4, 4, 4], "device": "cpu"}
KINDS = "pods,jobs,deployments,replicasets,services,configmaps,secrets,roles,rolebindings,serviceaccounts"
SIZE = {"spec": {"replicas": 0}}
AT_A_TIME = 1
"""Chunks in flight in tests that kill something: the run must last long enough to be interrupted."""
Bytes = dict[str, bytes]


def wait_for_phase(lab: Lab, job: DriverJob, phase: str) -> None:
    lab.plane.wait(lambda: CLUSTER.state(job).phase == phase, f"not {phase}: {job.id}", LIMIT_SECONDS)


def assert_same(lab: Lab, job: DriverJob, reference: Bytes) -> None:
    wait_for_phase(lab, job, "finished")
    assert results(lab.opened()) == reference


@pytest.mark.slow
class TestKubernetesCluster(ClusterContract):
    name = "kubernetes"

    @pytest.fixture
    def given(self, lab: Lab) -> Submission:
        """A run that takes long enough to be cancelled."""
        return lab.write_run(AT_A_TIME)


class KubernetesWorkplace:
    """A Deployment as a driver finds it, of pods that only sleep; the test's process is the driver."""

    node = WORKER_NODES[0]

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.plane.apply(sleepers("contract-general", lab.namespace))
        self.pool = KubernetesPool("general", ["general"], None)

    def workers(self) -> set[str]:
        return set(self.lab.pods("worker-general"))

    def lose(self, worker: str) -> None:
        self.lab.delete_pod(worker)


def sleepers(name: str, namespace: str) -> dict[str, Any]:
    """A Deployment without pods, whose pods would sleep."""
    labels = {"app.kubernetes.io/component": "worker-general"}
    sleep = ["python", "-c", "import time; time.sleep(600)"]
    alone = {"readOnlyRootFilesystem": True, "runAsNonRoot": True}
    container = {"name": "worker", "image": "petaseg:test", "command": sleep, "securityContext": alone}
    pod = {"containers": [container], "nodeSelector": FOR_WORKERS, "terminationGracePeriodSeconds": 1}
    return {
        **{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


@pytest.mark.slow
class TestKubernetesPool(WorkerPoolContract):
    @pytest.fixture
    def workplace(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesWorkplace]:
        """The variables are those of a driver's pod."""
        for name, value in ((NAME, "contract"), (NAMESPACE, lab.namespace), ("POD_IP", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        workplace = KubernetesWorkplace(lab)
        yield workplace
        workplace.pool.close()


@pytest.mark.slow
def test_a_run_with_two_kinds_of_workers_gives_the_same_bytes_as_here(lab: Lab, shared_data: Path, tmp_path) -> None:
    with h5py.File(shared_data / "fib25_train2.h5") as file:
        image = file["raw"][: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    write_volume(lab.data / "image.zarr", image)
    here = {"image": str(lab.data / "image.zarr")}
    reference = results(run(write_run(tmp_path / "here", input=here, inference=NETWORK, **CHUNKS)))
    lab.plane.add_node("gpu", {"nvidia.com/gpu": "1"})
    inference_workers = {"count": 1, "gpus": 1, "memory_gb": 2.0}
    lab.write_run(
        input={"image": "/data/image.zarr"}, inference=NETWORK, cluster={"inference_workers": inference_workers}
    )
    assert "submitted to kubernetes as petaseg-" in lab.petaseg("submit", "/data/run.yaml", "--on", "kubernetes")
    lab.plane.wait(lambda: set(lab.pods("worker-inference").values()) == {"gpu"}, "no GPU worker", LIMIT_SECONDS)
    assert not lab.pods("worker-general"), "they wait while the network runs"
    lab.plane.wait(lambda: bool(lab.pods("worker-general")), "no CPU worker", LIMIT_SECONDS)
    lab.plane.wait(lambda: not lab.pods("worker-inference"), "a GPU waits while supervoxels are made")
    assert_same(lab, driver_of(lab.opened()), reference)
    lab.plane.wait(lambda: not lab.pods(), "workers are left")
    assert "1 worker wanted" in lab.petaseg("logs", "/data/run.yaml")


@pytest.mark.slow
def test_lost_workers_lose_no_chunk(lab: Lab, reference: Bytes) -> None:
    """Chunks of workers whose pods are deleted or killed are computed by others, and the bytes are the same."""
    job = CLUSTER.submit(lab.write_run(AT_A_TIME))
    lab.wait_for_chunks()
    for pod in lab.pods("worker-general"):
        lab.delete_pod(pod)
    lab.wait_for_chunks(lab.chunks_done())
    for pod in lab.pods("worker-general"):
        lab.kill(pod)
    assert CLUSTER.state(job).phase == "running", "it had finished before: the test proves nothing"
    assert_same(lab, job, reference)


@pytest.mark.slow
def test_a_lost_node_is_replaced_by_another(lab: Lab, reference: Bytes) -> None:
    """A run whose only worker was on a lost node goes on with a worker on another node, and the bytes are the same."""
    workers = {"count": 1, "memory_gb": 1.0, "node_selector": FOR_WORKERS}
    job = CLUSTER.submit(lab.write_run(AT_A_TIME, cluster={"workers": workers}))
    lab.wait_for_chunks()
    ((lost, node),) = lab.pods("worker-general").items()
    lab.plane.lose_node(node)
    assert CLUSTER.state(job).phase == "running", "it had finished before: the test proves nothing"
    try:
        lab.plane.wait(lambda: bool(lab.pods("worker-general").keys() - {lost}), "no other worker", LIMIT_SECONDS)
        assert node not in {there for pod, there in lab.pods("worker-general").items() if pod != lost}
        assert_same(lab, job, reference)
    finally:
        lab.plane.api.delete_node(node)  # as an administrator does: Kubernetes forgets its pods only then
        lab.plane.add_node(node, labels=FOR_WORKERS)


@pytest.mark.slow
def test_a_driver_that_dies_is_started_again_and_goes_on(lab: Lab, reference: Bytes) -> None:
    job = CLUSTER.submit(lab.write_run(AT_A_TIME))
    lab.wait_for_chunks()
    (driver,) = lab.pods("driver")
    lab.kill(driver)
    done = lab.chunks_done()
    lab.plane.wait(lambda: bool(lab.pods("driver").keys() - {driver}), "no other driver", LIMIT_SECONDS)
    assert lab.chunks_done() >= done
    state = CLUSTER.state(job)
    assert (state.phase, state.restarts) == ("running", 1)
    assert "the driver ended with status 137" in state.reason
    assert_same(lab, job, reference)


@pytest.mark.slow
def test_what_is_submitted_by_hand_does_the_same(lab: Lab, reference: Bytes, tmp_path: Path) -> None:
    """The files of deploy/kubernetes, applied by hand as their README says, give the same bytes."""
    folder = tmp_path / "by-hand"
    shutil.copytree(ROOT / "deploy" / "kubernetes", folder)
    create_tls(folder / "tls")
    lab.write_run()
    shutil.copy(lab.data / "run.yaml", folder)
    for_old_cluster(folder / "driver.yaml")
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**kustomization, "namespace": lab.namespace}))
    lab.plane.kubectl("apply", "-k", str(folder))
    assert_same(lab, DriverJob("kubernetes", "petaseg", {"namespace": lab.namespace}), reference)


def for_old_cluster(file: Path) -> None:
    """Leave out what the README says for clusters before release 1.26."""
    documents = list(yaml.safe_load_all(file.read_text()))
    assert [document["spec"].pop("podFailurePolicy", None) is None for document in documents] == [True, False]
    file.write_text(yaml.safe_dump_all(documents))


def test_a_quota_refuses_the_submission_and_nothing_is_left(lab: Lab) -> None:
    """A driver beyond the quota is refused at submission; Kubernetes alone would accept its Job and start no pod."""
    quota(lab, {"requests.memory": "500M"})
    with pytest.raises(
        ClusterError, match=r"exceeded quota: tight.*requests\.memory=1G.*ask for less in cluster\.driver"
    ):
        CLUSTER.submit(lab.write_run())
    assert belongings(lab) == []


@pytest.mark.slow
def test_a_quota_on_workers_is_told_and_cancel_leaves_nothing(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    """With the rights of the namespace's administrator, status names the quota and cancel deletes every resource."""
    lab.plane.kubectl("create", "serviceaccount", "ada", "-n", lab.namespace)
    ada = f"{lab.namespace}:ada"
    lab.plane.kubectl(
        "create", "rolebinding", "a", "--clusterrole=admin", f"--serviceaccount={ada}", "-n", lab.namespace
    )
    lab.plane.wait(lambda: bool(account_token(lab, "ada")), "no token")
    (tmp_path / "ada").write_text(lab.plane.access(account_token(lab, "ada")))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "ada"))
    quota(lab, {"pods": "1"})
    submission = lab.write_run()
    job = CLUSTER.submit(submission)
    lab.plane.wait(lambda: "exceeded quota: tight" in CLUSTER.state(job).reason, "no word of it", LIMIT_SECONDS)
    assert CLUSTER.state(job).phase == "running"
    assert len(belongings(lab)) > 8
    with pytest.raises(ClusterError, match=r"works on /data/run already.*petaseg cancel /data/run"):
        CLUSTER.submit(submission)
    CLUSTER.cancel(job)
    assert belongings(lab) == []
    assert CLUSTER.state(job).phase == "unknown"
    CLUSTER.cancel(job)  # cancelling twice does no harm


@pytest.mark.slow
def test_what_belongs_to_a_run_goes_with_its_job(lab: Lab) -> None:
    """When the driver's Job is deleted, its workers and all other resources of the run are deleted too."""
    job = CLUSTER.submit(lab.write_run())
    assert len(belongings(lab)) > 8
    lab.plane.kubectl("delete", "job", job.id, "-n", lab.namespace)
    lab.plane.wait(lambda: belongings(lab) == [], "something is left")


def quota(lab: Lab, hard: dict[str, str]) -> None:
    head = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": lab.namespace}}
    lab.plane.apply({**head, "spec": {"hard": hard}})
    api = lab.plane.api
    lab.plane.wait(lambda: bool(api.read_namespaced_resource_quota("tight", lab.namespace).status.hard), "no quota")


def belongings(lab: Lab) -> list[str]:
    """All resources with petaseg's label."""
    found = lab.plane.kubectl("get", KINDS, "-n", lab.namespace, "-l", "app.kubernetes.io/name=petaseg", "-o", "name")
    return found.stdout.split()


@pytest.mark.slow
def test_the_driver_may_scale_its_own_workers_and_nothing_else(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    """The driver's account can scale the run's own Deployments; the API server forbids it everything else."""
    job = CLUSTER.submit(lab.write_run())
    lab.plane.kubectl("create", "deployment", "other", "--image=x", "--replicas=0", "-n", lab.namespace)
    file = tmp_path / "driver.kubeconfig"
    file.write_text(lab.plane.access(account_token(lab, job.id), lab.namespace))
    as_driver = ("--kubeconfig", str(file))
    own = f"deployment/{job.id}-general"
    assert lab.plane.kubectl(*as_driver, "scale", own, "--replicas=0", check=False).returncode, "scale reads the whole"
    for verb, what, part in [
        ("get", own, ""), ("patch", own, ""), ("patch", "deployment/other", "scale"), ("update", own, "scale"),
        ("list", "pods", ""), ("create", "pods", ""), ("get", f"secret/{job.id}-tls", ""), ("get", "configmaps", ""),
        ("delete", f"job/{job.id}", ""), ("create", "rolebindings", ""), ("get", "nodes", ""),
    ]:  # fmt: skip
        answer = lab.plane.kubectl(*as_driver, "auth", "can-i", verb, what, f"--subresource={part}", check=False)
        assert answer.stdout.strip() == "no", (verb, what, part)
    monkeypatch.setenv("KUBECONFIG", str(file))
    Api(lab.namespace).patch("Deployment", f"{job.id}-general", SIZE, part="scale")
    with pytest.raises(ClusterError, match="forbidden"):
        Api(lab.namespace).patch("Deployment", "other", SIZE, part="scale")
    with pytest.raises(ClusterError, match="forbidden"):
        Api("default").patch("Deployment", f"{job.id}-general", SIZE, part="scale")


def account_token(lab: Lab, account: str) -> str:
    """The token with which pods of a ServiceAccount authenticate."""
    for secret in lab.plane.api.list_namespaced_secret(lab.namespace).items:
        if (secret.metadata.annotations or {}).get("kubernetes.io/service-account.name") == account and secret.data:
            return base64.b64decode(secret.data["token"]).decode()
    return ""


def test_a_user_without_rights_is_told_which(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    submission = lab.write_run()
    (tmp_path / "guest").write_text(lab.plane.access(account_token(lab, "default")))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "guest"))
    with pytest.raises(ClusterError, match=r"cannot get resource \"jobs\".*ask for the rights"):
        CLUSTER.submit(submission)
    (tmp_path / "guest").write_text(lab.plane.access("nonsense"))
    with pytest.raises(ClusterError, match=r"Unauthorized.*log in"):
        CLUSTER.submit(submission)


def test_a_namespace_that_is_not_there_is_named(lab: Lab) -> None:
    with pytest.raises(ClusterError, match=r"namespaces \"nowhere\" not found.*kubectl create namespace nowhere"):
        CLUSTER.submit(lab.write_run(cluster={"namespace": "nowhere"}))


def test_an_api_server_that_does_not_answer_is_named(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    access = lab.plane.access("token").replace(f":{lab.plane.port}", ":1")
    (tmp_path / "gone").write_text(access)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    with pytest.raises(ClusterError, match=r"does not answer.*Connection refused.*kubectl cluster-info"):
        CLUSTER.submit(lab.write_run())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ClusterError, match=r"no access to a Kubernetes cluster.*KUBECONFIG"):
        CLUSTER.submit(lab.write_run())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", {"spec": {"replicas": -1}}),
        ("Deployment", {"spec": {"selector": {"matchLabels": {"other": "label"}}}}),
        ("Service", {"spec": {"ports": [{"port": 99999}]}}),
        ("Job", {"metadata": {"name": "Not A Name"}}),
    ],
)
def test_a_bad_manifest_is_refused_in_the_clusters_words(plane: ControlPlane, kind, change, monkeypatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / f"{files(kind)}.yaml").read_text())
    good = next(document for document in documents if document["kind"] == kind)
    good["metadata"]["namespace"] = "default"
    api = Api("default")
    assert api.create(good, dry_run=True)["kind"] == kind
    with pytest.raises(ClusterError, match=r"Kubernetes refused: .*(invalid|replicas|Required)"):
        api.create(merged(good, change), dry_run=True)


def files(kind: str) -> str:
    return {"Deployment": "workers"}.get(kind, "driver")


def merged(manifest: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A manifest with some values replaced."""
    result = dict(manifest)
    for key, value in change.items():
        deeper = isinstance(value, dict) and key != "matchLabels"
        result[key] = merged(manifest[key], value) if deeper else value
    return result
