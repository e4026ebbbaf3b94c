"""SLURM and Kubernetes: start a driver and its workers, independently of stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import find, load

if TYPE_CHECKING:
    from pipeline.clusters.base import Cluster

CLUSTERS = {
    "slurm": "pipeline.clusters.slurm.cluster:SlurmCluster",
    "kubernetes": "pipeline.clusters.kubernetes.cluster:KubernetesCluster",
}
"""Cluster -> "module:class", loaded when needed."""


def make_cluster(name: str) -> Cluster:
    """A cluster by name; ``ConfigError`` if there is none of this name."""
    path = find(CLUSTERS, name, "the cluster is", remedy="correct --on, or cluster.kind in the run file")
    cluster: Cluster = load(path)()
    return cluster
