"""A real SLURM for tests: four nodes on loopback, two of them with a fake GPU, up in a second."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("slurm-up.sh")
NODES = 4
GPU_NODES, CPU_NODES = {"node1", "node2"}, {"node3", "node4"}


class Slurm:
    """The cluster of this test process; its commands find it through ``SLURM_CONF``."""

    def __init__(self, root: Path) -> None:
        self.environment = {**os.environ, "SLURM_ROOT": str(root), "NODES": str(NODES), "PORT": str(free_ports())}

    def do(self, *arguments: str) -> None:
        """Run a command of ``slurm-up.sh``."""
        done = subprocess.run([SCRIPT, *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node and all processes of its jobs at once."""
        self.do("kill-node", node)

    def start_node(self, node: str) -> None:
        """Bring a node back, and wait until it takes jobs again."""
        self.do("start-node", node)
        wait_until(lambda: "down" not in command("sinfo", "-h", "-n", node, "-o", "%T"), f"{node} is up")

    @staticmethod
    def jobs(*options: str) -> dict[str, tuple[str, str, str]]:
        """Jobs, and tasks of arrays, that wait, run or end, as number -> (name, state, node)."""
        lines = command("squeue", "-h", "--array", "-o", "%i|%j|%t|%N", *options).splitlines()
        return {number: (name, state, node) for number, name, state, node in (line.split("|") for line in lines)}

    @staticmethod
    def processes(job: str) -> list[int]:
        """The processes of a running job."""
        found = command("scontrol", "listpids", job, check=False)
        return [int(line.split()[0]) for line in found.splitlines()[1:] if line.split()[0] != "-1"]

    def clear(self) -> None:
        """End what a test has left behind, so that the next one has the whole cluster."""
        for number in self.jobs():
            command("scancel", number, check=False)
        wait_until(lambda: not self.jobs("-t", "PD,R"), "the queue is empty")


def command(*words: str, check: bool = True) -> str:
    """Run one of SLURM's commands; returns what it prints."""
    done = subprocess.run(words, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(condition: Callable[[], object], what: str, seconds: float = 420.0) -> None:
    """Wait until a condition holds; fail after a time limit."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def free_ports() -> int:
    """The first of NODES + 1 ports in a row that nobody uses."""
    for first in range(18000 + os.getpid() % 97 * 100, 32000, NODES + 1):
        try:
            for port in range(first, first + NODES + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def _slurm_cluster() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="petaseg-slurm-", ignore_cleanup_errors=True) as folder:
        cluster = Slurm(Path(folder) / "cluster")
        cluster.do("install")
        cluster.do("up")
        before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = f"{folder}/cluster/slurm.conf"
        try:
            yield cluster
        finally:
            cluster.do("down")
            os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)


@pytest.fixture
def slurm(_slurm_cluster: Slurm) -> Iterator[Slurm]:
    """The cluster, with an empty queue before and after."""
    yield _slurm_cluster
    _slurm_cluster.clear()


def sbatch_lines(script: str) -> dict[str, str]:
    """The options in the ``#SBATCH`` lines of a script; the last of two equal ones."""
    words = " ".join(re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE))
    return dict(re.findall(r"--([\w-]+)(?:=('[^']*'\S*|\S+))?", words))


def where(folder: Path, item: int) -> str:
    """Return the worker's node. Each call leaves a mark and takes a moment, so that all workers get some items."""
    time.sleep(0.2)
    with open(folder / str(item), "a") as file:
        file.write("x")
    return os.environ["SLURMD_NODENAME"]


def gpu_and_address(item: int) -> tuple[str, str, str]:
    """The worker's node, its GPU, and its address. Each call takes a moment, so that all workers get some items."""
    from distributed import get_worker

    time.sleep(0.5)
    return os.environ["SLURMD_NODENAME"], os.environ["CUDA_VISIBLE_DEVICES"], get_worker().address
