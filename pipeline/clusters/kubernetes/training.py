"""The Kubernetes resources of a training: one Job, which is started again when it dies, and nothing that it could ask.

    NetworkPolicy    nobody reaches its pod, if the training file asks for one
    Job              ``petaseg train``; its pod has the GPUs, cores and memory of ``LoneJob``, and no access to the API

It reads its file from the output folder, which is on a claim.
"""

from __future__ import annotations

from pipeline.clusters.base import LoneJob
from pipeline.clusters.kubernetes.jobs import (
    INSTANCE,
    STOP_SECONDS,
    TRAINING,
    Manifest,
    check_image,
    container_of,
    head,
    job_of,
    resource_name,
)
from pipeline.clusters.kubernetes.network import policy
from pipeline.clusters.kubernetes.places import check_reachable
from pipeline.clusters.kubernetes.pods import pod_of, resources

SHARED = "/dev/shm"
"""Where processes of a training pass patches and gradients to each other; a container has 64 MB there by itself."""


def training_manifests(job: LoneJob) -> list[Manifest]:
    """All resources of a training, in the order in which they are created; the Job is the last.

    Raises ``ConfigError`` if there is no image, and for paths that pods cannot open.
    """
    cluster, name = job.cluster, resource_name(job.url)
    check_image(cluster)
    check_reachable(job.places, ("output", job.url), cluster)
    made = [job_of(name, cluster, TRAINING, _pod(job))]
    if cluster.kubernetes.network_policy:
        own = head("networking.k8s.io/v1", "NetworkPolicy", name, name, cluster)
        made.insert(0, {**own, "spec": policy(cluster, {INSTANCE: name})})
    return made


def _pod(job: LoneJob) -> Manifest:
    """The pod of a training; its shared memory counts as its memory."""
    driver = job.cluster.driver
    amounts = resources(job.cpus, driver.memory_gb, driver, job.gpus)
    container = container_of(TRAINING, job.command, {}, {}, amounts)
    pod = pod_of(job.cluster, driver, container, drain_seconds=STOP_SECONDS)
    pod["volumes"].append({"name": "shared", "emptyDir": {"medium": "Memory"}})
    pod["containers"][0]["volumeMounts"].append({"name": "shared", "mountPath": SHARED})
    return pod
