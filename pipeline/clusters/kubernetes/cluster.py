"""Kubernetes, through plain resources that any cluster accepts; ``manifests.py`` and ``training.py`` make them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.clusters.base import DriverJob, JobState, LoneJob, Submission, dashboard_of
from pipeline.clusters.kubernetes import manifests as made
from pipeline.clusters.kubernetes.api import Api
from pipeline.clusters.kubernetes.jobs import DRIVER, TRAINING, Manifest, resource_name
from pipeline.clusters.kubernetes.releases import fitted
from pipeline.clusters.kubernetes.training import training_manifests
from pipeline.clusters.tls import Tls, create_tls
from pipeline.config.cluster import WorkerShape
from pipeline.errors import ClusterError

if TYPE_CHECKING:
    from pipeline.clusters.kubernetes.pool import KubernetesPool

END_SECONDS = 180
"""How long ``cancel`` waits for pods to end; they have ``DRAIN_SECONDS``."""
NO_VERDICT = ('cannot create resource "pods"', "does not support dry run")
"""Refusals that are no verdict on a pod: no right to create pods, or a hook that supports no dry run.
"""
UNKNOWN = "there is no Job of this name: it was cancelled, or it finished more than eight hours ago"


class KubernetesCluster:
    """See ``Cluster``."""

    name = "kubernetes"

    def render(self, submission: Submission) -> dict[str, str]:
        """``manifests.yaml``: every resource; the Secret's certificates are made when it is submitted."""
        documents = made.manifests(submission)
        name, cluster = resource_name(submission.run_url), submission.config.cluster
        hidden = made.tls_secret(name, cluster, dict.fromkeys(("ca.pem", "cert.pem", "key.pem"), ""))
        note = "# The certificates of this Secret are made when the run is submitted.\n"
        text = made.to_yaml(documents)
        return {"manifests.yaml": f"{text}---\n{note}{made.to_yaml([hidden])}"}

    def submit(self, submission: Submission) -> DriverJob:
        """Create all resources, or none; without what the server's release does not know."""
        documents = made.manifests(submission)
        name, cluster = resource_name(submission.run_url), submission.config.cluster
        secret = made.tls_secret(name, cluster, _new_certificates())
        api = Api(cluster.namespace, submission.run_url)
        return self._submitted(api, name, [secret, *documents], f"works on {submission.run_url} already", "status")

    def render_lone(self, job: LoneJob) -> dict[str, str]:
        """See ``LoneJobs``."""
        return {"manifests.yaml": made.to_yaml(training_manifests(job))}

    def submit_lone(self, job: LoneJob) -> DriverJob:
        """See ``LoneJobs``; all resources are created, or none."""
        documents = training_manifests(job)
        api = Api(job.cluster.namespace, job.file)
        return self._submitted(api, resource_name(job.url), documents, f"trains into {job.url} already", "logs")

    def _submitted(self, api: Api, name: str, documents: list[Manifest], alive: str, look: str) -> DriverJob:
        """Create resources. alive, look: what a Job of this name would be doing, and the command that shows it."""
        documents = fitted(documents, api.release())
        _make_room(api, name, alive, look)
        for pod in _one_pod_of_each(documents):
            _check_accepted(api, pod)
        try:
            for document in documents:
                created = api.create(document)
            _hand_over(api, documents, created)
        except BaseException:
            _remove(api, name)
            raise
        return DriverJob(self.name, name, {"namespace": api.namespace})

    def state(self, job: DriverJob) -> JobState:
        """The state of the Job and of the pods of driver and workers."""
        from pipeline.clusters.kubernetes.state import job_state

        api = Api(job.details["namespace"])
        found = api.read("Job", job.id)
        return JobState("unknown", UNKNOWN) if found is None else job_state(api, found)

    def logs(self, job: DriverJob, *, workers: bool = False) -> Iterator[str]:
        """Lines of every driver or training that was started, the oldest first, or of each present worker."""
        api = Api(job.details["namespace"])
        for pod in api.find("Pod", made.selector(job.id)):
            name = pod["metadata"]["name"]
            if (pod["metadata"]["labels"]["app.kubernetes.io/component"] in (DRIVER, TRAINING)) == workers:
                continue
            if workers:
                yield f"==> {name} <=="
            yield from api.log(name)

    def cancel(self, job: DriverJob) -> None:
        """Delete all resources of the run, and wait until its pods have ended."""
        _remove(Api(job.details["namespace"]), job.id)

    def pool(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> KubernetesPool:
        """See ``Cluster``; the workers' Deployment has the same shape, since it is made from the same run file."""
        from pipeline.clusters.kubernetes.pool import KubernetesPool

        return KubernetesPool(name, made.pools(submission.config.cluster), tls, dashboard_of(submission.config, name))


def _new_certificates() -> dict[str, str]:
    """New certificates in the form of a Secret."""
    with TemporaryDirectory() as folder:
        create_tls(Path(folder))
        return {file.name: base64.b64encode(file.read_bytes()).decode() for file in Path(folder).iterdir()}


def _make_room(api: Api, name: str, alive: str, look: str) -> None:
    """Delete the resources of an earlier submission of this folder; ``ClusterError`` if it is still running."""
    job = api.read("Job", name)
    ended = {"Complete", "Failed"} & {c["type"] for c in (job or {}).get("status", {}).get("conditions", ())}
    if job is not None and not ended:
        file = quote(api.run_url)
        raise ClusterError(
            f"Job {name} in namespace {api.namespace} {alive}; look at it with `petaseg {look} {file}`, or end it with "
            f"`petaseg cancel {file}`"
        )
    _remove(api, name)


def _remove(api: Api, name: str) -> None:
    """Delete all resources; pods first, so that they still have the rights for their last requests."""
    api.delete("Job", name)
    for pool in made.PORTS:
        api.delete("Deployment", f"{name}-{pool}")
    _wait_for_end(api, name)
    for kind in ("Service", "ConfigMap"):
        api.delete(kind, name)
    api.delete("Secret", f"{name}-tls")
    for kind in ("NetworkPolicy", "RoleBinding", "Role", "ServiceAccount"):
        _delete_if_allowed(api, kind, name)


def _delete_if_allowed(api: Api, kind: str, name: str) -> None:
    """Delete what only some runs have: a user who may not delete this kind has made none, or the Job takes it along."""
    try:
        api.delete(kind, name)
    except ClusterError as error:
        if "is forbidden: User" not in str(error):
            raise


def _wait_for_end(api: Api, name: str) -> None:
    end = time.monotonic() + END_SECONDS
    while pods := api.find("Pod", made.selector(name)):
        if time.monotonic() > end:
            names = ", ".join(pod["metadata"]["name"] for pod in pods)
            raise ClusterError(
                f"pods {names} have been told to end and are still there after {END_SECONDS} s, perhaps on a node that "
                f"is lost; look at them with: kubectl get pods -n {api.namespace} -l {made.selector(name)}"
            )
        time.sleep(0.2)


def _one_pod_of_each(documents: list[Manifest]) -> Iterator[Manifest]:
    """One pod of the driver or training and one of each kind of worker, to be tested against the cluster's rules."""
    for document in documents:
        if document["kind"] not in ("Job", "Deployment"):
            continue
        template, head = document["spec"]["template"], document["metadata"]
        metadata = {**template["metadata"], "generateName": f"{head['name']}-", "namespace": head["namespace"]}
        spec = dict(template["spec"])
        if spec.get("serviceAccountName") == head["name"]:  # its own, which is not created yet
            del spec["serviceAccountName"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _check_accepted(api: Api, pod: Manifest) -> None:
    """Raise ``ClusterError`` if a quota or another rule of the namespace refuses such a pod.

    Without this check, Kubernetes would accept the Job, create no pod, and report that only in an event.
    """
    try:
        api.create(pod, dry_run=True)
    except ClusterError as error:
        if not any(harmless in str(error) for harmless in NO_VERDICT):
            raise


def _hand_over(api: Api, documents: list[Manifest], job: Manifest) -> None:
    """Make the Job the owner of all resources, so that Kubernetes deletes them some time after the Job has ended."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    change = {"metadata": {"ownerReferences": [owner]}}
    for document in documents:
        if document["kind"] != "Job":
            api.patch(document["kind"], document["metadata"]["name"], change)
