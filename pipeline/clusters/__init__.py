"""SLURM and Kubernetes: start a driver and its workers, independently of stages."""

from __future__ import annotations

from importlib import import_module

from pipeline.clusters.base import Cluster
from pipeline.errors import ConfigError

CLUSTERS = {
    "slurm": "pipeline.clusters.slurm.cluster:SlurmCluster",
    "kubernetes": "pipeline.clusters.kubernetes.cluster:KubernetesCluster",
}
"""Cluster -> "module:class", loaded when needed."""


def make_cluster(name: str) -> Cluster:
    """A cluster by name; ``ConfigError`` if there is none of this name."""
    if name not in CLUSTERS:
        raise ConfigError(f"the cluster is {name!r}; there are {', '.join(CLUSTERS)}: --on slurm, or cluster.kind")
    module, _, attribute = CLUSTERS[name].partition(":")
    cluster: Cluster = getattr(import_module(module), attribute)()
    return cluster
