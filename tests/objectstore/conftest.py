"""Fixtures of the object store tests."""

from collections.abc import Iterator

import pytest

from pipeline.storage import bucket_client
from tests.objectstore.server import S3Server, s3_server, set_environment


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """One S3 server for all tests of a process; each test makes its own bucket."""
    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, with the environment that reaches it."""
    set_environment(monkeypatch, server.environment)
    yield f"s3://{server.new_bucket()}"
    bucket_client.connect.cache_clear()
