"""A real Kubernetes cluster on this machine: etcd, API server, controllers and scheduler, and nodes that are fakelets.

    with ControlPlane(folder) as plane:
        plane.add_node("node-1")
        plane.api.list_node()
        plane.login(data, "petaseg", "submit", "/data/run.yaml", "--on", "kubernetes")

The programs are built once by ``k8s-build.sh``.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from kubernetes import client, config
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from pipeline.clusters.tls import create_tls
from tests.deploy.sandbox import KERNELS, ROOT, Mount, Sandbox, copy_kernels, image_environment

UP_SECONDS = 120
BUILD = Path(__file__).with_name("k8s-build.sh")
CAPACITY = {"cpu": "4", "memory": "16G", "pods": "30"}
LOST_AFTER_SECONDS = 15
"""Seconds without a heartbeat after which a node counts as lost; 40 s by default."""
EVICTED_AFTER_SECONDS = 1
"""Seconds after that until its pods are replaced; 300 s by default."""
CONTROLLERS = "*,-cloud-node-lifecycle,-nodeipam,-route,-ttl,-endpoint,-endpointslice,-endpointslicemirroring"
"""Controllers for clouds are off; so are those for endpoints, which may not be on loopback, where all pods are."""


class ControlPlane:
    """The cluster; ``api`` is a client with all rights, ``kubeconfig`` the file for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = Path(subprocess.run([BUILD], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
        self.port, self.etcd_port, self.peer_port = free_ports(3)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.networks = 0
        self.token = secrets.token_hex(16)
        self.kernels = folder / "kernels"

    def __enter__(self) -> ControlPlane:
        for folder in (self.folder / "etcd", self.folder / "logs"):
            folder.mkdir(parents=True)
        copy_kernels(self.kernels)
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """Access with all rights."""
        return self.folder / "kubeconfig"

    @property
    def api(self) -> client.CoreV1Api:
        """A client with all rights."""
        return client.CoreV1Api(config.new_client_from_config(config_file=str(self.kubeconfig)))

    def access(self, token: str, namespace: str = "default") -> str:
        """The text of a kubeconfig file for whoever has a token."""
        authority = base64.b64encode(self.tls.ca.read_bytes()).decode()
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": authority}
        return yaml.safe_dump(
            {
                **{"apiVersion": "v1", "kind": "Config", "current-context": "x"},
                "clusters": [{"name": "c", "cluster": server}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            }
        )

    def kubectl(self, *arguments: str, check: bool = True, **options: str) -> subprocess.CompletedProcess[str]:
        """Run kubectl with all rights."""
        command = [self.bin / "kubectl", *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(command, check=check, capture_output=True, text=True, env=environment, **options)

    def apply(self, *manifests: dict[str, object]) -> None:
        """Create or change resources."""
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(manifests))

    def add_node(self, name: str, capacity: dict[str, str] | None = None, labels: dict[str, str] | None = None) -> None:
        """Start a node, and wait until the cluster trusts it."""
        self.networks += 1
        settings = {
            **{"name": name, "folder": str(self.folder / "nodes" / name), "kernels": str(self.kernels)},
            "network": f"127.{1 + os.getpid() % 250}.{self.networks % 250}",
            "api_port": self.port,
            "capacity": {**CAPACITY, **(capacity or {})},
            "labels": labels or {},
        }
        command = [sys.executable, "-m", "tests.deploy.fakelet", json.dumps(settings)]
        self.nodes[name] = self._start(f"node-{name}", command, cwd=ROOT, PYTHONPATH=str(ROOT))
        self.wait(lambda: not self.api.read_node(name).spec.taints, f"node {name} does not become ready")

    def lose_node(self, name: str) -> None:
        """End a node and all that runs on it at once, without a word to the cluster."""
        process = self.nodes.pop(name)
        process.kill()
        process.wait()

    def remove_node(self, name: str) -> None:
        """Delete a node that does not come back, as an administrator or a cloud does."""
        if name in self.nodes:
            self.lose_node(name)
        self.api.delete_node(name)

    def login(self, data: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of the cluster does: on a machine that has the data at /data, and a kubeconfig."""
        folder = self.folder / "login"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        (folder / "tmp").chmod(0o1777)
        shutil.copy(self.kubeconfig, folder / "tmp" / "kubeconfig")
        mounts = [Mount(folder / "tmp", "/tmp"), Mount(data, "/data"), Mount(self.kernels, str(KERNELS))]
        sandbox = Sandbox(folder, "login", mounts)
        environment = {**image_environment(), "KUBECONFIG": "/tmp/kubeconfig", "HOME": "/tmp", "OMP_NUM_THREADS": "1"}
        return subprocess.run(sandbox.command(*command), env=environment, capture_output=True, text=True)

    def wait(self, condition: Callable[[], bool], complaint: str, seconds: float = UP_SECONDS) -> None:
        """Wait until a condition holds; errors of the API mean "not yet"."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, process in self.processes.items():
                assert process.poll() is None or name in self.nodes, f"{name} has ended:\n{self.log(name)}"
            try:
                if condition():
                    return
            except (ApiException, HTTPError):
                pass
            time.sleep(0.1)
        raise TimeoutError(f"{complaint}\n{self.log('controllers')}")

    def log(self, name: str) -> str:
        """The last lines of a program."""
        return "\n".join((self.folder / "logs" / name).read_text(errors="replace").splitlines()[-10:])

    def stop(self) -> None:
        """End everything, the nodes first."""
        for process in [*self.nodes.values(), *reversed(self.processes.values())]:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def _start_all(self) -> None:
        self._write_keys()
        etcd, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self._program(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )
        self._program(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--insecure-port=0",
            f"--tls-cert-file={self.tls.certificate}",
            f"--tls-private-key-file={self.tls.key}",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/accounts.pub",
            f"--service-account-signing-key-file={self.folder}/accounts.key",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            f"--default-not-ready-toleration-seconds={EVICTED_AFTER_SECONDS}",
            f"--default-unreachable-toleration-seconds={EVICTED_AFTER_SECONDS}",
            "--feature-gates=TTLAfterFinished=true",
        )
        self.wait(lambda: bool(self.api.list_namespace().items), "the API server does not answer")
        self._program(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--service-account-private-key-file={self.folder}/accounts.key",
            f"--root-ca-file={self.tls.ca}",
            f"--controllers={CONTROLLERS}",
            "--node-monitor-period=1s",
            f"--node-monitor-grace-period={LOST_AFTER_SECONDS}s",
            "--feature-gates=TTLAfterFinished=true",
            "--port=0",
            "--secure-port=0",
            log="controllers",
        )
        scheduler = ("--leader-elect=false", "--port=0", "--secure-port=0")
        self._program("kube-scheduler", f"--kubeconfig={self.kubeconfig}", *scheduler)
        self.wait(lambda: bool(self._account().secrets), "the controllers do not work")

    def _write_keys(self) -> None:
        self.tls = create_tls(self.folder / "certificates")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "accounts.key").write_bytes(key.private_bytes(*private))
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.folder / "accounts.pub").write_bytes(public)
        (self.folder / "tokens.csv").write_text(f"{self.token},admin,1,system:masters\n")
        self.kubeconfig.write_text(self.access(self.token))

    def _program(self, program: str, *options: str, log: str = "") -> None:
        name = log or program
        self.processes[name] = self._start(name, [str(self.bin / program), *options])

    def _start(
        self, log: str, command: list[str], cwd: Path | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:
        with (self.folder / "logs" / log).open("ab") as file:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig), **variables},
            )

    def _account(self) -> client.V1ServiceAccount:
        return self.api.read_namespaced_service_account("default", "default")


def free_ports(number: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
