"""The Kubernetes API as petaseg uses it. Its refusals become a ``ClusterError`` with a remedy."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from pipeline.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, ApiException

Manifest = dict[str, Any]
TIMEOUT = (10, 60)
"""Seconds for a connection, and for an answer."""
NOUNS = {
    "ServiceAccount": ("CoreV1Api", "service_account"),
    "Role": ("RbacAuthorizationV1Api", "role"),
    "RoleBinding": ("RbacAuthorizationV1Api", "role_binding"),
    "ConfigMap": ("CoreV1Api", "config_map"),
    "Secret": ("CoreV1Api", "secret"),
    "Service": ("CoreV1Api", "service"),
    "NetworkPolicy": ("NetworkingV1Api", "network_policy"),
    "Deployment": ("AppsV1Api", "deployment"),
    "Job": ("BatchV1Api", "job"),
    "Pod": ("CoreV1Api", "pod"),
}
"""Kind -> the class of the client's methods, and the noun in their names."""


WRONG_NAMES = {
    "no PriorityClass with name": "priority_class of cluster.driver or of the workers",
    "RuntimeClass": "runtime_class of cluster.driver or of the workers",
    "error looking up service account": "cluster.kubernetes.service_account",
}
"""Words in which an API server refuses a pod that names something that is not there -> the key with the name."""


class Api:
    """One namespace of a Kubernetes cluster, with the user's own rights.

    Every method raises ``ClusterError`` in the cluster's words and with a remedy.
    """

    def __init__(self, namespace: str, run_url: str = "RUN") -> None:
        """run_url: the run directory, for the commands that messages name."""
        _check_installed()
        self.namespace, self.run_url = namespace, run_url
        with explained(namespace, run_url):
            self._client = _connect()

    def release(self) -> tuple[int, int]:
        """The API server's release: (1, 30) for v1.30.2."""
        from kubernetes.client import VersionApi

        with explained(self.namespace, self.run_url):
            said = _plain(VersionApi(self._client).get_code(_preload_content=False, _request_timeout=TIMEOUT))
        major, minor = ("".join(filter(str.isdigit, said[part])) for part in ("major", "minor"))  # clouds say 30+
        return int(major), int(minor)

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create a resource and return it; with ``dry_run``, only ask whether it would be accepted."""
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        return self._call("create", manifest["kind"], self.namespace, manifest, **options)

    def read(self, kind: str, name: str) -> Manifest | None:
        """A resource, or None if there is none of this name."""
        return self._call("read", kind, name, self.namespace, missing_is_fine=True) or None

    def find(self, kind: str, selector: str) -> list[Manifest]:
        """All resources of a kind with these labels, the oldest first."""
        found = self._call("list", kind, self.namespace, label_selector=selector)["items"]
        return sorted(found, key=lambda item: item["metadata"]["creationTimestamp"])

    def delete(self, kind: str, name: str) -> None:
        """Delete a resource and those that it owns; no error if there is none."""
        self._call("delete", kind, name, self.namespace, missing_is_fine=True, propagation_policy="Background")

    def patch(self, kind: str, name: str, change: Manifest, *, part: str = "", missing_is_fine: bool = False) -> None:
        """Change a resource, or a ``part`` of it (``scale``), by a merge patch."""
        self._call("patch", kind, name, self.namespace, change, part=part, missing_is_fine=missing_is_fine)

    def complaints(self, kind: str, name: str) -> list[str]:
        """The cluster's warnings about a resource, the newest last."""
        from kubernetes.client import CoreV1Api

        fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        with explained(self.namespace, self.run_url):
            api = CoreV1Api(self._client)
            events = _plain(
                api.list_namespaced_event(
                    self.namespace, field_selector=fields, _preload_content=False, _request_timeout=TIMEOUT
                )
            )
        ordered = sorted(events["items"], key=lambda event: str(event["metadata"]["creationTimestamp"]))
        return [event.get("message", "") for event in ordered]

    def log(self, pod: str) -> Iterator[str]:
        """The lines that a pod has written; none if it has not started."""
        from kubernetes.client import ApiException, CoreV1Api

        with explained(self.namespace, self.run_url):
            try:
                answer = CoreV1Api(self._client).read_namespaced_pod_log(
                    pod, self.namespace, _preload_content=False, _request_timeout=TIMEOUT
                )
            except ApiException as error:
                if error.status in (400, 404):  # not started yet, or deleted meanwhile
                    return
                raise
            yield from _lines(answer)

    def _call(
        self, verb: str, kind: str, *arguments: Any, part: str = "", missing_is_fine: bool = False, **options: Any
    ) -> Manifest:
        from kubernetes import client

        place, noun = NOUNS[kind]
        method = getattr(getattr(client, place)(self._client), "_".join(filter(None, (verb, "namespaced", noun, part))))
        with explained(self.namespace, self.run_url):
            try:
                return _plain(method(*arguments, _preload_content=False, _request_timeout=TIMEOUT, **options))
            except client.ApiException as error:
                if error.status == 404 and missing_is_fine:
                    return {}
                raise


class UnavailableError(ClusterError):
    """The API server does not answer, or is overloaded; the same request may succeed later."""


@contextmanager
def explained(namespace: str, run_url: str) -> Generator[None, None, None]:
    """Turn the client's errors into ``ClusterError``."""
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        kind = UnavailableError if error.status in (0, 429) or (error.status or 0) >= 500 else ClusterError
        raise kind(_explain(error, namespace, quote(run_url))) from None
    except HTTPError as error:
        raise UnavailableError(
            f"the Kubernetes API server does not answer ({_reason(error)}); see whether `kubectl cluster-info` reaches "
            "it, and whether KUBECONFIG names the right cluster"
        ) from None
    except ConfigException as error:
        raise ClusterError(
            f"there is no access to a Kubernetes cluster from here ({error}); log in to one, so that `kubectl get "
            "pods` works, or name its file in KUBECONFIG"
        ) from None


def _check_installed() -> None:
    if importlib.util.find_spec("kubernetes") is None:
        raise ConfigError(
            "the package kubernetes, by which petaseg talks to a cluster, is not installed; it is an extra: "
            "pip install 'petaseg[kubernetes]'"
        )


def _connect() -> ApiClient:
    """A client for the cluster of ``KUBECONFIG`` or ``~/.kube/config``; inside a pod, for the pod's own cluster."""
    from kubernetes import client, config

    file = os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser()
    if "KUBECONFIG" in os.environ or Path(file).exists() or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return config.new_client_from_config(config_file=str(file))
    own = client.Configuration()
    config.load_incluster_config(client_configuration=own)
    return client.ApiClient(own)


def _explain(error: ApiException, namespace: str, run: str) -> str:
    words = _words(error)
    return f"Kubernetes refused: {words}; {_remedy(error.status or 0, words, namespace, run)}"


def _words(error: ApiException) -> str:
    """The message of the API server itself."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _remedy(status: int, words: str, namespace: str, run: str) -> str:
    if "exceeded quota" in words:
        return (
            f"ask for less in cluster.driver, cluster.workers or cluster.inference_workers, wait until other jobs have "
            f"ended, or ask for a larger quota (`kubectl describe quota -n {namespace}` shows it)"
        )
    for word, key in WRONG_NAMES.items():
        if word in words:
            return f"correct {key}, or have an administrator make it"
    if f'namespaces "{namespace}" not found' in words:
        return f"create it (`kubectl create namespace {namespace}`), or correct cluster.namespace"
    if "is forbidden: User" in words:
        return f"ask for the rights that docs/kubernetes.md lists, in namespace {namespace}, or use another namespace"
    if status == 401:
        return "log in to the cluster again"
    if status == 403:
        return f"this is a rule of namespace {namespace}: ask its administrator, or use another namespace"
    if status == 409:
        return f"it exists already: end the earlier submission with `petaseg cancel {run}`"
    return f"`petaseg submit {run} --dry-run --on kubernetes` prints what would be submitted"


def _plain(answer: Any) -> Manifest:
    """An answer as plain data: the client's models refuse some answers of older or newer clusters."""
    plain: Manifest = json.loads(answer.data)
    return plain


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())


def _lines(answer: Any) -> Iterator[str]:
    """Text lines of an answer that is received in pieces."""
    rest = b""
    for piece in answer.stream():
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
