"""The Kubernetes resources of a run: plain dictionaries, made from the configuration alone.

    ServiceAccount, Role, RoleBinding   the driver may read and set the size of its own Deployments, nothing else
    ConfigMap                           run.yaml
    Secret                              certificates of the run; made when it is submitted, not here
    NetworkPolicy                       who may talk to the pods of the run, if the run file asks for one
    Job                                 the driver, started again when it dies
    Service                             a name for the driver on any node; one port for each pool
    Deployments, one for each pool      workers, none at first; the driver sets their number, and lost ones are replaced

``pods.py`` makes the pods of Job and Deployments.
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
from pipeline.clusters.kubernetes.network import policy
from pipeline.clusters.kubernetes.places import check_reachable
from pipeline.clusters.kubernetes.pods import TLS_FOLDER, environment, in_bytes, labels, pod_of, resources, template
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import ClusterTable, WorkerShape
from pipeline.config.kubernetes import QUEUE_LABEL
from pipeline.config.strict_yaml import Dumper, dump_yaml
from pipeline.errors import ConfigError

Manifest = dict[str, Any]

PORTS = {GENERAL: 13786, INFERENCE: 13787, f"{GENERAL}{LARGE}": 13788, f"{INFERENCE}{LARGE}": 13789}
"""Pool -> port of its scheduler in the driver."""
INSTANCE = "app.kubernetes.io/instance"
"""The label with the run's name."""
RBAC = "rbac.authorization.k8s.io"
PYTHON = ("python", "-P")
WORKER_CLASS = "pipeline.clusters.worker.DrainingWorker"
RUN_FILE_IN_POD = "/petaseg/run/run.yaml"
FINAL_STATUS = 78
"""Exit status of a driver for an error that no other start mends; "wrong configuration" in sysexits.h."""
USAGE_STATUS = 2
"""Exit status of a driver whose image does not know the driver's own command, or an option of it."""
KEEP_SECONDS = 8 * 3600
"""How long a finished Job is kept for its logs; then Kubernetes deletes it and all resources that it owns."""
DRAIN_SECONDS = 60
"""Seconds between the request to stop a worker and its kill, in which it returns its chunks."""
CONNECT_SECONDS = 300
"""A worker that finds no scheduler for this time ends, and is started again."""
NAME, NAMESPACE, TLS = "PETASEG_NAME", "PETASEG_NAMESPACE", "PETASEG_TLS"
"""Environment variables by which a driver finds its resources and certificates."""
FINAL = "PETASEG_FINAL_STATUS"
"""Environment variable that gives a driver ``FINAL_STATUS``."""


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
    cluster = submission.config.cluster
    if not cluster.image:
        raise ConfigError(
            "cluster.image is not set; Kubernetes needs the container image of petaseg: build deploy/docker/Dockerfile "
            "and name it, like cluster.image: registry.example.org/petaseg:1.0"
        )
    if not cluster.kubernetes.bind_role and cluster.kubernetes.service_account is None:
        raise ConfigError(
            "cluster.kubernetes.bind_role is false, so the driver has no right to start workers but that of "
            "cluster.kubernetes.service_account, which is left out; name that ServiceAccount, or leave bind_role out"
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
    parts = {INSTANCE: name, **({"app.kubernetes.io/component": component} if component else {})}
    return ",".join(f"{key}={value}" for key, value in parts.items())


def workers_of(pool: str) -> str:
    """Label of a pool's workers."""
    return f"worker-{pool}"


def _documents(submission: Submission, name: str) -> Iterator[Manifest]:
    cluster = submission.config.cluster
    shapes = pools(cluster)
    yield from _access(name, cluster, shapes)
    yield {**_head("v1", "ConfigMap", name, name, cluster), "data": {"run.yaml": _run_file(submission)}}
    if cluster.kubernetes.network_policy:
        head = _head("networking.k8s.io/v1", "NetworkPolicy", name, name, cluster)
        yield {**head, "spec": policy(submission.config, {INSTANCE: name})}
    yield _service(name, cluster, list(shapes))
    for pool, shape in shapes.items():
        yield _workers(name, cluster, pool, shape)
    yield _driver(name, submission)


def _access(name: str, cluster: ClusterTable, shapes: dict[str, WorkerShape]) -> Iterator[Manifest]:
    """The driver's account and its right to set the size of its Deployments, unless the site has made them."""
    table = cluster.kubernetes
    account = table.service_account or name
    if table.service_account is None:
        yield {**_head("v1", "ServiceAccount", name, name, cluster), "automountServiceAccountToken": False}
    if table.bind_role:
        yield {**_head(f"{RBAC}/v1", "Role", name, name, cluster), "rules": [_scale_rule(name, shapes)]}
        yield {
            **_head(f"{RBAC}/v1", "RoleBinding", name, name, cluster),
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": cluster.namespace}],
        }


def _head(version: str, kind: str, own_name: str, name: str, cluster: ClusterTable, component: str = "") -> Manifest:
    table = cluster.kubernetes
    metadata = {"name": own_name, "namespace": cluster.namespace, "labels": labels(name, cluster, component)}
    if table.annotations:
        metadata["annotations"] = dict(table.annotations)
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _queued(document: Manifest, cluster: ClusterTable) -> Manifest:
    """The same Job or Deployment in the run file's queue of Kueue, if it names one; a Job waits for its admission."""
    queue = cluster.kubernetes.queue or cluster.kubernetes.labels.get(QUEUE_LABEL)
    if queue is None:
        return document
    document["metadata"]["labels"][QUEUE_LABEL] = queue
    if document["kind"] == "Job":
        document["spec"]["suspend"] = True
    return document


def _match(name: str, component: str) -> dict[str, str]:
    return {INSTANCE: name, "app.kubernetes.io/component": component}


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
        "env": environment({"DASK_SCHEDULER_ADDRESS": f"tls://{name}:{PORTS[pool]}", **tls}),
        "resources": resources(shape.cpus, shape.memory_gb, shape),
    }
    deployment = {
        **_head("apps/v1", "Deployment", f"{name}-{pool}", name, cluster, role),
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": _match(name, role)},
            "template": template(
                name, cluster, role, pod_of(name, cluster, shape, container, drain_seconds=DRAIN_SECONDS), {}
            ),
        },
    }
    return _queued(deployment, cluster)


def _worker_options(shape: WorkerShape) -> list[str]:
    """Arguments of ``dask worker``; secrets and addresses are in its environment, read by Dask itself."""
    options = {
        "--worker-class": WORKER_CLASS,
        "--nworkers": 1,
        "--nthreads": shape.threads,
        "--memory-limit": in_bytes(shape.memory_gb),
        "--death-timeout": CONNECT_SECONDS,
        "--local-directory": "/tmp/dask",
        "--dashboard-address": "127.0.0.1:0",
        "--host": "$(POD_IP)",
    }
    return ["--nanny", "--no-dashboard", *(str(part) for option in options.items() for part in option)]


def _driver(name: str, submission: Submission) -> Manifest:
    cluster = submission.config.cluster
    inside = replace(submission, run_url=RUN_FILE_IN_POD)
    container = {
        "name": "driver",
        "command": list(PYTHON),
        "args": list(driver_command(inside, "kubernetes")),
        "env": environment({NAME: name, TLS: TLS_FOLDER, FINAL: str(FINAL_STATUS)}, {NAMESPACE: "metadata.namespace"}),
        "ports": [{"name": pool, "containerPort": PORTS[pool]} for pool in pools(cluster)],
        "resources": resources(cluster.driver.cpus, cluster.driver.memory_gb, cluster.driver),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod = pod_of(name, cluster, cluster.driver, container, drain_seconds=30)
    pod["serviceAccountName"] = cluster.kubernetes.service_account or name
    pod |= {"automountServiceAccountToken": True, "restartPolicy": "Never"}
    pod["volumes"].append({"name": "run", "configMap": {"name": name}})
    pod["containers"][0]["volumeMounts"].append({"name": "run", "mountPath": "/petaseg/run", "readOnly": True})
    job = {
        **_head("batch/v1", "Job", name, name, cluster, "driver"),
        "spec": {
            "backoffLimit": cluster.driver.restarts,
            "podFailurePolicy": {"rules": _which_ends_count()},
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "template": template(name, cluster, "driver", pod, _not_to_be_moved()),
        },
    }
    return _queued(job, cluster)


def _which_ends_count() -> list[Manifest]:
    """Which ends of a driver count as restarts: not those by the cluster; and after which no restart can help."""
    final = {"containerName": "driver", "operator": "In", "values": [USAGE_STATUS, FINAL_STATUS]}
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": final},
    ]


def _not_to_be_moved() -> dict[str, str]:
    return {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
