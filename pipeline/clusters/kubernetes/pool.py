"""A Dask scheduler in the driver, on a fixed port, and a Deployment of workers whose size the driver sets.

Kubernetes keeps this number of workers running and replaces lost ones. The driver has no other rights there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

import dask
from distributed import LocalCluster
from distributed.security import Security

from pipeline.clusters.base import tell_dashboard
from pipeline.clusters.kubernetes import manifests as made
from pipeline.clusters.kubernetes.api import Api, UnavailableError
from pipeline.clusters.tls import Tls
from pipeline.errors import ConfigError

logger = logging.getLogger("petaseg.clusters")

PATIENCE_SECONDS = 600.0
"""An API server that does not answer for this time is a failure; upgrades take minutes."""
LONGEST_PAUSE = 30.0
_DRIVEN: set[tuple[str, str]] = set()
"""The runs, by namespace and name, whose driver is this process."""


class KubernetesPool:
    """See ``WorkerPool``; ``name`` is one of ``PORTS``, ``siblings`` are all pools of the run.

    dashboard: host:port of Dask's dashboard in the driver's pod; None for none.
    """

    def __init__(self, name: str, siblings: Iterable[str], tls: Tls | None, dashboard: str | None = None) -> None:
        self._run, namespace = _own_place()
        self._name = name
        self._api = Api(namespace)
        _end_earlier_workers(self._api, self._run, [pool for pool in siblings if pool != name])
        with dask.config.set(tls.settings() if tls else {}):
            self._cluster = LocalCluster(
                n_workers=0,
                protocol="tls://" if tls else "tcp://",
                security=Security() if tls else None,
                host=os.environ["POD_IP"],
                scheduler_port=made.PORTS[name],
                dashboard_address=dashboard or "127.0.0.1:0",
                scheduler_kwargs={"dashboard": dashboard is not None},
                silence_logs=logging.CRITICAL,
            )
        tell_dashboard(name, dashboard, self._cluster)

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        return str(self._cluster.scheduler_address)

    @property
    def problem(self) -> str:
        """Always "": a quota or a full cluster may refuse workers only for a time; `petaseg status` shows it."""
        return ""

    def scale(self, workers: int) -> None:
        """Set the size of the Deployment; while the API server does not answer, try again."""
        _scale(self._api, f"{self._run}-{self._name}", workers)

    def avoid(self, node: str) -> None:
        """Log a remedy: only an administrator can keep pods off a node; the executor retires workers on it."""
        logger.warning("node %s fails everything; keep workers off it with: kubectl cordon %s", node, node)

    def close(self) -> None:
        """End workers and scheduler; a cancelled run may have lost its workers already."""
        try:
            _scale(self._api, f"{self._run}-{self._name}", 0, missing_is_fine=True)
        finally:
            self._cluster.close()


def _own_place() -> tuple[str, str]:
    """The name of this driver's resources and its namespace."""
    try:
        return os.environ[made.NAME], os.environ[made.NAMESPACE]
    except KeyError as error:
        raise ConfigError(
            f"{error.args[0]} is not set: `petaseg run --on kubernetes` is what the driver's pod runs; from here, use "
            "`petaseg submit --on kubernetes`"
        ) from None


def _end_earlier_workers(api: Api, run: str, pools: Iterable[str]) -> None:
    """End the workers that an earlier driver left in these pools; only the first pool of a process does so."""
    if (api.namespace, run) in _DRIVEN:
        return
    _DRIVEN.add((api.namespace, run))
    for pool in pools:
        _scale(api, f"{run}-{pool}", 0)


def _scale(api: Api, deployment: str, workers: int, *, missing_is_fine: bool = False) -> None:
    size = {"spec": {"replicas": workers}}
    end, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
    while True:
        try:
            return api.patch("Deployment", deployment, size, part="scale", missing_is_fine=missing_is_fine)
        except UnavailableError as error:
            if time.monotonic() > end:
                raise
            logger.warning("%s: %s; next try in %d s", deployment, error, pause)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
