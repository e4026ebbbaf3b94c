"""The Kubernetes resources of a run: plain dictionaries, made from the configuration alone.

    ServiceAccount, Role, RoleBinding   the driver may read and set the size of its own Deployments, nothing else
    ConfigMap                           run.yaml
    Secret                              certificates of the run; made when it is submitted, not here
    Job                                 the driver, started again when it dies
    Service                             a name for the driver on any node; one port for each pool
    Deployments, one for each pool      workers, none at first; the driver sets their number, and lost ones are replaced

Every pod runs as a user without rights, on a read-only root file system, with nothing but what is mounted here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline import formats
from pipeline.clusters.base import GENERAL, INFERENCE, LARGE, Submission, driver_command, large, worker_shapes
from pipeline.clusters.kubernetes.places import DATA_FOLDER, check_reachable
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import ClusterTable, WorkerShape
from pipeline.config.strict_yaml import Dumper, dump_yaml
from pipeline.errors import ConfigError

Manifest = dict[str, Any]

PORTS = {GENERAL: 13786, INFERENCE: 13787, f"{GENERAL}{LARGE}": 13788, f"{INFERENCE}{LARGE}": 13789}
"""Pool -> port of its scheduler in the driver."""
PYTHON = ("python", "-P")
WORKER_CLASS = "pipeline.clusters.worker.DrainingWorker"
RUN_FILE = "/petaseg/run/run.yaml"
TLS_FOLDER = "/petaseg/tls"
USER = 1000
GPU = "nvidia.com/gpu"
KEEP_SECONDS = 8 * 3600
"""How long a finished Job is kept for its logs; then Kubernetes deletes it and all resources that it owns."""
DRAIN_SECONDS = 60
"""Seconds between the request to stop a worker and its kill, in which it returns its chunks."""
CONNECT_SECONDS = 300
"""A worker that finds no scheduler for this time ends, and is started again."""
NAME, NAMESPACE, TLS = "PETASEG_NAME", "PETASEG_NAMESPACE", "PETASEG_TLS"
"""Environment variables by which a driver finds its resources and certificates."""


def resource_name(run_url: str) -> str:
    """The name of a run's resources: the same for every submission of a run directory."""
    return f"petaseg-{hashlib.blake2b(run_url.encode(), digest_size=4).hexdigest()}"


def pools(cluster: ClusterTable) -> dict[str, WorkerShape]:
    """Pool -> shape of its workers; without ``inference_workers`` the general ones run the network."""
    shapes = worker_shapes(cluster)
    return {**shapes, **{f"{name}{LARGE}": large(shape) for name, shape in shapes.items()}}


def manifests(submission: Submission, name: str | None = None) -> list[Manifest]:
    """All resources of a run but its Secret, in the order in which they are created.

    name: of all resources; that of the run directory if left out. Raises ``ConfigError`` if there is no image,
        and for paths that pods cannot open.
    """
    if not submission.config.cluster.image:
        raise ConfigError(
            "cluster.image is not set; Kubernetes needs the container image of petaseg: build deploy/docker/Dockerfile "
            "and name it, like cluster.image: registry.example.org/petaseg:1.0"
        )
    check_reachable(submission.config)
    name = name or resource_name(submission.run_url)
    return list(_documents(submission, name))


def to_yaml(documents: list[Manifest]) -> str:
    """The text that ``kubectl apply -f`` reads."""
    return "---\n".join(yaml.dump(document, Dumper=_Readable, sort_keys=False, width=120) for document in documents)


class _Readable(Dumper):
    """Writes texts of several lines as blocks, and repeats equal lists and tables instead of using anchors."""

    def represent_block(self, data: str) -> yaml.ScalarNode:
        """A text of several lines as a block."""
        if "\n" not in data:
            return self.represent_text(data)
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|")

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Readable.add_representer(str, _Readable.represent_block)


def tls_secret(name: str, cluster: ClusterTable, files: dict[str, str]) -> Manifest:
    """The certificates of a run; ``files``: name -> base64 of its bytes."""
    return {**_head("v1", "Secret", f"{name}-tls", name, cluster), "type": "Opaque", "data": files}


def selector(name: str, component: str | None = None) -> str:
    """The label selector of what belongs to a run, or of one component of it."""
    parts = {"app.kubernetes.io/instance": name, **({"app.kubernetes.io/component": component} if component else {})}
    return ",".join(f"{key}={value}" for key, value in parts.items())


def workers_of(pool: str) -> str:
    """Label of a pool's workers."""
    return f"worker-{pool}"


def _documents(submission: Submission, name: str) -> Iterator[Manifest]:
    cluster = submission.config.cluster
    shapes = pools(cluster)
    yield {**_head("v1", "ServiceAccount", name, name, cluster), "automountServiceAccountToken": False}
    yield {**_head("rbac.authorization.k8s.io/v1", "Role", name, name, cluster), "rules": [_scale_rule(name, shapes)]}
    yield {
        **_head("rbac.authorization.k8s.io/v1", "RoleBinding", name, name, cluster),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
    }
    yield {**_head("v1", "ConfigMap", name, name, cluster), "data": {"run.yaml": _run_file(submission)}}
    yield _service(name, cluster, list(shapes))
    for pool, shape in shapes.items():
        yield _workers(name, cluster, pool, shape)
    yield _driver(name, submission)


def _head(version: str, kind: str, own_name: str, name: str, cluster: ClusterTable, component: str = "") -> Manifest:
    metadata = {"name": own_name, "namespace": cluster.namespace, "labels": _labels(name, component)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _labels(name: str, component: str = "") -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": "petaseg",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "petaseg",
    }
    return {**labels, "app.kubernetes.io/component": component} if component else labels


def _match(name: str, component: str) -> dict[str, str]:
    return {"app.kubernetes.io/instance": name, "app.kubernetes.io/component": component}


def _scale_rule(name: str, shapes: dict[str, WorkerShape]) -> Manifest:
    return {
        "apiGroups": ["apps"],
        "resources": ["deployments/scale"],
        "resourceNames": [f"{name}-{pool}" for pool in shapes],
        "verbs": ["get", "patch"],
    }


def _run_file(submission: Submission) -> str:
    """The configuration as the driver reads it; it holds no secret, since there is no key for one."""
    data = json.loads(submission.config.model_dump_json(exclude_unset=True))
    return dump_yaml({**formats.RUN_FILE.stamp, **data})


def _service(name: str, cluster: ClusterTable, shapes: list[str]) -> Manifest:
    """A headless Service, whose name resolves to the driver's pod."""
    ports = [{"name": pool, "port": PORTS[pool], "targetPort": pool} for pool in shapes]
    return {
        **_head("v1", "Service", name, name, cluster),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _match(name, "driver"),
            "ports": ports,
        },
    }


def _workers(name: str, cluster: ClusterTable, pool: str, shape: WorkerShape) -> Manifest:
    role = workers_of(pool)
    tls = Tls.at(Path(TLS_FOLDER)).environment()
    container = {
        "name": "worker",
        "command": [*PYTHON, "-m", "distributed.cli.dask_worker"],
        "args": _worker_options(shape),
        "env": _environment({"DASK_SCHEDULER_ADDRESS": f"tls://{name}:{PORTS[pool]}", **tls}),
        "resources": _resources(shape.cpus, shape.memory_gb, shape.gpus),
    }
    pod = _pod(name, cluster, container, drain_seconds=DRAIN_SECONDS)
    if shape.gpus:  # the usual taint that keeps other pods off nodes with GPUs
        pod["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if shape.node_selector:
        pod["nodeSelector"] = dict(shape.node_selector)
    return {
        **_head("apps/v1", "Deployment", f"{name}-{pool}", name, cluster, role),
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": _match(name, role)},
            "template": {"metadata": {"labels": _labels(name, role)}, "spec": pod},
        },
    }


def _worker_options(shape: WorkerShape) -> list[str]:
    """Arguments of ``dask worker``; secrets and addresses are in its environment, read by Dask itself."""
    options = {
        "--worker-class": WORKER_CLASS,
        "--nworkers": 1,
        "--nthreads": shape.threads,
        "--memory-limit": _bytes(shape.memory_gb),
        "--death-timeout": CONNECT_SECONDS,
        "--local-directory": "/tmp/dask",
        "--dashboard-address": "127.0.0.1:0",
        "--host": "$(POD_IP)",
    }
    return ["--nanny", "--no-dashboard", *(str(part) for option in options.items() for part in option)]


def _driver(name: str, submission: Submission) -> Manifest:
    cluster = submission.config.cluster
    inside = replace(submission, run_url=RUN_FILE)
    container = {
        "name": "driver",
        "command": list(PYTHON),
        "args": list(driver_command(inside, "kubernetes")),
        "env": _environment({NAME: name, TLS: TLS_FOLDER}, {NAMESPACE: "metadata.namespace"}),
        "ports": [{"name": pool, "containerPort": PORTS[pool]} for pool in pools(cluster)],
        "resources": _resources(cluster.driver.cpus, cluster.driver.memory_gb),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod = _pod(name, cluster, container, drain_seconds=30)
    pod |= {"serviceAccountName": name, "automountServiceAccountToken": True, "restartPolicy": "Never"}
    pod["volumes"].append({"name": "run", "configMap": {"name": name}})
    pod["containers"][0]["volumeMounts"].append({"name": "run", "mountPath": "/petaseg/run", "readOnly": True})
    labels = _labels(name, "driver")
    return {
        **_head("batch/v1", "Job", name, name, cluster, "driver"),
        "spec": {
            "backoffLimit": cluster.driver.restarts,
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "template": {"metadata": {"labels": labels, "annotations": _not_to_be_moved()}, "spec": pod},
        },
    }


def _not_to_be_moved() -> dict[str, str]:
    return {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}


def _pod(name: str, cluster: ClusterTable, container: Manifest, *, drain_seconds: int) -> Manifest:
    """The parts that driver and workers share: a pod without rights, its certificates and its data."""
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": f"{name}-tls", "defaultMode": 0o440}},
    ]
    mounts: list[Manifest] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True},
    ]
    if cluster.claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": cluster.claim}})
        mounts.append({"name": "data", "mountPath": DATA_FOLDER})
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {**container, "image": cluster.image, "workingDir": "/tmp", "securityContext": locked}
    container["volumeMounts"] = mounts
    if cluster.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in cluster.secrets]
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_seconds,
        "securityContext": _user(),
        "containers": [container],
        "volumes": volumes,
    }
    return {**pod, "imagePullSecrets": [{"name": cluster.image_pull_secret}]} if cluster.image_pull_secret else pod


def _user() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _environment(own: dict[str, str], own_fields: dict[str, str] | None = None) -> list[Manifest]:
    """Environment variables of a container: fields of its pod, and fixed values."""
    fields = {"PETASEG_JOB": "metadata.name", "POD_IP": "status.podIP", "PETASEG_NODE": "spec.nodeName"}
    fields |= own_fields or {}
    fixed = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "HOME": "/tmp", "OMP_NUM_THREADS": "1", **own}
    return [
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
        *({"name": key, "value": value} for key, value in fixed.items()),
    ]


def _resources(cpus: int, memory_gb: float, gpus: int = 0) -> Manifest:
    """Requests equal to limits, so that a pod's resources are guaranteed and it is the last to be evicted."""
    amounts = {"cpu": str(cpus), "memory": str(_bytes(memory_gb))}
    if gpus:
        amounts[GPU] = str(gpus)
    return {"requests": amounts, "limits": dict(amounts)}


def _bytes(memory_gb: float) -> int:
    return round(memory_gb * 1e9)
