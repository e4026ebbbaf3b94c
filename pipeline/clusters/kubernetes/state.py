"""The ``JobState`` of a run or training on a Kubernetes cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.clusters.base import JobState
from pipeline.clusters.kubernetes import manifests as made
from pipeline.clusters.kubernetes.api import Api
from pipeline.clusters.kubernetes.jobs import DRIVER, TRAINING, Manifest
from pipeline.config.kubernetes import QUEUE_LABEL
from pipeline.errors import counted

_IMAGE = "correct cluster.image, or name the Secret for its registry in cluster.image_pull_secret"
REMEDIES = {
    "OOMKilled": "it took more memory than it has: raise cluster.driver.memory_gb and submit again",
    "Evicted": "the node ran out of something; submit again, and raise what the message names",
    "ImagePullBackOff": _IMAGE,
    "ErrImagePull": _IMAGE,
    "InvalidImageName": _IMAGE,
    "ErrImageNeverPull": _IMAGE,
    "CreateContainerConfigError": "correct cluster.secrets: each must be a Secret of this namespace",
    "ContainerCannotRun": "cluster.image is no image of petaseg, or one for other processors",
    "StartError": "cluster.image is no image of petaseg, or one for other processors",
}
"""Reason in Kubernetes' words -> the remedy."""

LEADERS = (DRIVER, TRAINING)
WORKERS = {
    "OOMKilled": "; raise memory_gb of cluster.workers or cluster.inference_workers",
    "ContainerCannotRun": "; cluster.image is no image of petaseg, or one for other processors",
    "StartError": "; cluster.image is no image of petaseg, or one for other processors",
}
"""Reason why the node ended a worker -> the remedy."""


def job_state(api: Api, job: Manifest) -> JobState:
    """The state of the Job of a driver or training, its pod, and the workers."""
    name, status = job["metadata"]["name"], job.get("status", {})
    pods = api.find("Pod", made.selector(name))
    drivers = [pod for pod in pods if _component(pod) in LEADERS]
    phases = Counter(pod["status"]["phase"] for pod in pods if _component(pod) not in LEADERS)
    restarts = max(0, len(drivers) - 1)
    workers = {"workers_running": phases["Running"], "workers_pending": phases["Pending"]}
    ended = {c["type"]: c.get("message", "") for c in status.get("conditions", ()) if c["status"] == "True"}
    if "Complete" in ended:
        return JobState("finished", restarts=restarts)
    if "Failed" in ended:
        words = list(_last_words(drivers)) or api.complaints("Job", name)[-1:]  # its pod may be deleted
        return JobState("failed", _join(ended["Failed"], *words), restarts)
    running = drivers and drivers[-1]["status"]["phase"] == "Running"
    if running:
        return JobState("running", _join(*_last_words(drivers), *_short_of_workers(api, name)), restarts, **workers)
    if job.get("spec", {}).get("suspend"):
        return JobState("pending", _join(_suspended(job), *_last_words(drivers)), restarts, **workers)
    reasons = _why_a_driver_waits(api, drivers[-1]) if drivers else api.complaints("Job", name)[-1:]
    return JobState("pending", _join(*reasons, *_last_words(drivers)), restarts, **workers)


def _suspended(job: Manifest) -> str:
    """Why a Job may not start its driver: a queue has not admitted it, or somebody has suspended it."""
    head = job["metadata"]
    queue, look = head.get("labels", {}).get(QUEUE_LABEL), f"kubectl get job {head['name']} -n {head.get('namespace')}"
    if queue is None:
        return f"the Job is suspended; look at it with: {look} -o yaml"
    workloads = f"kubectl get workloads -n {head.get('namespace')}"
    return f"the Job waits until Kueue admits it to the queue {queue}; its turn and its quota: {workloads}"


def _why_a_driver_waits(api: Api, pod: Manifest) -> list[str]:
    """What its status says, and the last warning about it: a missing claim or Secret stands only there."""
    said = [reason for reason in _why_it_waits([pod]) if reason]
    if said and said != ["ContainerCreating"]:
        return said
    return api.complaints("Pod", pod["metadata"].get("name", ""))[-1:] or said


def _component(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def _last_words(drivers: list[Manifest]) -> Iterator[str]:
    """Why the driver or training that failed last ended: the node's reason, and its own last message."""
    for pod in reversed(drivers):
        who = f"the {_component(pod)}"
        words = [*_why_the_pod_ended(who, pod["status"]), *_why_containers_ended(who, pod["status"])]
        if words:
            yield from words
            return


def _why_the_pod_ended(who: str, status: Manifest) -> Iterator[str]:
    """The words of a node that ended a whole pod: Evicted, NodeLost, DeadlineExceeded, Preempting."""
    if status.get("phase") == "Failed" and (status.get("reason") or status.get("message")):
        yield _said(f"the pod of {who} was ended", status)
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            yield _said(f"the pod of {who} was ended", condition)


def _why_containers_ended(who: str, status: Manifest) -> Iterator[str]:
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        for part in ("state", "lastState"):
            ended = (container.get(part) or {}).get("terminated")
            if ended and (ended.get("exitCode") or ended.get("signal")):
                yield _how_it_ended(who, ended)
                break


def _how_it_ended(who: str, ended: Manifest) -> str:
    """Status, reason and last message of a container, with the remedy for what a user can mend."""
    reason, code = ended.get("reason") or "", ended.get("exitCode")
    named = f" ({reason})" if reason not in ("", "Error") else ""
    message = " ".join((ended.get("message") or "").split())
    said = f"{who} ended with status {code}{named}" + (f": {message}" if message else "")
    return f"{said}; {REMEDIES[reason]}" if reason in REMEDIES else said


def _why_it_waits(pods: list[Manifest]) -> Iterator[str]:
    """The reasons why pods do not run: no node for them, no image, a volume or Secret that is missing."""
    for pod in pods:
        for condition in pod["status"].get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield condition.get("message", "")
        for container in pod["status"].get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting")
            if waiting:
                reason = waiting.get("reason", "")
                said = ": ".join(filter(None, (reason, " ".join(waiting.get("message", "").split()))))
                yield f"{said}; {REMEDIES[reason]}" if reason in REMEDIES else said


def _said(what: str, words: Manifest) -> str:
    reason, message = words.get("reason") or "", " ".join((words.get("message") or "").split())
    said = f"{what}: {': '.join(filter(None, (reason, message)))}"
    return f"{said}; {REMEDIES[reason]}" if reason in REMEDIES else said


def _short_of_workers(api: Api, name: str) -> Iterator[str]:
    """The reasons why there are fewer workers than the driver requested: a quota, no free node."""
    for deployment in api.find("Deployment", made.selector(name)):
        for condition in deployment.get("status", {}).get("conditions", ()):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                yield condition.get("message", "")
    workers = [pod for pod in api.find("Pod", made.selector(name)) if _component(pod) not in LEADERS]
    yield from sorted(set(_why_it_waits(workers)))
    ends = Counter(reason for pod in workers for reason in _how_a_worker_ended(pod["status"]))
    for reason, count in sorted(ends.items()):
        yield f"{counted(count, 'worker')} {'was' if count == 1 else 'were'} ended: {reason}{WORKERS.get(reason, '')}"


def _how_a_worker_ended(status: Manifest) -> Iterator[str]:
    """Reasons for which a node ended a worker; the end of a worker in order has none."""
    if status.get("phase") == "Failed" and status.get("reason"):
        yield str(status["reason"])
        return
    for container in status.get("containerStatuses") or ():
        for part in ("state", "lastState"):
            ended = (container.get(part) or {}).get("terminated") or {}
            if ended.get("reason") in WORKERS:
                yield ended["reason"]
                break


def _join(*reasons: str) -> str:
    return "; ".join(reason for reason in dict.fromkeys(reasons) if reason)
