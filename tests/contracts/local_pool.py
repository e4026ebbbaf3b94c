"""Workers of a cluster on this machine: a real scheduler and real worker processes, on nodes that are only names."""

from __future__ import annotations

import logging
from typing import Any

from distributed import LocalCluster

from pipeline.config.cluster import WorkerShape


class LocalPool:
    """See ``WorkerPool``; worker n believes that it is on ``node<n>``."""

    def __init__(self, name: str, shape: WorkerShape) -> None:
        self.name, self.shape = name, shape
        self.most = 0
        """The largest number of workers that was ever wanted."""
        self.problem = ""
        self.shunned: list[str] = []
        self.cluster = LocalCluster(
            n_workers=0,
            threads_per_worker=shape.threads,
            host="127.0.0.1",
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )

    @property
    def address(self) -> str:
        return str(self.cluster.scheduler_address)

    @property
    def workers(self) -> int:
        """The number of workers that are wanted now."""
        return len(self.cluster.worker_spec)

    def scale(self, workers: int) -> None:
        self.most = max(self.most, workers)
        for number in range(workers):
            self.cluster.worker_spec.setdefault(number, self._spec(number))
        for number in set(self.cluster.worker_spec) - set(range(workers)):
            del self.cluster.worker_spec[number]
        self.cluster.sync(self.cluster._correct_state)

    def avoid(self, node: str) -> None:
        self.shunned.append(node)

    def close(self) -> None:
        self.cluster.close()

    def _spec(self, number: int) -> dict[str, Any]:
        environment = {"PETASEG_NODE": f"node{number}", "PETASEG_POOL": self.name}
        spec = self.cluster.new_spec
        return {**spec, "options": {**spec["options"], "env": environment}}
