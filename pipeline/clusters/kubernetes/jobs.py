"""The Job of a driver or of a training, which is started again when it dies, and the head of every resource."""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.clusters.kubernetes.pods import environment, labels, template
from pipeline.config.cluster import ClusterTable
from pipeline.config.kubernetes import QUEUE_LABEL
from pipeline.errors import ConfigError

Manifest = dict[str, Any]

DRIVER, TRAINING = "driver", "training"
"""The components of which one pod runs, the Job's, and the names of its container."""
INSTANCE = "app.kubernetes.io/instance"
"""The label with the name of a run or training."""
PYTHON = ("python", "-P")
FINAL_STATUS = 78
"""Exit status for an error that no other start mends; "wrong configuration" in sysexits.h."""
USAGE_STATUS = 2
"""Exit status of a command that the image does not know, or an option of it."""
FINAL = "PETASEG_FINAL_STATUS"
"""Environment variable that gives a command ``FINAL_STATUS``."""
KEEP_SECONDS = 8 * 3600
"""How long a finished Job is kept for its logs; then Kubernetes deletes it and all resources that it owns."""
STOP_SECONDS = 30
"""Seconds between the request to stop a driver or training and its kill."""


def resource_name(url: str) -> str:
    """The name of the resources of a run or training: the same for every submission of a folder."""
    return f"petaseg-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}"


def check_image(cluster: ClusterTable) -> None:
    """Raise ``ConfigError`` if no image is named."""
    if not cluster.image:
        raise ConfigError(
            "cluster.image is not set; Kubernetes needs the container image of petaseg: build deploy/docker/Dockerfile "
            "and name it, like cluster.image: registry.example.org/petaseg:1.0"
        )


def head(version: str, kind: str, own_name: str, name: str, cluster: ClusterTable, component: str = "") -> Manifest:
    """The head of a resource; ``name``: that of all resources."""
    table = cluster.kubernetes
    metadata = {"name": own_name, "namespace": cluster.namespace, "labels": labels(name, cluster, component)}
    if table.annotations:
        metadata["annotations"] = dict(table.annotations)
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def queued(document: Manifest, cluster: ClusterTable) -> Manifest:
    """The same Job or Deployment in the file's queue of Kueue, if it names one; a Job waits for its admission."""
    queue = cluster.kubernetes.queue or cluster.kubernetes.labels.get(QUEUE_LABEL)
    if queue is None:
        return document
    document["metadata"]["labels"][QUEUE_LABEL] = queue
    if document["kind"] == "Job":
        document["spec"]["suspend"] = True
    return document


def container_of(
    component: str,
    command: tuple[str, ...],
    variables: dict[str, str],
    fields: dict[str, str],
    resources: Manifest,
    **more: Any,
) -> Manifest:
    """The container of a Job. command: after ``python -P``. variables, fields: as in ``environment``."""
    return {
        "name": component,
        "command": list(PYTHON),
        "args": list(command),
        "env": environment({**variables, FINAL: str(FINAL_STATUS)}, fields),
        **more,
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def job_of(name: str, cluster: ClusterTable, component: str, pod: Manifest) -> Manifest:
    """The Job that starts a pod again when it dies, as often as ``cluster.driver.restarts`` says."""
    job = {
        **head("batch/v1", "Job", name, name, cluster, component),
        "spec": {
            "backoffLimit": cluster.driver.restarts,
            "podFailurePolicy": {"rules": _which_ends_count(component)},
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "template": template(name, cluster, component, {**pod, "restartPolicy": "Never"}, _not_to_be_moved()),
        },
    }
    return queued(job, cluster)


def _which_ends_count(container: str) -> list[Manifest]:
    """Which ends of a pod count as restarts: not those by the cluster; and after which no restart can help."""
    final = {"containerName": container, "operator": "In", "values": [USAGE_STATUS, FINAL_STATUS]}
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": final},
    ]


def _not_to_be_moved() -> dict[str, str]:
    return {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
