"""Objects in an S3 or GCS bucket, through obstore.

    s3://bucket/path                  Amazon, or the server that AWS_ENDPOINT_URL names
    s3://https://host/bucket/path     another S3 server, named in the URL itself
    gs://bucket/path                  Google

What is checked
    put     the server's ETag, if it is the MD5 of what was sent; if it is not, or with ``durable``, the object is
            read back and compared
    get     a whole object against the MD5 that ``put`` stored in its metadata, a range by its length
A damaged transfer is repeated; if it is damaged every time, it is a ``CorruptError``.

What is repeated
    requests    by obstore, with growing pauses (``Patience.tries``)
    operations  by ``BucketBackend``, for ``Patience.outage_seconds``, once this process has used the bucket; a server
                that never answered is reported at once. ``put_if`` and ``get_versioned`` do not wait for the end
                of an outage: the holder of a lease must know in time that it cannot be renewed.
"""

from __future__ import annotations

import errno
import json
import logging
import posixpath
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from pipeline.storage.base import md5
from pipeline.storage.bucket_client import Client, connect, parse_address
from pipeline.storage.bucket_errors import explain, no_bucket
from pipeline.storage.errors import DamagedError, RequestError
from pipeline.storage.transfer import DIGEST, attributes, byte_range, fetch, read_back, tag, version_of

SCHEMES = ("s3", "gs")
PART_BYTES = 64 << 20
"""Larger objects are sent in parts of this size."""
DAMAGED_TRIES = 5
FIRST_PAUSE = 0.5
NO_VERSION = {"e_tag": f'"{"0" * 32}"', "version": "1"}
"""A version that no object has."""

Result = TypeVar("Result")
logger = logging.getLogger("petaseg.storage")


class BucketBackend:
    """Objects whose keys begin with a prefix."""

    def __init__(self, url: str) -> None:
        self.address, self.prefix = parse_address(url)

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """See ``Backend``."""
        if stop is not None and stop <= max(0, start or 0):
            return b"" if self.exists(key) else None
        path, span = self._path(key), byte_range(start, stop)
        found = self._ask(lambda client: fetch(client.reader, path, span))
        return None if found is None else found.data

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """See ``Backend``."""
        path = self._path(key)
        self._ask(lambda client: send(client, path, data, durable))

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """See ``Backend``."""
        found = self._ask(lambda client: fetch(client.reader, self._path(key)), patient=False)
        return None if found is None else (found.data, found.version)

    def put_if(self, key: str, data: bytes, version: str | None) -> str | None:
        """See ``Backend``."""
        path, writer = self._path(key), uuid.uuid4().hex
        return self._ask(lambda client: send_if(client, path, data, version, writer), patient=False)

    def exists(self, key: str) -> bool:
        """See ``Backend``."""
        return self._ask(lambda client: client.store.head(self._path(key))) is not None

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Backend``; obstore lists whole folders only."""
        folder = self._path(prefix.rpartition("/")[0])
        pages = self._ask(lambda client: [*client.store.list(folder or None)])
        begin = len(self.prefix) + 1 if self.prefix else 0
        keys = (item["path"][begin:] for page in pages or () for item in page)
        return (key for key in keys if key.startswith(prefix))

    def some(self, count: int) -> Sequence[str] | None:
        """See ``Backend``; one request. A reader may have the right to read objects and none to list them."""
        begin = len(self.prefix) + 1 if self.prefix else 0
        try:
            pages = self._ask(lambda client: [*islice(client.store.list(self.prefix or None, chunk_size=count), 1)])
        except RequestError as error:
            if error.number == errno.EACCES:
                return None
            raise
        return [item["path"][begin:] for page in pages or () for item in page]

    def delete(self, key: str) -> None:
        """See ``Backend``."""
        self._ask(lambda client: client.store.delete(self._path(key)))

    def _path(self, key: str) -> str:
        return posixpath.join(self.prefix, key) if key else self.prefix

    def _ask(self, action: Callable[[Client], Result], *, patient: bool = True) -> Result | None:
        """Run an action on the bucket and repeat it after errors that may pass; ``None`` if the object is missing."""
        client = connect(self.address)
        began, pause, damaged = time.monotonic(), FIRST_PAUSE, 0
        while True:
            try:
                return ask_once(client, action)
            except DamagedError as failure:
                damaged, cause = damaged + 1, failure.cause
                if damaged == DAMAGED_TRIES:
                    raise
            except RequestError as failure:
                cause = failure.cause
                limit = waiting_time(client, failure) if patient else client.patience.lease_seconds
                if not failure.transient or time.monotonic() - began >= limit:
                    raise
            logger.warning("%s: %s; trying again", self.address, cause)
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, client.patience.longest_pause)


def waiting_time(client: Client, failure: RequestError) -> float:
    """Seconds for which an operation is repeated after this failure, if it may wait at all."""
    if client.used:
        return client.patience.outage_seconds
    return client.patience.first_seconds if failure.answered else 0


def ask_once(client: Client, action: Callable[[Client], Result]) -> Result | None:
    """The result of an action, or ``None`` for a missing object; a ``RequestError`` reveals no secret."""
    result: Result | None = None
    try:
        result = action(client)
    except FileNotFoundError as error:
        missing = "NoSuchBucket" in str(error) or not bucket_exists(client)
        failure = no_bucket(client.server) if missing else None
    except Exception as error:
        failure = explain(error, client.server)
    else:
        failure = None
    if failure is not None:
        raise failure  # outside of the handler, so that a traceback does not print the server's whole answer
    client.used = True
    return result


def send(client: Client, path: str, data: bytes, durable: bool) -> None:
    """Store an object and check that it arrived undamaged."""
    digest = md5(data)
    parts = {"use_multipart": len(data) > PART_BYTES, "chunk_size": PART_BYTES}
    try:
        sent = client.store.put(path, data, attributes=attributes(digest), **parts)
    except FileNotFoundError:
        raise no_bucket(client.server) from None
    if durable or tag(sent) != digest:  # encrypted buckets and large objects have other tags
        read_back(client.reader, path, digest)


def send_if(client: Client, path: str, data: bytes, version: str | None, writer: str) -> str | None:
    """Store an object if it has this version.

    The object's metadata name its writer. Obstore repeats a request whose answer was lost, and if the first one had
    been carried out, the repeated one must not count as another writer's.
    """
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    mode = "create" if version is None else json.loads(version)
    marks = attributes(md5(data), writer)
    try:
        sent = client.store.put(path, data, attributes=marks, mode=mode, use_multipart=False)
    except (AlreadyExistsError, PreconditionError) as error:
        if "NoSuchBucket" in str(error):
            raise no_bucket(client.server) from None
        found = fetch(client.reader, path)
        return found.version if found.writer == writer else None
    if tag(sent) != marks[DIGEST]:
        read_back(client.reader, path, marks[DIGEST])
    if version is None and not client.heeds_conditions:
        check_conditions(client, path, data, marks)
    return version_of(sent)


def check_conditions(client: Client, path: str, data: bytes, marks: Mapping[str, str]) -> None:
    """``RequestError`` unless the server refuses to store again, under false conditions, what was just stored.

    A server that ignores conditions would give two drivers one lease. It is tested once in a process.
    """
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    for mode in ("create", NO_VERSION):
        try:
            client.store.put(path, data, attributes=marks, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            continue
        raise RequestError(
            "the server ignores conditional writes (If-None-Match, If-Match), so it cannot keep two drivers apart",
            "update it, or put the run directory on another store; inputs may stay there",
        )
    client.heeds_conditions = True


def bucket_exists(client: Client) -> bool:
    """False only if the server answers that the bucket is missing. The server is asked once in a process."""
    if not client.exists:
        try:
            next(iter(client.store.list(chunk_size=1)), None)
        except Exception as error:
            return "NoSuchBucket" not in str(error)
    client.exists = True
    return True
