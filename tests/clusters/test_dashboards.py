"""The addresses of a run's dashboards on a cluster."""

import pytest

from pipeline.clusters.base import POOLS, dashboard_of
from pipeline.config.reading import parse_config


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        (None, [None] * 4),
        ("127.0.0.1:8787", [f"127.0.0.1:{port}" for port in (8787, 8788, 8789, 8790)]),
        ("127.0.0.1:0", ["127.0.0.1:0"] * 4),
    ],
)
def test_no_two_pools_show_their_dashboard_at_one_port(configured, expected):
    """Each pool of workers has a dashboard port of its own, counted up from the configured one; port 0 stays 0."""
    data = {"run_directory": "runs/first", "input": {"affinities": "a.zarr"}, "execution": {"dashboard": configured}}
    assert [dashboard_of(parse_config(data), pool) for pool in POOLS] == expected
