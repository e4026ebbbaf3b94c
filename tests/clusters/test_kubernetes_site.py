"""What a site asks of pods, on a real Kubernetes API server of release 1.20 and on made-up ones of others."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.clusters.base import Submission
from pipeline.clusters.kubernetes import cluster as module
from pipeline.clusters.kubernetes import manifests as made
from pipeline.clusters.kubernetes.api import Api
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.errors import ClusterError
from pipeline.runs.run import Run
from tests.clusters.kubernetes_tables import of_kind, site, submission
from tests.deploy.kubernetes import LIMIT_SECONDS, Lab
from tests.runs import results

CLUSTER = KubernetesCluster()
NODE = "site"
POD = {
    "node_selector": {"disk": "ssd"},
    "node_affinity": {"disk": ["hdd", "ssd"]},
    "tolerations": [{"key": "dedicated", "value": "em", "effect": "NoSchedule"}],
    "priority_class": "low",
    "runtime_class": "nvidia",
    "scratch_gb": 1.0,
}
SITE: dict[str, Any] = {
    "user": 2000,
    "group": 3000,
    "service_account": "bucket-reader",
    "claims": [{"claim": "data", "path": "/lab", "sub_path": "ada"}],
    "labels": {"example.org/team": "em"},
    "annotations": {"example.org/note": "first: # run"},
    "network_policy": True,
}


@pytest.fixture
def site_lab(lab: Lab) -> Iterator[Lab]:
    """A namespace with a ServiceAccount, and a cluster with classes and a tainted node with two GPUs."""
    (lab.data / "ada").mkdir()
    (lab.data / "ada").chmod(0o777)
    lab.plane.kubectl("create", "serviceaccount", "bucket-reader", "-n", lab.namespace)
    lab.plane.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": -5},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
    )
    lab.plane.add_node(NODE, {"amd.com/gpu": "2", "ephemeral-storage": "10G"}, {"disk": "ssd"})
    lab.plane.kubectl("taint", "node", NODE, "dedicated=em:NoSchedule")
    yield lab
    lab.plane.kubectl("delete", "priorityclass/low", "runtimeclass/nvidia")
    lab.plane.remove_node(NODE)


def write_run(lab: Lab, **kubernetes: Any) -> Submission:
    """A run of the site, whose results go to a folder of the claim."""
    workers = {"count": 2, "memory_gb": 1.0, "gpus": 1, "gpu_resource": "amd.com/gpu", **POD}
    tables = {"driver": {"memory_gb": 1.0, **POD}, "workers": workers, "kubernetes": {**SITE, **kubernetes}}
    return replace(lab.write_run(run_directory="/lab/run", cluster=tables), run_url="/lab/run")


@pytest.mark.slow
def test_a_run_with_what_a_site_asks_gives_the_same_bytes(site_lab: Lab, reference: dict[str, bytes]) -> None:
    """User, claims, accounts, classes, taints and GPUs of a site: its nodes run it, and the bytes are the same."""
    lab = site_lab
    job = CLUSTER.submit(write_run(lab))
    lab.plane.wait(lambda: bool(lab.pods("worker-general")), "no worker", LIMIT_SECONDS)
    for pod in lab.all_pods():
        assert (pod.spec.node_name, pod.spec.priority, pod.spec.runtime_class_name) == (NODE, -5, "nvidia")
        assert pod.spec.service_account_name == "bucket-reader"
        assert pod.metadata.labels["example.org/team"] == "em"
        assert pod.metadata.annotations["example.org/note"] == "first: # run"
        assert pod.spec.containers[0].resources.limits["ephemeral-storage"] == "1G"
    assert {pod.spec.containers[0].resources.limits["amd.com/gpu"] for pod in lab.all_pods("worker-general")} == {"1"}
    assert Api(lab.namespace).read("NetworkPolicy", job.id) is not None
    lab.plane.wait(lambda: CLUSTER.state(job).phase == "finished", "not finished", LIMIT_SECONDS)
    folder = lab.data / "ada" / "run"
    here = [f"run_directory={folder}", f"input.affinities={lab.data / 'affinities.zarr'}"]
    assert results(Run.open(lab.data / "run.yaml", here)) == reference
    written = [path.stat() for path in folder.rglob("*")]
    assert {(stat.st_uid, stat.st_gid) for stat in written} == {(2000, 3000)}
    CLUSTER.cancel(job)
    assert Api(lab.namespace).read("NetworkPolicy", job.id) is None
    assert lab.plane.kubectl("get", "serviceaccount", "bucket-reader", "-n", lab.namespace).stdout


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("priority_class", r"no PriorityClass with name ghost.*correct priority_class of cluster\.driver"),
        ("runtime_class", r'RuntimeClass "ghost" not found.*correct runtime_class of cluster\.driver'),
    ],
)
def test_a_class_that_is_not_there_is_named(lab: Lab, key: str, words: str) -> None:
    """A wrong class is refused when the run is submitted, in the cluster's words and with the key."""
    with pytest.raises(ClusterError, match=words):
        CLUSTER.submit(lab.write_run(cluster={"driver": {"memory_gb": 1.0, key: "ghost"}}))
    assert left(lab) == []


def test_a_service_account_that_is_not_there_is_named(lab: Lab) -> None:
    with pytest.raises(ClusterError, match=r'"ghost" not found; correct cluster\.kubernetes\.service_account'):
        CLUSTER.submit(lab.write_run(cluster={"kubernetes": {"service_account": "ghost"}}))
    assert left(lab) == []


def test_a_server_that_is_too_old_for_a_queue_is_refused(lab: Lab) -> None:
    """Release 1.20 would ignore that a Job is suspended and start it past the queue."""
    assert Api(lab.namespace).release() == (1, 20)
    with pytest.raises(ClusterError, match=r"release 1\.20.*cluster\.kubernetes\.queue needs release 1\.22"):
        CLUSTER.submit(lab.write_run(cluster={"kubernetes": {"queue": "em"}}))
    assert left(lab) == []


def test_a_user_without_rights_to_network_policies_can_submit_and_cancel(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    """Who may not make policies and roles needs no right to delete them: the account of the site has the driver's."""
    rules = [
        *("--verb=*", "--resource=jobs,pods,pods/log,events,services,configmaps,secrets,deployments.apps"),
        *("--resource=deployments.apps/scale", "-n", lab.namespace),
    ]
    lab.plane.kubectl("create", "role", "ada", *rules)
    for name in ("ada", "petaseg-driver"):
        lab.plane.kubectl("create", "serviceaccount", name, "-n", lab.namespace)
    account = f"--serviceaccount={lab.namespace}:ada"
    lab.plane.kubectl("create", "rolebinding", "ada", "--role=ada", account, "-n", lab.namespace)
    lab.plane.wait(lambda: bool(token(lab, "ada")), "no token")
    (tmp_path / "ada").write_text(lab.plane.access(token(lab, "ada")))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "ada"))
    given = {"service_account": "petaseg-driver", "bind_role": False}
    job = CLUSTER.submit(lab.write_run(cluster={"kubernetes": given}))
    assert CLUSTER.state(job).phase in ("pending", "running")
    CLUSTER.cancel(job)
    assert left(lab) == []


def token(lab: Lab, account: str) -> str:
    """The token with which pods of a ServiceAccount authenticate."""
    for secret in lab.plane.api.list_namespaced_secret(lab.namespace).items:
        if (secret.metadata.annotations or {}).get("kubernetes.io/service-account.name") == account and secret.data:
            return base64.b64decode(secret.data["token"]).decode()
    return ""


def left(lab: Lab) -> list[str]:
    """All resources with petaseg's label."""
    kinds = "pods,jobs,deployments,services,configmaps,secrets,roles,rolebindings,serviceaccounts,networkpolicies"
    found = lab.plane.kubectl("get", kinds, "-n", lab.namespace, "-l", "app.kubernetes.io/name=petaseg", "-o", "name")
    return found.stdout.split()


class MadeUp:
    """An API of a given release, which has nothing and accepts everything."""

    def __init__(self, release: tuple[int, int]) -> None:
        self.namespace, self._release = "default", release
        self.created: list[dict[str, Any]] = []

    def release(self) -> tuple[int, int]:
        return self._release

    def read(self, kind: str, name: str) -> None:
        return None

    def find(self, kind: str, selector: str) -> list[dict[str, Any]]:
        return []

    def delete(self, kind: str, name: str) -> None:
        return None

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> None:
        return None

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if not dry_run:
            self.created.append(manifest)
        return {**manifest, "metadata": {**manifest["metadata"], "uid": "1"}}


@pytest.mark.parametrize(("release", "known"), [((1, 20), False), ((1, 25), False), ((1, 26), True), ((1, 34), True)])
def test_a_server_gets_the_rules_for_failed_drivers_if_it_knows_them(
    release: tuple[int, int], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``submit`` sends podFailurePolicy to servers from 1.26 on, and to older ones the same without it."""
    api = MadeUp(release)
    monkeypatch.setattr(module, "Api", lambda namespace, run="": api)
    given = submission(site())
    CLUSTER.submit(given)
    (job,) = of_kind(api.created, "Job")
    assert ("podFailurePolicy" in job["spec"]) is known
    assert [each for each in api.created if each["kind"] not in ("Job", "Secret")] == made.manifests(given)[:-1]


def test_an_old_server_ignores_rules_that_it_does_not_know(lab: Lab) -> None:
    """Applied as it is printed, the Job is accepted by release 1.20 too, which leaves the rules out itself."""
    job = made.manifests(lab.write_run())[-1]
    assert "podFailurePolicy" in job["spec"]
    assert "podFailurePolicy" not in Api(lab.namespace).create(job, dry_run=True)["spec"]
