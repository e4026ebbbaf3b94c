"""The NetworkPolicy of a run or training: its pods reach each other, name servers, and some ports outside; nobody
reaches them.

    pods of the run   <->  pods of the run       every port: scheduler, workers, chunks' results
    pods of the run    ->  anywhere              port 53 (names), and the TCP ports of ``outside_ports``
    anywhere           ->  pods of the run       only the ports of metrics and dashboard, if the run file opens them

Claims need no port: nodes mount them, not pods. A cluster whose network knows no policies ignores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.clusters.base import POOLS, dashboard_of
from pipeline.config.cluster import ClusterTable
from pipeline.config.run_file import RunConfig

Manifest = dict[str, Any]
DNS = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def policy(cluster: ClusterTable, run: dict[str, str], watched: Sequence[int] = ()) -> Manifest:
    """What a NetworkPolicy says about the pods with the labels ``run``. watched: ports that stay open to everybody."""
    each_other = {"podSelector": {"matchLabels": run}}
    outside = _tcp(cluster.kubernetes.outside_ports)
    return {
        "podSelector": {"matchLabels": run},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [each_other]}, *([{"ports": _tcp(watched)}] if watched else [])],
        "egress": [{"to": [each_other]}, {"ports": DNS}, *([{"ports": outside}] if outside else [])],
    }


def _tcp(ports: Sequence[int]) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in dict.fromkeys(ports)]


def watched_ports(config: RunConfig) -> list[int]:
    """The ports at which the run file lets others look at a run: metrics, and the dashboards of all pools."""
    given = [config.execution.metrics, *(dashboard_of(config, pool) for pool in POOLS)]
    places = [address.rpartition(":") for address in given if address is not None]
    return [int(port) for host, _, port in places if host not in LOOPBACK and int(port)]
