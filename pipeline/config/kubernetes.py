"""The parts of the table ``cluster`` that only Kubernetes knows. No value can become a command or a part of a manifest.

Names, labels and paths have the forms that an API server accepts, so that a wrong one is refused before it is sent.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.base import Form, Line, Table

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
DOMAIN = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
RESERVED = (
    *("/bin", "/dev", "/etc", "/lib", "/lib64", "/opt/petaseg", "/petaseg", "/proc", "/run", "/sbin", "/sys", "/tmp"),
    *("/usr", "/var/run"),
)
"""Folders of a pod in which something else is: the system, Python, the run file, the certificates, scratch files."""
OWN_LABELS = "app.kubernetes.io/"
"""The prefix of the labels by which petaseg finds the resources of a run."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""The label by which Kueue knows the queue of a Job."""


ObjectName = Annotated[
    str, Form(DOMAIN, "is no name of a resource; write small letters, digits, - and ., at most 253, like em-data")
]
LabelKey = Annotated[
    str, Form(rf"(?:{DOMAIN}/)?{LABEL}", "is no key of a label; write name or domain/name, like example.org/team")
]
LabelValue = Annotated[
    str, Form(rf"(?:{LABEL})?", "is no value of a label; write at most 63 letters, digits and -_. in between")
]
QueueName = Annotated[str, Form(LABEL, "is no name of a queue; write at most 63 letters, digits and -_. in between")]
ResourceName = Annotated[
    str,
    Form(rf"{DOMAIN}/{LABEL}", "is no name of a device; write vendor/name, like amd.com/gpu or nvidia.com/mig-1g.5gb"),
]


def _check_mount_path(text: str) -> str:
    """The same path; ``ValueError`` if it is no plain absolute folder, or one that a pod uses otherwise."""
    path = PurePosixPath(text)
    if not re.fullmatch(r"(?:/[A-Za-z0-9_.@+-]+)+", text, re.ASCII) or {".", ".."} & set(path.parts):
        raise ValueError(
            f"{json.dumps(text)} is no folder to mount a claim at; write an absolute path of letters, digits and "
            "_.@+-, without .., like /lab/data"
        )
    taken = next((folder for folder in RESERVED if path.is_relative_to(folder)), None)
    if taken is not None:
        raise ValueError(f"{json.dumps(text)} is in {taken}, which pods need for something else; choose another folder")
    return text


def _check_sub_path(text: str) -> str:
    if not re.fullmatch(r"[^/\\:$\s]+(?:/[^/\\:$\s]+)*", text) or {".", ".."} & set(text.split("/")):
        raise ValueError(
            f"{json.dumps(text)} is no folder of a claim; write a path without / before it and without .., like ada/em"
        )
    return text


MountPath = Annotated[str, AfterValidator(_check_mount_path)]
SubPath = Annotated[Line, AfterValidator(_check_sub_path)]
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
UserId = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""The number of a user who is not root."""
Port = Annotated[int, Field(ge=1, le=65535)]
Scratch = Annotated[float, Field(ge=0.1, le=1e6)]


class Toleration(Table):
    """A taint of nodes that pods tolerate, as in a manifest."""

    key: LabelKey | None = None
    """Key of the taint; every taint if left out."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Equal: the taint has this value; Exists: any value."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; every effect if left out."""
    toleration_seconds: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """Seconds for which a pod stays on a node that gets the taint (NoExecute); for ever if left out."""

    @model_validator(mode="after")
    def _fits(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError(f"value is {self.value} and operator is Exists, which is any value; leave one of them out")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key is for every taint; write operator: Exists too")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(
                f"toleration_seconds is {self.toleration_seconds}, and only taints with NoExecute end pods; write "
                "effect: NoExecute, or leave it out"
            )
        return self


class PodOptions(Table):
    """The nodes of a pod and its standing among other pods."""

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have (Kubernetes)."""
    node_affinity: dict[LabelKey, Annotated[tuple[LabelValue, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Labels of which a node must have one of several values (Kubernetes)."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes on which pods may run nevertheless (Kubernetes); the usual one of GPUs is tolerated anyway."""
    priority_class: ObjectName | None = None
    """Name of a PriorityClass (Kubernetes)."""
    runtime_class: ObjectName | None = None
    """Name of a RuntimeClass, like nvidia (Kubernetes)."""
    scratch_gb: Scratch | None = None
    """Size of /tmp in GB, requested from the node and never exceeded (Kubernetes); not limited if left out."""


class WorkerPodOptions(PodOptions):
    """The same for a worker or a training, which may have a GPU."""

    gpu_resource: ResourceName = "nvidia.com/gpu"
    """Name of the resource that is a GPU, like amd.com/gpu or nvidia.com/mig-1g.5gb (Kubernetes)."""


class Claim(Table):
    """A persistent volume claim, or a folder of one, that every pod has."""

    claim: ObjectName
    """Name of the persistent volume claim."""
    path: MountPath
    """Folder of the pods at which it is mounted."""
    sub_path: SubPath | None = None
    """Folder of the claim that is mounted; the whole claim if left out."""
    read_only: bool = False
    """True if pods must not write there."""


class KubernetesTable(Table):
    """What a site may ask of every pod."""

    user: UserId | None = 1000
    """Number of the user of all processes (not 0, root); null if the namespace chooses it, as on OpenShift."""
    group: Id | None = 1000
    """Number of the group of all processes, to which new files on claims belong; null if the namespace chooses it."""
    supplemental_groups: tuple[Id, ...] = ()
    """Numbers of more groups of all processes, whose files they may open."""
    service_account: ObjectName | None = None
    """An existing ServiceAccount of all pods, for workload identity; if left out, one is made for the driver."""
    bind_role: bool = True
    """Make a Role by which the driver may set the size of its groups of workers; false if service_account may do so."""
    claims: tuple[Claim, ...] = ()
    """More claims, and folders of claims, at other paths than /data."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """More labels of all resources and pods."""
    annotations: dict[LabelKey, Line] = Field(default_factory=dict)
    """More annotations of all resources and pods."""
    queue: QueueName | None = None
    """Queue of Kueue: the Job is created suspended, and starts when this queue admits it."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When nodes fetch the image; Kubernetes' own rule if left out."""
    network_policy: bool = False
    """Restrict the network of all pods to the pods of the run, DNS and outside_ports."""
    outside_ports: tuple[Port, ...] = (443, 6443)
    """TCP ports of the API server and object stores, which network_policy leaves open."""

    @model_validator(mode="after")
    def _fits(self) -> KubernetesTable:
        own = next((key for key in self.labels if key.startswith(OWN_LABELS)), None)
        if own is not None:
            raise ValueError(f"labels has {own}, by which petaseg finds what belongs to a run; use another label")
        if self.queue not in (None, self.labels.get(QUEUE_LABEL, self.queue)):
            raise ValueError(
                f"queue is {self.queue} and the label {QUEUE_LABEL} is {self.labels[QUEUE_LABEL]}; leave one out"
            )
        return self
