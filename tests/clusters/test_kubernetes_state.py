"""``petaseg status`` says why a driver waits or died on Kubernetes: answers of an API server, as they are recorded."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.clusters import kubernetes_state
from pipeline.clusters.kubernetes.state import job_state
from pipeline.config.kubernetes import QUEUE_LABEL

JOB: dict[str, Any] = {"metadata": {"name": "petaseg-0123"}, "status": {}}
FAILED = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the limit"}


class Recorded:
    """An API whose answers are given."""

    def __init__(self, *pods: dict[str, Any], complaints: dict[str, list[str]] | None = None) -> None:
        self.pods, self.said = list(pods), complaints or {}

    def find(self, kind: str, selector: str) -> list[dict[str, Any]]:
        """The pods; no Deployment has a condition."""
        return self.pods if kind == "Pod" else []

    def complaints(self, kind: str, name: str) -> list[str]:
        """Warnings about a kind of resource."""
        return self.said.get(kind, [])


def pod(component: str = "driver", **status: Any) -> dict[str, Any]:
    """A pod of a driver or of a worker."""
    labels = {"app.kubernetes.io/component": component}
    return {"metadata": {"name": f"{component}-x", "labels": labels}, "status": {"phase": "Pending", **status}}


def ended(part: str = "state", **how: Any) -> dict[str, Any]:
    """The status of a container that ended, now or before its last start."""
    return {"containerStatuses": [{"name": "driver", part: {"terminated": {"exitCode": 1, **how}}}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The status of a container that has not started."""
    return {"containerStatuses": [{"name": "driver", "state": {"waiting": {"reason": reason, "message": message}}}]}


def reason(*pods: dict[str, Any], failed: bool = True, **said: Any) -> str:
    """The reason that is shown for a Job with these pods."""
    job = {**JOB, "status": {"conditions": [FAILED]}} if failed else JOB
    return job_state(Recorded(*pods, **said), job).reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {
                "reason": "Evicted",
                "message": "The node was low on resource: ephemeral-storage. Threshold quantity: 10%",
            },
            ["Evicted", "low on resource: ephemeral-storage", "submit again"],
        ),
        ({"reason": "NodeLost", "message": "Node n7 is not ready"}, ["NodeLost", "n7"]),
        ({"reason": "DeadlineExceeded"}, ["DeadlineExceeded"]),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            ["PreemptionByScheduler"],
        ),
        (
            ended(exitCode=137, reason="OOMKilled", message="INFO chunk 7"),
            ["137", "OOMKilled", "cluster.driver.memory_gb"],
        ),
        (ended("lastState", exitCode=137, reason="OOMKilled"), ["OOMKilled"]),
        (ended(exitCode=1, reason="Error", message="petaseg: no such\nvolume"), ["status 1: petaseg: no such volume"]),
        (ended(exitCode=128, reason="StartError", message="exec format error"), ["StartError", "other processors"]),
        (ended(exitCode=137), ["ended with status 137"]),
        ({"reason": "Evicted", "containerStatuses": None, "conditions": None}, ["Evicted"]),
    ],
)
def test_a_dead_driver_has_a_cause(status: dict[str, Any], words: list[str]) -> None:
    """The node's words stand beside those of the Job, with what to do."""
    found = reason(pod(phase="Failed", **status))
    assert found.startswith("Job has reached the limit; ")
    assert all(word in found for word in words), found


def test_a_driver_that_no_start_helps_says_why() -> None:
    """A Job that its rules for failed pods ended names the rule, and what the driver said."""
    rule = "Container driver for pod em/petaseg-0 failed with exit code 78 matching FailJob rule at index 1"
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": rule}
    driver = pod(phase="Failed", **ended(exitCode=78, message="petaseg: chunk_shape is [0, 1, 1]"))
    found = job_state(Recorded(driver), {**JOB, "status": {"conditions": [failed]}})  # type: ignore[arg-type]
    assert found.phase == "failed"
    assert found.reason == f"{rule}; the driver ended with status 78: petaseg: chunk_shape is [0, 1, 1]"


def test_a_job_that_waits_in_a_queue_says_so() -> None:
    """A suspended Job names its queue; without one, the command that shows it."""
    head = {"name": "petaseg-0123", "namespace": "em", "labels": {QUEUE_LABEL: "gpus"}}
    waits = {"metadata": head, "spec": {"suspend": True}, "status": {}}
    found = job_state(Recorded(), waits)  # type: ignore[arg-type]
    assert found.phase == "pending"
    assert "waits until Kueue admits it to the queue gpus" in found.reason
    assert "kubectl get workloads -n em" in found.reason
    other = {**waits, "metadata": {**head, "labels": {}}}
    assert "the Job is suspended; look" in job_state(Recorded(), other).reason  # type: ignore[arg-type]


def test_a_driver_that_its_queue_took_back_says_so() -> None:
    """A Job that Kueue suspended again is pending, and its workers are counted."""
    waits = {**JOB, "spec": {"suspend": True}, "metadata": {"name": "x", "labels": {QUEUE_LABEL: "gpus"}}}
    found = job_state(Recorded(pod("worker-general", phase="Running")), waits)  # type: ignore[arg-type]
    assert (found.phase, found.workers_running) == ("pending", 1)


def test_scripts_that_import_from_the_former_place_work() -> None:
    assert kubernetes_state.job_state is job_state


def test_the_latest_driver_with_a_cause_counts() -> None:
    """Of several drivers the last one that says why it ended is named."""
    found = reason(pod(phase="Failed", **ended(exitCode=3)), pod(phase="Failed", reason="Evicted"), pod(phase="Failed"))
    assert "Evicted" in found
    assert "status 3" not in found


def test_a_deleted_pod_leaves_the_warnings_of_its_job() -> None:
    assert reason(complaints={"Job": ["old", "node n3 is gone"]}) == "Job has reached the limit; node n3 is gone"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (waiting("ImagePullBackOff", "Back-off pulling image x"), ["ImagePullBackOff", "x", "image_pull_secret"]),
        (waiting("ErrImagePull"), ["ErrImagePull; correct cluster.image"]),
        (waiting("InvalidImageName", "couldn't parse"), ["InvalidImageName", "cluster.image"]),
        (waiting("CreateContainerConfigError", 'secret "s3" not found'), ['secret "s3" not found', "cluster.secrets"]),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3: Insufficient memory"}]},
            ["Insufficient memory"],
        ),
    ],
)
def test_a_driver_that_does_not_start_says_why(status: dict[str, Any], words: list[str]) -> None:
    found = reason(pod(**status), failed=False)
    assert all(word in found for word in words), found


def test_a_missing_claim_is_found_in_the_warnings_about_the_pod() -> None:
    """A pod whose volume is missing only says ContainerCreating; the warning about it says more."""
    said = {"Pod": ['persistentvolumeclaim "em" not found']}
    assert reason(pod(**waiting("ContainerCreating")), failed=False, complaints=said) == said["Pod"][0]
    assert reason(pod(), failed=False, complaints=said) == said["Pod"][0]
    assert reason(pod(**waiting("ContainerCreating")), failed=False) == "ContainerCreating"


def test_workers_that_the_node_ends_are_counted() -> None:
    """A driver that runs says how its workers end; those that leave in order are no news."""
    shown = reason(
        pod(phase="Running"),
        pod("worker-general", phase="Running", **ended("lastState", exitCode=137, reason="OOMKilled")),
        pod("worker-general", phase="Running", **ended("lastState", exitCode=137, reason="OOMKilled")),
        pod("worker-general", phase="Failed", reason="Evicted"),
        pod("worker-general", phase="Running", **ended("lastState", exitCode=0, reason="Completed")),
        pod("worker-inference", phase="Pending", **waiting("ImagePullBackOff", "no such image")),
        failed=False,
    )
    assert "2 workers were ended: OOMKilled; raise memory_gb" in shown
    assert "1 worker was ended: Evicted" in shown
    assert "ImagePullBackOff: no such image" in shown
    assert "Completed" not in shown
