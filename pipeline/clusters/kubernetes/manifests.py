"""The Kubernetes resources of a run: plain dictionaries, made from the configuration alone.

    ServiceAccount, Role, RoleBinding   the driver may read and set the size of its own Deployments, nothing else
    ConfigMap                           run.yaml
    Secret                              certificates of the run; made when it is submitted, not here
    NetworkPolicy                       who may talk to the pods of the run, if the run file asks for one
    Job                                 the driver, started again when it dies
    Service                             a name for the driver on any node; one port for each pool
    Deployments, one for each pool      workers, none at first; the driver sets their number, and lost ones are replaced

``jobs.py`` makes the Job, ``pods.py`` the pods of Job and Deployments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline import formats
from pipeline.clusters.base import GENERAL, INFERENCE, LARGE, Submission, driver_command, large, worker_shapes
from pipeline.clusters.kubernetes.jobs import (
    DRIVER,
    INSTANCE,
    PYTHON,
    STOP_SECONDS,
    Manifest,
    check_image,
    container_of,
    head,
    job_of,
    queued,
    resource_name,
)
from pipeline.clusters.kubernetes.network import policy, watched_ports
from pipeline.clusters.kubernetes.places import check_reachable
from pipeline.clusters.kubernetes.pods import (
    TLS_FOLDER,
    certified,
    environment,
    in_bytes,
    pod_of,
    resources,
    template,
)
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import ClusterTable, WorkerShape
from pipeline.config.paths import paths_in
from pipeline.config.strict_yaml import Dumper, dump_yaml
from pipeline.errors import ConfigError

PORTS = {GENERAL: 13786, INFERENCE: 13787, f"{GENERAL}{LARGE}": 13788, f"{INFERENCE}{LARGE}": 13789}
"""Pool -> port of its scheduler in the driver."""
RBAC = "rbac.authorization.k8s.io"
WORKER_CLASS = "pipeline.clusters.worker.DrainingWorker"
RUN_FILE_IN_POD = "/petaseg/run/run.yaml"
DRAIN_SECONDS = 60
"""Seconds between the request to stop a worker and its kill, in which it returns its chunks."""
CONNECT_SECONDS = 300
"""A worker that finds no scheduler for this time ends, and is started again."""
NAME, NAMESPACE, TLS = "PETASEG_NAME", "PETASEG_NAMESPACE", "PETASEG_TLS"
"""Environment variables by which a driver finds its resources and certificates."""


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
    check_image(cluster)
    if not cluster.kubernetes.bind_role and cluster.kubernetes.service_account is None:
        raise ConfigError(
            "cluster.kubernetes.bind_role is false, so the driver has no right to start workers but that of "
            "cluster.kubernetes.service_account, which is left out; name that ServiceAccount, or leave bind_role out"
        )
    config = submission.config
    check_reachable(paths_in(config), ("run_directory", config.run_directory), cluster)
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
    return {**head("v1", "Secret", f"{name}-tls", name, cluster), "type": "Opaque", "data": files}


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
    yield {**head("v1", "ConfigMap", name, name, cluster), "data": {"run.yaml": _run_file(submission)}}
    if cluster.kubernetes.network_policy:
        own = head("networking.k8s.io/v1", "NetworkPolicy", name, name, cluster)
        yield {**own, "spec": policy(cluster, {INSTANCE: name}, watched_ports(submission.config))}
    yield _service(name, cluster, list(shapes))
    for pool, shape in shapes.items():
        yield _workers(name, cluster, pool, shape)
    yield _driver(name, submission)


def _access(name: str, cluster: ClusterTable, shapes: dict[str, WorkerShape]) -> Iterator[Manifest]:
    """The driver's account and its right to set the size of its Deployments, unless the site has made them."""
    table = cluster.kubernetes
    account = table.service_account or name
    if table.service_account is None:
        yield {**head("v1", "ServiceAccount", name, name, cluster), "automountServiceAccountToken": False}
    if table.bind_role:
        yield {**head(f"{RBAC}/v1", "Role", name, name, cluster), "rules": [_scale_rule(name, shapes)]}
        yield {
            **head(f"{RBAC}/v1", "RoleBinding", name, name, cluster),
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": cluster.namespace}],
        }


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
        **head("v1", "Service", name, name, cluster),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _match(name, DRIVER),
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
        "resources": resources(shape.cpus, shape.memory_gb, shape, shape.gpus),
    }
    pod = pod_of(cluster, shape, container, drain_seconds=DRAIN_SECONDS)
    deployment = {
        **head("apps/v1", "Deployment", f"{name}-{pool}", name, cluster, role),
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": _match(name, role)},
            "template": template(name, cluster, role, certified(pod, name), {}),
        },
    }
    return queued(deployment, cluster)


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
    container = container_of(
        *(DRIVER, tuple(driver_command(inside, "kubernetes"))),
        *({NAME: name, TLS: TLS_FOLDER}, {NAMESPACE: "metadata.namespace"}),
        resources(cluster.driver.cpus, cluster.driver.memory_gb, cluster.driver),
        ports=[{"name": pool, "containerPort": PORTS[pool]} for pool in pools(cluster)],
    )
    pod = certified(pod_of(cluster, cluster.driver, container, drain_seconds=STOP_SECONDS), name)
    pod["serviceAccountName"] = cluster.kubernetes.service_account or name
    pod["automountServiceAccountToken"] = True
    pod["volumes"].append({"name": "run", "configMap": {"name": name}})
    pod["containers"][0]["volumeMounts"].append({"name": "run", "mountPath": "/petaseg/run", "readOnly": True})
    return job_of(name, cluster, DRIVER, pod)
