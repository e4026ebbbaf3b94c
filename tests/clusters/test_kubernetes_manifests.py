"""The manifests of a run are valid for a recent release and grant only the rights that are needed."""

from __future__ import annotations

import copy
import sys
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import ValidationError

from pipeline.clusters.base import Submission
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.clusters.kubernetes.manifests import TLS_FOLDER
from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError

RELEASE = kubernetes_validate.latest_version()
FULL = {
    "image": "registry.example.org/petaseg:1.0",
    "namespace": "em",
    "claim": "em-data",
    "secrets": ["object-store"],
    "image_pull_secret": "registry",
    "driver": {"cpus": 2, "memory_gb": 8.0, "restarts": 7},
    "workers": {"count": 40, "cpus": 2, "threads": 2, "memory_gb": 1.5},
    "inference_workers": {"count": 8, "gpus": 1, "memory_gb": 32.0, "node_selector": {"gpu": "a100"}},
}
BARE = {"image": "petaseg", "claim": "data"}


def submission(table: dict[str, Any], run_url: str = "/data/run") -> Submission:
    return reading("/data/a.zarr", table, run_url)


def reading(affinities: str, table: dict[str, Any], run_url: str = "/data/run") -> Submission:
    data = {"run_directory": run_url, "input": {"affinities": affinities}, "cluster": table}
    return Submission(run_url, parse_config(data))


def rendered(table: dict[str, Any], run_url: str = "/data/run") -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(KubernetesCluster().render(submission(table, run_url))["manifests.yaml"]))


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        document["spec"]["template"]["spec"] for kind in ("Job", "Deployment") for document in of_kind(documents, kind)
    ]


@pytest.mark.parametrize("table", [BARE, FULL], ids=["bare", "full"])
def test_every_manifest_fits_the_schemas_of_a_recent_release(table) -> None:
    """Every rendered manifest passes strict validation against the schemas of a recent Kubernetes release."""
    documents = rendered(table)
    assert [d["kind"] for d in documents[:4]] == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap"]
    for document in documents:
        kubernetes_validate.validate(document, RELEASE, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), "two"),
        (("spec", "template", "spec", "containers", 0, "securityContext", "privilegd"), False),
        (("spec", "template", "spec", "containers"), None),
    ],
)
def test_that_validation_is_strict(path, value) -> None:
    """The validation of manifests rejects a wrong type, an unknown field and a missing value."""
    document = copy.deepcopy(of_kind(rendered(FULL), "Deployment")[0])
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        kubernetes_validate.validate(document, RELEASE, strict=True)


def test_the_driver_may_scale_its_own_workers_and_nothing_else() -> None:
    documents = rendered(FULL)
    names = [d["metadata"]["name"] for d in of_kind(documents, "Deployment")]
    (role,) = of_kind(documents, "Role")
    scale = {
        "apiGroups": ["apps"],
        "resources": ["deployments/scale"],
        "resourceNames": names,
        "verbs": ["get", "patch"],
    }
    assert role["rules"] == [scale]
    (binding,) = of_kind(documents, "RoleBinding")
    (job,) = of_kind(documents, "Job")
    account = job["spec"]["template"]["spec"]["serviceAccountName"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "em"}]


def test_no_pod_has_rights_that_it_does_not_need() -> None:
    """Pods meet the Pod Security Standard "restricted", and only the driver's pod gets an API token."""
    for pod in pods(rendered(FULL)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
            *("emptyDir", "secret", "configMap", "persistentVolumeClaim")
        }
        (container,) = pod["containers"]
        locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == locked
        assert pod["automountServiceAccountToken"] is (container["name"] == "driver")


def test_a_pod_gets_what_it_was_promised() -> None:
    documents = rendered(FULL)
    found = {d["metadata"]["name"].split("-", 2)[2]: d for d in of_kind(documents, "Deployment")}
    assert set(found) == {"general", "inference", "general-large", "inference-large"}
    for pod in pods(documents):
        amounts = pod["containers"][0]["resources"]
        assert amounts["requests"] == amounts["limits"]
    limits = {name: d["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] for name, d in found.items()}
    assert limits["general"] == {"cpu": "2", "memory": "1500000000"}
    assert limits["general-large"]["memory"] == "3000000000"
    assert limits["inference"] == {"cpu": "1", "memory": "32000000000", "nvidia.com/gpu": "1"}
    pod = found["inference"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert "tolerations" not in found["general"]["spec"]["template"]["spec"]
    assert all(d["spec"]["replicas"] == 0 for d in found.values()), "the driver says how many, when they have work"
    (job,) = of_kind(documents, "Job")
    assert job["spec"]["backoffLimit"] == 7


def test_secrets_are_mounted_or_referred_to_and_never_written_down() -> None:
    documents = rendered(FULL)
    (secret,) = of_kind(documents, "Secret")
    assert set(secret["data"].values()) == {""}, "made when the run is submitted"
    for pod in pods(documents):
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
        assert {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True} in container["volumeMounts"]
        assert "PYTHONSAFEPATH" in {variable["name"] for variable in container["env"]}
        words = " ".join([*container["command"], *container["args"]])
        assert "key" not in words, "nothing on a command line that others can read"
        assert "-P" in container["command"]


def test_workers_find_their_scheduler_and_talk_tls_to_it() -> None:
    documents = rendered(FULL)
    (service,) = of_kind(documents, "Service")
    (job,) = of_kind(documents, "Job")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    for deployment in of_kind(documents, "Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        pool = deployment["metadata"]["name"].removeprefix(f"{service['metadata']['name']}-")
        assert variables["DASK_SCHEDULER_ADDRESS"] == f"tls://{service['metadata']['name']}:{ports[pool]}"
        assert variables["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"


def test_a_run_has_one_name_and_another_run_another() -> None:
    first, again, other = (rendered(BARE, url)[0]["metadata"]["name"] for url in ("/data/a", "/data/a", "s3://b/c"))
    assert first == again != other
    assert first.startswith("petaseg-")


def test_the_run_file_travels_as_it_is() -> None:
    (config_map,) = of_kind(rendered(FULL), "ConfigMap")
    assert parse_config(yaml.safe_load(config_map["data"]["run.yaml"])) == submission(FULL).config


def test_without_an_image_nothing_is_submitted() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.image is not set.*Dockerfile"):
        KubernetesCluster().render(submission({}))


@pytest.mark.parametrize(
    ("place", "claim", "words"),
    [
        ("/home/ada/a.zarr", None, "name the claim that holds the data in cluster.claim"),
        ("/data/a.zarr", None, "name the claim"),
        ("/home/ada/a.zarr", "em-data", "the claim em-data is mounted at /data: put the data there"),
        ("/data/../home/a.zarr", "em-data", "put the data there"),
        ("/database/a.zarr", "em-data", "put the data there"),
        ("file:///home/ada/a.zarr", "em-data", "put the data there"),
        ("precomputed:///home/ada/layer", "em-data", "put the data there"),
        ("precomputed://file:///home/ada/layer", None, "name the claim"),
        ("memory://a", "em-data", "cannot be opened in a pod"),
    ],
)
def test_what_a_pod_cannot_open_is_refused_before_it_is_submitted(place: str, claim: str | None, words: str) -> None:
    """A pod has no folder of the user's machine: such paths are refused with the remedy, for inputs and outputs."""
    table = {"image": "petaseg", **({"claim": claim} if claim else {})}
    for given in (reading(place, table, "s3://b/run"), reading("s3://b/a.zarr", table, place)):
        with pytest.raises(ConfigError, match=words) as caught:
            KubernetesCluster().render(given)
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("place", "claim"),
    [
        *(("s3://b/a.zarr", None), ("https://host/a.zarr", None), ("precomputed://gs://b/layer", None)),
        *(("s3://https://host/b/a.zarr", None), ("/data/a.h5:raw", "em"), ("precomputed:///data/layer", "em")),
        ("file:///data/a.zarr", "em"),
    ],
)
def test_buckets_and_the_claim_can_be_opened_in_a_pod(place: str, claim: str | None) -> None:
    table = {"image": "petaseg", **({"claim": claim} if claim else {})}
    assert KubernetesCluster().render(reading(place, table, "/data/run" if claim else "s3://b/run"))


def test_only_who_talks_to_a_cluster_needs_the_client_library(monkeypatch) -> None:
    """Rendering manifests needs no kubernetes library; submitting without it is an error that names the remedy."""
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert rendered(BARE)
    with pytest.raises(ConfigError, match=r"pip install 'petaseg\[kubernetes\]'"):
        KubernetesCluster().submit(submission(BARE))


def test_a_driver_is_not_for_other_places(monkeypatch) -> None:
    """``petaseg run --on kubernetes`` outside of a pod is refused, and the message names ``petaseg submit``."""
    monkeypatch.delenv("PETASEG_NAME", raising=False)
    given = submission(BARE)
    with pytest.raises(ConfigError, match=r"PETASEG_NAME is not set.*petaseg submit --on kubernetes"):
        KubernetesCluster().pool("general", given.config.cluster.workers, given, None)
