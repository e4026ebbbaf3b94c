"""Addresses in a run file."""

import pytest

from pipeline.config.reading import parse_config
from pipeline.config.run_file import RunConfig
from pipeline.errors import ConfigError


def config(**execution: object) -> RunConfig:
    """A run file with these keys of ``execution``."""
    return parse_config({"run_directory": "run", "input": {"image": "image.zarr"}, "execution": execution})


@pytest.mark.parametrize("address", ["127.0.0.1:9095", "localhost:0", "0.0.0.0:65535", "node-7.cluster:9095"])
def test_host_and_port_are_taken(address: str) -> None:
    assert config(metrics=address, dashboard=address).execution.metrics == address


@pytest.mark.parametrize(
    "address", ["9095", 9095, ":9095", "127.0.0.1", "127.0.0.1:", "host:65536", "host:x", "host:²"]
)
def test_anything_else_is_refused_with_examples(address: object) -> None:
    """An address without a host, or with a wrong port, is refused with examples of right ones."""
    with pytest.raises(ConfigError, match=r"execution\.metrics.*127\.0\.0\.1:9095 for this machine only"):
        config(metrics=address)
