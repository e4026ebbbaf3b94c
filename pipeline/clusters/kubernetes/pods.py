"""Pods as plain dictionaries: what those of drivers, workers and trainings have in common.

Every pod runs as a user without rights, on a read-only root file system, with nothing but what is mounted here. It fits
the profile "restricted" of the Pod Security Standards, whatever the run file says.
"""

from __future__ import annotations

from typing import Any

from pipeline.clusters.kubernetes.places import mounts
from pipeline.config.cluster import ClusterTable
from pipeline.config.kubernetes import QUEUE_LABEL, KubernetesTable, PodOptions, Toleration, WorkerPodOptions

Manifest = dict[str, Any]

TLS_FOLDER = "/petaseg/tls"
SCRATCH = "ephemeral-storage"
NO_DEVICES = ("cpu", "memory", SCRATCH)
"""The resources of a container that are no devices."""


def labels(name: str, cluster: ClusterTable, component: str = "") -> dict[str, str]:
    """The labels of a resource, or of the pods of a component, of the run ``name``; Kueue's is only for resources."""
    own = {
        **{key: value for key, value in cluster.kubernetes.labels.items() if key != QUEUE_LABEL},
        "app.kubernetes.io/name": "petaseg",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "petaseg",
    }
    return {**own, "app.kubernetes.io/component": component} if component else own


def template(name: str, cluster: ClusterTable, component: str, pod: Manifest, notes: dict[str, str]) -> Manifest:
    """The template of a component's pods; ``notes``: annotations that the run file may replace."""
    annotations = {**notes, **cluster.kubernetes.annotations}
    metadata: Manifest = {"labels": labels(name, cluster, component)}
    return {"metadata": {**metadata, "annotations": annotations} if annotations else metadata, "spec": pod}


def pod_of(cluster: ClusterTable, options: PodOptions, container: Manifest, *, drain_seconds: int) -> Manifest:
    """A pod without rights: its user, data and nodes."""
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_seconds,
        "securityContext": _user(cluster.kubernetes),
        "containers": [_locked(cluster, container)],
        "volumes": _volumes(cluster, options),
    }
    if cluster.kubernetes.service_account:
        pod["serviceAccountName"] = cluster.kubernetes.service_account
    if cluster.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": cluster.image_pull_secret}]
    return pod | _nodes(options, container["resources"]["limits"])


def certified(pod: Manifest, name: str) -> Manifest:
    """A pod with the certificates of the run ``name``."""
    volume = {"name": "tls", "secret": {"secretName": f"{name}-tls", "defaultMode": 0o440}}
    (container,) = pod["containers"]
    first, *others = container["volumeMounts"]
    mount = {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}
    scratch, *data = pod["volumes"]
    with_mount = {**container, "volumeMounts": [first, mount, *others]}
    return {**pod, "containers": [with_mount], "volumes": [scratch, volume, *data]}


def _locked(cluster: ClusterTable, container: Manifest) -> Manifest:
    """A container with its image, without capabilities, and with what the run file lets it see."""
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {**container, "image": cluster.image, "workingDir": "/tmp", "securityContext": locked}
    container["volumeMounts"] = _mounts(cluster)
    if cluster.kubernetes.image_pull_policy:
        container["imagePullPolicy"] = cluster.kubernetes.image_pull_policy
    if cluster.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in cluster.secrets]
    return container


def _user(table: KubernetesTable) -> Manifest:
    """The user and the groups; what is left out, the namespace chooses, and it is not root either."""
    ids: Manifest = {"runAsUser": table.user, "runAsGroup": table.group, "fsGroup": table.group}
    context: Manifest = {"runAsNonRoot": True, **{key: number for key, number in ids.items() if number is not None}}
    if table.supplemental_groups:
        context["supplementalGroups"] = list(table.supplemental_groups)
    return {**context, "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}}


def _volumes(cluster: ClusterTable, options: PodOptions) -> list[Manifest]:
    """Scratch files, and each claim once."""
    scratch = {} if options.scratch_gb is None else {"sizeLimit": str(in_bytes(options.scratch_gb))}
    claims = {claim: {"claimName": claim} for claim in _volume_names(cluster)}
    return [
        {"name": "tmp", "emptyDir": scratch},
        *({"name": _volume_names(cluster)[claim], "persistentVolumeClaim": named} for claim, named in claims.items()),
    ]


def _mounts(cluster: ClusterTable) -> list[Manifest]:
    """The folders of a container; of a claim that is mounted twice, both."""
    own: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]
    for each in mounts(cluster):
        mount: Manifest = {"name": _volume_names(cluster)[each.claim], "mountPath": each.path}
        parts: Manifest = {"subPath": each.sub_path, "readOnly": each.read_only}
        own.append({**mount, **{key: value for key, value in parts.items() if value}})
    return own


def _volume_names(cluster: ClusterTable) -> dict[str, str]:
    """Claim -> the name of its volume in a pod."""
    claims = dict.fromkeys(mount.claim for mount in mounts(cluster))
    return {claim: f"data-{number}" if number else "data" for number, claim in enumerate(claims)}


def _nodes(options: PodOptions, amounts: Manifest) -> Manifest:
    """On which nodes a pod with these resources may run, and before which other pods."""
    found: Manifest = {}
    if tolerations := [*_of_gpus(amounts), *map(_toleration, options.tolerations)]:
        found["tolerations"] = tolerations
    if options.node_selector:
        found["nodeSelector"] = dict(options.node_selector)
    if options.node_affinity:
        terms = [{"key": k, "operator": "In", "values": list(v)} for k, v in options.node_affinity.items()]
        required = {"nodeSelectorTerms": [{"matchExpressions": terms}]}
        found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    classes = {"priorityClassName": options.priority_class, "runtimeClassName": options.runtime_class}
    return found | {key: name for key, name in classes.items() if name}


def _of_gpus(amounts: Manifest) -> list[Manifest]:
    """Tolerations of the usual taints that keep other pods off nodes with GPUs; a part of a GPU is on such a node."""
    devices = [name for name in amounts if name not in NO_DEVICES]
    keys = dict.fromkeys(key for name in devices for key in (f"{name.partition('/')[0]}/gpu", name))
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def _toleration(given: Toleration) -> Manifest:
    found = {
        **{"key": given.key, "operator": given.operator, "value": given.value, "effect": given.effect},
        "tolerationSeconds": given.toleration_seconds,
    }
    return {key: value for key, value in found.items() if value is not None}


def environment(own: dict[str, str], own_fields: dict[str, str] | None = None) -> list[Manifest]:
    """Environment variables of a container: fields of its pod, and fixed values."""
    fields = {"PETASEG_JOB": "metadata.name", "POD_IP": "status.podIP", "PETASEG_NODE": "spec.nodeName"}
    fields |= own_fields or {}
    fixed = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "HOME": "/tmp", "OMP_NUM_THREADS": "1", **own}
    return [
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
        *({"name": key, "value": value} for key, value in fixed.items()),
    ]


def resources(cpus: int, memory_gb: float, options: WorkerPodOptions, gpus: int = 0) -> Manifest:
    """Requests equal to limits, so that a pod's resources are guaranteed and it is the last to be evicted."""
    amounts = {"cpu": str(cpus), "memory": str(in_bytes(memory_gb))}
    if gpus:
        amounts[options.gpu_resource] = str(gpus)
    if options.scratch_gb is not None:
        amounts[SCRATCH] = str(in_bytes(options.scratch_gb))
    return {"requests": amounts, "limits": dict(amounts)}


def in_bytes(gigabytes: float) -> int:
    """Bytes of an amount in GB."""
    return round(gigabytes * 1e9)
