"""The connection of this process to a bucket: address, credentials, patience."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.storage.addresses import refuse_credentials
from pipeline.storage.bucket_errors import Server
from pipeline.storage.credentials import google_access, s3_access

S3_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials"
GOOGLE_KEYS = "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"


@dataclass(frozen=True)
class Patience:
    """How long a server that does not answer, or answers with errors, is waited for."""

    connect_seconds: float = 10
    stall_seconds: float = 120
    """A request that received no byte for this time is given up and sent again."""
    tries: int = 6
    """How often obstore repeats one request, with pauses that double from 0.1 s."""
    request_seconds: float = 60
    """The time for which obstore repeats one request."""
    outage_seconds: float = 900
    """How long an operation is repeated on a bucket that this process has used before."""
    first_seconds: float = 60
    """How long it is repeated on a bucket not used before, if the server answers with errors; not at all if it is
    silent.
    """
    lease_seconds: float = 5
    """How long an operation on a lease is repeated: ``put_if`` and ``get_versioned``."""
    longest_pause: float = 30


PATIENCE = Patience()


@dataclass(frozen=True)
class Address:
    """A bucket on a server."""

    scheme: str
    endpoint: str | None
    """Named in the URL itself; otherwise the environment may name one."""
    bucket: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.endpoint + '/' if self.endpoint else ''}{self.bucket}"


@dataclass
class Client:
    """An open bucket of obstore; all stores of a process share it, and it is never sent to another process."""

    store: Any
    """The store of obstore."""
    reader: Any
    """The same bucket, for reading whole objects and ranges."""
    server: Server
    patience: Patience
    used: bool = False
    """True once an operation has succeeded."""
    exists: bool = False
    """True once the bucket is known to be there."""
    heeds_conditions: bool = False
    """True once the server has refused a write under a false condition."""


def parse_address(url: str) -> tuple[Address, str]:
    """The bucket of a URL and the prefix of its keys; ``ConfigError`` if it names none."""
    scheme, _, rest = url.partition("://")
    endpoint = None
    if scheme == "s3" and rest.startswith(("http://", "https://")):
        endpoint, _, rest = rest.partition("://")
        host, _, rest = rest.partition("/")
        endpoint = check_endpoint(f"{endpoint}://{host}")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ConfigError(f"{url} names no bucket; write {scheme}://bucket/path")
    return Address(scheme, endpoint, bucket), "/".join(part for part in prefix.split("/") if part)


def check_endpoint(endpoint: str) -> str:
    """The address of a server; ``ConfigError`` if it is none, or holds credentials."""
    refuse_credentials(endpoint)
    try:
        server = urlsplit(endpoint)
        usable = server.scheme in ("http", "https") and server.hostname and server.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{endpoint} is no address of a server; write https://host or https://host:port")
    return endpoint.rstrip("/")


@lru_cache(maxsize=64)
def connect(address: Address) -> Client:
    """Open a bucket with the credentials of the environment; nothing is sent yet."""
    return _google(address) if address.scheme == "gs" else _s3(address)


def _s3(address: Address) -> Client:
    from obstore.store import S3Store

    access = s3_access()
    endpoint = address.endpoint or (access.endpoint and check_endpoint(access.endpoint))
    settings: dict[str, Any] = {"region": access.region, "skip_signature": access.provider is None}
    if endpoint:
        settings |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    options = _options(allow_http=bool(endpoint and endpoint.startswith("http://")))
    store = S3Store(address.bucket, config=settings, credential_provider=access.provider, **options)  # type: ignore[arg-type]
    name = endpoint or f"https://s3.{access.region}.amazonaws.com"
    return Client(store, store, Server(name, address.bucket, access.provider is not None, S3_KEYS), PATIENCE)


def _google(address: Address) -> Client:
    from obstore.store import GCSStore

    access = google_access()
    settings: Any = {"skip_signature": not access.signed}
    if access.key_file:
        settings["service_account"] = access.key_file
    options = _options(allow_http=access.endpoint.startswith("http://"))
    store = GCSStore(address.bucket, config=settings, **options)
    # Google unpacks objects stored compressed and then omits the length, which obstore needs, unless we accept gzip.
    options["client_options"]["default_headers"] = {"Accept-Encoding": "gzip"}
    reader = GCSStore(address.bucket, config=settings, **options)
    server = Server(access.endpoint, address.bucket, access.signed, GOOGLE_KEYS)
    return Client(store, reader, server, PATIENCE)


def own_authority() -> dict[str, bytes]:
    """The certificates of ``AWS_CA_BUNDLE``, beside the system's, for a lab's own servers."""
    path = os.environ.get("AWS_CA_BUNDLE")
    if not path:
        return {}
    try:
        return {"root_certificate": Path(path).read_bytes()}
    except OSError as error:
        raise ConfigError(f"AWS_CA_BUNDLE names {path}: {error.strerror}; name a PEM file of certificates") from None


def _options(*, allow_http: bool) -> dict[str, Any]:
    return {
        "client_options": {
            "allow_http": allow_http,
            "connect_timeout": timedelta(seconds=PATIENCE.connect_seconds),
            "read_timeout": timedelta(seconds=PATIENCE.stall_seconds),
            "timeout": timedelta(seconds=10 * PATIENCE.stall_seconds),
            **own_authority(),
        },
        "retry_config": {
            "max_retries": PATIENCE.tries,
            "retry_timeout": timedelta(seconds=PATIENCE.request_seconds),
        },
    }
