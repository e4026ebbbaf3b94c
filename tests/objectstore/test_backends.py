"""Every kind of storage keeps the contract of a ``Backend``."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.storage.base import Backend
from pipeline.storage.bucket import BucketBackend
from pipeline.storage.local import LocalBackend
from pipeline.storage.objects import make_backend
from pipeline.storage.web import WebBackend
from tests.contracts.backend import BackendContract, ReadContract
from tests.objectstore.web import web_server


class TestLocal(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        return LocalBackend(tmp_path / "store")


class TestBucket(BackendContract):
    @pytest.fixture
    def backend(self, bucket: str) -> BucketBackend:
        return BucketBackend(f"{bucket}/some/run")


class TestWholeBucket(BackendContract):
    @pytest.fixture
    def backend(self, bucket: str) -> BucketBackend:
        return BucketBackend(bucket)


class TestMemory(BackendContract):
    @pytest.fixture
    def backend(self) -> WebBackend:
        return WebBackend(f"mem://{uuid.uuid4().hex}/run")


class TestWeb(ReadContract):
    @pytest.fixture
    def stored(self, tmp_path: Path) -> Iterator[Callable[[Mapping[str, bytes]], Backend]]:
        """The objects are files of a web server."""

        def serve(objects: Mapping[str, bytes]) -> Backend:
            for key, data in objects.items():
                (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / key).write_bytes(data)
            return WebBackend(address)

        with web_server(tmp_path) as address:
            yield serve


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/data/run", LocalBackend),
        ("file:///data/run", LocalBackend),
        ("s3://bucket/run", BucketBackend),
        ("gs://bucket/run", BucketBackend),
        ("mem://name/run", WebBackend),
        ("https://host/run", WebBackend),
    ],
)
def test_an_address_chooses_its_backend(url: str, kind: type) -> None:
    assert type(make_backend(url)) is kind
