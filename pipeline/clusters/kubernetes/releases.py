"""What older releases of Kubernetes do not know: left out where the run needs it not, refused where it does."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ClusterError

Manifest = dict[str, Any]
Release = tuple[int, int]

POD_FAILURE_POLICY: Release = (1, 26)
"""The first release that tells a disruption from a failure of a Job's pod without being asked to."""
SUSPEND: Release = (1, 22)
"""The first release that can create a Job and start it later, without being asked to."""


def fitted(documents: list[Manifest], release: Release) -> list[Manifest]:
    """The resources as an API server of this release understands them.

    Raises ``ClusterError`` if the Job must wait in a queue and the server cannot hold it back.
    """
    return [_fitted_job(each, release) if each["kind"] == "Job" else each for each in documents]


def _fitted_job(job: Manifest, release: Release) -> Manifest:
    if job["spec"].get("suspend") and release < SUSPEND:
        raise ClusterError(
            f"the API server has release {_text(release)}, which starts a Job at once; cluster.kubernetes.queue needs "
            f"release {_text(SUSPEND)} or a later one: leave it out"
        )
    unknown = {"podFailurePolicy"} if release < POD_FAILURE_POLICY else set()
    return {**job, "spec": {key: value for key, value in job["spec"].items() if key not in unknown}}


def _text(release: Release) -> str:
    return ".".join(map(str, release))
