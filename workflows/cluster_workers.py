"""The driver of a run on a cluster: its workers and their certificates."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.clusters import make_cluster
from pipeline.clusters.base import Submission, WorkerPool, cluster_folder, worker_shapes
from pipeline.clusters.tls import Tls, create_tls
from pipeline.config.cluster import WorkerShape
from pipeline.execution.dask import configure_dask
from pipeline.execution.pools import ClusterExecutor
from pipeline.runs.run import Run


def cluster_executor(run: Run, name: str) -> ClusterExecutor:
    """An executor with workers on a cluster, none started yet, whose connections are secured by certificates."""
    cluster = make_cluster(name)
    tls = certificates(run)
    configure_dask(tls.settings())
    submission = Submission(run.url, run.config, setup=os.environ.get("PETASEG_SETUP", ""))

    def start(pool: str, shape: WorkerShape) -> WorkerPool:
        return cluster.pool(pool, shape, submission, tls)

    return ClusterExecutor(start, worker_shapes(run.config.cluster))


def certificates(run: Run) -> Tls:
    """The certificates that the cluster mounted (``PETASEG_TLS``), or new ones in a folder that the nodes can read."""
    mounted = os.environ.get("PETASEG_TLS")
    if mounted:
        return Tls.at(Path(mounted))
    return create_tls(cluster_folder(run.url) / "tls")
