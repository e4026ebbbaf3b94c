"""A table ``cluster`` with every key that Kubernetes knows, and the manifests of a run with it."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.clusters.base import Submission
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.config.reading import parse_config

GPUS_ELSEWHERE = {
    "node_selector": {"disk": "ssd"},
    "node_affinity": {"zone": ["a", "b"]},
    "tolerations": [
        {"key": "dedicated", "value": "em", "effect": "NoSchedule"},
        {
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "effect": "NoExecute",
            "toleration_seconds": 30,
        },
    ],
    "priority_class": "low",
    "runtime_class": "nvidia",
    "scratch_gb": 20.0,
}
SITE: dict[str, Any] = {
    "user": 2000,
    "group": 3000,
    "supplemental_groups": [4000, 5000],
    "service_account": "bucket-reader",
    "claims": [
        {"claim": "raw", "path": "/raw", "read_only": True},
        {"claim": "lab", "path": "/lab/runs", "sub_path": "ada/runs"},
        {"claim": "lab", "path": "/lab/models", "sub_path": "models"},
    ],
    "labels": {"example.org/team": "em", "cost-centre": ""},
    "annotations": {"example.org/note": "the first run: 100 µm³ # not a comment"},
    "queue": "em-queue",
    "image_pull_policy": "Always",
    "network_policy": True,
    "outside_ports": [443, 6443, 9000],
}
EVERYTHING: dict[str, Any] = {
    "image": "registry.example.org/petaseg:1.0",
    "namespace": "em",
    "claim": "em-data",
    "secrets": ["object-store"],
    "image_pull_secret": "registry",
    "kubernetes": SITE,
    "driver": {**GPUS_ELSEWHERE, "priority_class": "high"},
    "workers": {"count": 40, "memory_gb": 1.5, **GPUS_ELSEWHERE},
    "inference_workers": {"count": 8, "gpus": 1, "gpu_resource": "nvidia.com/mig-1g.5gb", **GPUS_ELSEWHERE},
}

Documents = list[dict[str, Any]]


def submission(
    table: dict[str, Any], affinities: str = "/data/a.zarr", run: str = "/data/run", **more: Any
) -> Submission:
    """A run with this table ``cluster``; ``more``: other tables."""
    data = {"run_directory": run, "input": {"affinities": affinities}, "cluster": table, **more}
    return Submission(run, parse_config(data))


def site(**keys: Any) -> dict[str, Any]:
    """A short table ``cluster`` with some keys of its table ``kubernetes``."""
    return {"image": "petaseg", "claim": "data", "kubernetes": keys}


def rendered(table: dict[str, Any], **given: Any) -> Documents:
    """All resources of a run, as ``--dry-run`` prints them."""
    return list(yaml.safe_load_all(KubernetesCluster().render(submission(table, **given))["manifests.yaml"]))


def of_kind(documents: Documents, kind: str) -> Documents:
    """The resources of a kind."""
    return [document for document in documents if document["kind"] == kind]


def templates(documents: Documents) -> Documents:
    """The templates of the pods, the driver's first."""
    return [each["spec"]["template"] for kind in ("Job", "Deployment") for each in of_kind(documents, kind)]
