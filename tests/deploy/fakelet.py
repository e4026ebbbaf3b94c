"""A small kubelet: one node of a real Kubernetes cluster, whose pods are processes in sandboxes, not containers.

    python -m tests.deploy.fakelet '{"name": "node-1", ...}'     with KUBECONFIG; runs until it is killed

What a kubelet does and this does too: heartbeats, ConfigMaps, Secrets, empty folders and host folders as mounts,
variables, the user and the read-only root of the security context, an address for each pod (of 127.0.0.0/8), restarts,
TERM and then KILL, exit codes, last words, logs through the API server. What it does not do: images (every pod sees
this machine's Python), cgroups (limits are only counted by the scheduler), a network of their own, DNS (a hosts file
names the Services as they are when a process starts), probes, and the projection of tokens that expire.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from pipeline.clusters.tls import create_tls
from tests.deploy.sandbox import KERNELS, Mount, Sandbox, image_environment

Json = dict[str, Any]
LOOK_SECONDS = 0.2
HEARTBEAT_SECONDS = 1.0
RESTART_SECONDS = 1.0
"""Seconds before a container is restarted; a kubelet waits 10 s and more."""
LAST_WORDS = 2048


@dataclass(frozen=True)
class NodeSettings:
    """The settings of a node, given on its command line."""

    name: str
    folder: str
    """Folder for the files of its pods."""
    kernels: str
    """Cache of compiled kernels, shared by all nodes."""
    network: str
    """The first three numbers of its pods' addresses."""
    api_port: int
    capacity: dict[str, str]
    labels: dict[str, str]


class Node:
    """A node and its pods."""

    def __init__(self, settings: NodeSettings) -> None:
        config.load_kube_config(config_file=os.environ["KUBECONFIG"])
        self.api = client.CoreV1Api()
        self.settings, self.name, self.folder = settings, settings.name, Path(settings.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.service = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(settings.api_port)}
        self.pods: dict[str, Pod] = {}
        self.addresses = (f"{settings.network}.{number}" for number in itertools.cycle(range(2, 250)))
        self.log_port = serve_logs(self.folder)

    def run(self) -> None:
        """Run a node until the process is killed."""
        heartbeat = -HEARTBEAT_SECONDS
        while True:
            try:
                if time.monotonic() - heartbeat >= HEARTBEAT_SECONDS:
                    heartbeat = time.monotonic()
                    self.report()
                self.look()
            except (ApiException, HTTPError) as error:
                print(f"{self.name}: {error}", flush=True)
            time.sleep(LOOK_SECONDS)

    def report(self) -> None:
        """Tell the cluster that this node is alive; the first time, that it exists."""
        ready = {"type": "Ready", "status": "True", "reason": "Fakelet", "lastHeartbeatTime": now()}
        status = {
            "capacity": self.settings.capacity,
            "allocatable": self.settings.capacity,
            "conditions": [{**ready, "lastTransitionTime": now()}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.log_port}},
        }
        try:
            self.api.patch_node_status(self.name, {"status": status})
        except ApiException as error:
            if error.status != 404:
                raise
            labels = {"kubernetes.io/hostname": self.name, **self.settings.labels}
            self.api.create_node({"metadata": {"name": self.name, "labels": labels}})
            self.api.patch_node_status(self.name, {"status": status})

    def look(self) -> None:
        """Start pods that were given to this node, and end those that are to be deleted."""
        found = self.api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={self.name}")
        for item in found.items:
            body = self.api.api_client.sanitize_for_serialization(item)
            uid = body["metadata"]["uid"]
            if uid not in self.pods and body["status"]["phase"] in ("Succeeded", "Failed"):
                continue
            if uid not in self.pods:
                self.pods[uid] = Pod(self, body)
                threading.Thread(target=self.pods[uid].live, daemon=True).start()
            if "deletionTimestamp" in body["metadata"]:
                self.pods[uid].end(body["metadata"].get("deletionGracePeriodSeconds", 0))
        for uid in set(self.pods) - {item.metadata.uid for item in found.items}:
            self.pods.pop(uid).end(0)  # deleted by force


class Pod:
    """One pod: its mounts, its process, its status."""

    def __init__(self, node: Node, body: Json) -> None:
        self.node, self.body = node, body
        self.namespace, self.name = body["metadata"]["namespace"], body["metadata"]["name"]
        self.spec, self.container = body["spec"], body["spec"]["containers"][0]
        self.folder = node.folder / body["metadata"]["uid"]
        self.address = next(node.addresses)
        self.log = node.folder / "logs" / self.namespace / self.name
        self.process: subprocess.Popen[bytes] | None = None
        self.ending = threading.Event()
        self.ended = threading.Event()
        self.restarts = 0

    def live(self) -> None:
        """Run the pod from its first start to its last end."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        while not self.ending.is_set():
            started = now()
            try:
                command, environment = self.prepare()
            except ApiException as error:  # the ConfigMap or Secret is not there yet
                waiting = {"reason": "CreateContainerConfigError", "message": f"{error.reason}"}
                self.tell("Pending", {"waiting": waiting})
                self.ending.wait(RESTART_SECONDS)
                continue
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            self.tell("Running", {"running": {"startedAt": started}})
            code = self.process.wait()
            if self.ending.is_set():
                break
            if not self.again(code):
                self.tell("Succeeded" if code == 0 else "Failed", {"terminated": self.terminated(code, started)})
                break
            self.restarts += 1
            self.tell("Running", {"waiting": {"reason": "CrashLoopBackOff"}})
            self.ending.wait(RESTART_SECONDS)
        self.ended.set()

    def again(self, code: int) -> bool:
        """True if the restart policy asks for another start."""
        policy = self.spec.get("restartPolicy", "Always")
        return bool(policy == "Always" or (policy == "OnFailure" and code))

    def end(self, grace_seconds: float) -> None:
        """Send TERM and, after the grace period, KILL; then tell the cluster that the pod is gone."""
        if not self.ending.is_set():
            self.ending.set()
            threading.Thread(target=self._end, args=(grace_seconds,), daemon=True).start()

    def _end(self, grace_seconds: float) -> None:
        if self.process is not None and self.process.poll() is None:
            if grace_seconds:
                self.signal(signal.SIGTERM)
            if not self.ended.wait(grace_seconds):
                self.process.kill()
        try:
            self.node.api.delete_namespaced_pod(self.name, self.namespace, grace_period_seconds=0)
        except ApiException as error:
            if error.status != 404:
                raise

    def signal(self, number: int) -> None:
        """Send a signal to process 1 of the sandbox; the process that we started only waits for it."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), number)

    def terminated(self, code: int, started: str) -> Json:
        """The status of an ended container, with the last words of its log if it asks for them."""
        number = code if code >= 0 else 128 - code
        ended = {"exitCode": number, "reason": "Error" if number else "Completed"}
        if number and self.container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            ended["message"] = self.log.read_bytes()[-LAST_WORDS:].decode(errors="replace")
        return {**ended, "startedAt": started, "finishedAt": now()}

    def tell(self, phase: str, state: Json) -> None:
        """Write the pod's status."""
        alive = "running" in state
        container = {
            **{"name": self.container["name"], "image": self.container["image"], "imageID": "none"},
            **{"ready": alive, "restartCount": self.restarts, "state": state},
        }
        conditions = [
            {"type": kind, "status": str(alive), "lastTransitionTime": now()} for kind in ("Ready", "ContainersReady")
        ]
        status = {
            **{"phase": phase, "podIP": self.address, "hostIP": "127.0.0.1", "startTime": now()},
            **{"conditions": conditions, "containerStatuses": [container]},
        }
        try:
            self.node.api.patch_namespaced_pod_status(self.name, self.namespace, {"status": status})
        except ApiException as error:
            if error.status != 404:
                raise

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        """Make mounts, variables and user; returns the arguments and the environment of the container's process."""
        context = {**self.spec.get("securityContext", {}), **self.container.get("securityContext", {})}
        user = context.get("runAsUser", 1000)
        if not context.get("readOnlyRootFilesystem") or (context.get("runAsNonRoot") and user == 0):
            raise RuntimeError("this sandbox has a read-only root and no root user; the pod asks for something else")
        group = context.get("fsGroup", user)
        sandbox = Sandbox(
            self.folder,
            hostname=self.name,
            mounts=[*self.mounts(group), Mount(Path(self.node.settings.kernels), str(KERNELS))],
            user=user,
            group=group,
            folder_inside=self.container.get("workingDir", "/"),
            hosts={self.name: self.address, **self.services()},
        )
        variables = self.variables()
        arguments = [*self.container.get("command", ()), *self.container.get("args", ())]
        for name, value in variables.items():
            arguments = [argument.replace(f"$({name})", value) for argument in arguments]
        return sandbox.command(*arguments), {**image_environment(), **self.node.service, **variables}

    def services(self) -> dict[str, str]:
        """The addresses of all Services of the namespace that lead to a running pod now; they stand in for DNS."""
        api, found = self.node.api, {}
        for service in api.list_namespaced_service(self.namespace).items:
            labels = ",".join(f"{key}={value}" for key, value in (service.spec.selector or {}).items())
            for pod in api.list_namespaced_pod(self.namespace, label_selector=labels).items:
                if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
                    found[service.metadata.name] = pod.status.pod_ip
        return found

    def mounts(self, group: int) -> list[Mount]:
        """Make the volumes that the container mounts; returns the mounts."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", ())}
        found = []
        for mount in self.container.get("volumeMounts", ()):
            source = self.volume(volumes[mount["name"]], group) / mount.get("subPath", "")
            found.append(Mount(source, mount["mountPath"], bool(mount.get("readOnly"))))
        return found

    def volume(self, volume: Json, group: int) -> Path:
        """A volume as a folder of this machine."""
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            claim = self.node.api.read_namespaced_persistent_volume_claim(name, self.namespace)
            return Path(self.node.api.read_persistent_volume(claim.spec.volume_name).spec.host_path.path)
        place = self.folder / "volumes" / volume["name"]
        place.mkdir(parents=True, exist_ok=True)
        os.chown(place, -1, group)
        place.chmod(0o2777 if "emptyDir" in volume else 0o755)
        for name, data in self.files(volume).items():
            (place / name).unlink(missing_ok=True)
            (place / name).write_bytes(data)
            os.chown(place / name, -1, group)
            (place / name).chmod(volume.get("secret", {}).get("defaultMode", 0o644))
        return place

    def files(self, volume: Json) -> dict[str, bytes]:
        """The files of a ConfigMap or Secret."""
        if "configMap" in volume:
            found = self.node.api.read_namespaced_config_map(volume["configMap"]["name"], self.namespace)
            return {name: text.encode() for name, text in found.data.items()}
        return self.secret(volume["secret"]["secretName"]) if "secret" in volume else {}

    def secret(self, name: str) -> dict[str, bytes]:
        """The values of a Secret."""
        data = self.node.api.read_namespaced_secret(name, self.namespace).data or {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def variables(self) -> dict[str, str]:
        """The container's variables, from Secrets, fixed values and the pod's own fields."""
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            found |= {key: value.decode() for key, value in self.secret(source["secretRef"]["name"]).items()}
        known = {"metadata.name": self.name, "metadata.namespace": self.namespace}
        known |= {"spec.nodeName": self.node.name, "status.podIP": self.address}
        for entry in self.container.get("env", ()):
            field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            found[entry["name"]] = known[field] if field else entry.get("value", "")
        return found


def serve_logs(folder: Path) -> int:
    """Serve what ``kubectl logs`` asks a kubelet for, on a free port; returns the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, namespace, pod, _ = self.path.partition("?")[0].strip("/").split("/")
            file = folder / "logs" / namespace / pod
            self.send_response(200 if file.exists() else 404)
            self.end_headers()
            self.wfile.write(file.read_bytes() if file.exists() else b"no such pod\n")

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = create_tls(folder / "tls")
    context.load_cert_chain(tls.certificate, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    Node(NodeSettings(**json.loads(sys.argv[1]))).run()
