"""The ``JobState`` of a run on a Kubernetes cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.clusters.base import JobState
from pipeline.clusters.kubernetes import manifests as made
from pipeline.clusters.kubernetes.api import Api
from pipeline.clusters.kubernetes.manifests import Manifest


def job_state(api: Api, job: Manifest) -> JobState:
    """The state of a driver's Job, its pod, and the workers."""
    name, status = job["metadata"]["name"], job.get("status", {})
    pods = api.find("Pod", made.selector(name))
    drivers = [pod for pod in pods if _component(pod) == "driver"]
    phases = Counter(pod["status"]["phase"] for pod in pods if _component(pod) != "driver")
    restarts = max(0, len(drivers) - 1)
    workers = {"workers_running": phases["Running"], "workers_pending": phases["Pending"]}
    ended = {c["type"]: c.get("message", "") for c in status.get("conditions", ()) if c["status"] == "True"}
    if "Complete" in ended:
        return JobState("finished", restarts=restarts)
    if "Failed" in ended:
        return JobState("failed", _join(ended["Failed"], *_last_words(drivers)), restarts)
    running = drivers and drivers[-1]["status"]["phase"] == "Running"
    if running:
        return JobState("running", _join(*_last_words(drivers), *_short_of_workers(api, name)), restarts, **workers)
    reasons = _why_it_waits(drivers[-1:]) if drivers else api.complaints("Job", name)[-1:]
    return JobState("pending", _join(*reasons, *_last_words(drivers)), restarts, **workers)


def _component(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def _last_words(drivers: list[Manifest]) -> Iterator[str]:
    """The last message of the driver that failed last."""
    for pod in reversed(drivers):
        for container in pod["status"].get("containerStatuses", ()):
            ended = container.get("state", {}).get("terminated")
            if ended and ended["exitCode"]:
                text = " ".join((ended.get("message") or ended.get("reason", "")).split())
                yield f"the driver ended with status {ended['exitCode']}: {text}"
                return


def _why_it_waits(pods: list[Manifest]) -> Iterator[str]:
    """The reasons why pods do not run: no node for them, no image."""
    for pod in pods:
        for condition in pod["status"].get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield condition.get("message", "")
        for container in pod["status"].get("containerStatuses", ()):
            waiting = container.get("state", {}).get("waiting")
            if waiting:
                yield f"{waiting.get('reason', '')}: {waiting.get('message', '')}"


def _short_of_workers(api: Api, name: str) -> Iterator[str]:
    """The reasons why there are fewer workers than the driver requested: a quota, no free node."""
    for deployment in api.find("Deployment", made.selector(name)):
        for condition in deployment.get("status", {}).get("conditions", ()):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                yield condition.get("message", "")
    waiting = [pod for pod in api.find("Pod", made.selector(name)) if pod["status"]["phase"] == "Pending"]
    yield from set(_why_it_waits(waiting))


def _join(*reasons: str) -> str:
    return "; ".join(reason for reason in dict.fromkeys(reasons) if reason)
