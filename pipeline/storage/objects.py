"""``ObjectStore``: the interface to storage for the rest of the project."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.errors import ConfigError, StorageError
from pipeline.storage.addresses import local_path, parent_of, refuse_credentials
from pipeline.storage.arrays import pack_arrays, read_array, unpack_arrays
from pipeline.storage.base import Backend
from pipeline.storage.bucket import SCHEMES, BucketBackend
from pipeline.storage.errors import MissingObjectError, storage_errors
from pipeline.storage.local import LocalBackend, append_bytes
from pipeline.storage.web import WebBackend

REQUESTS = 16
"""Requests of ``each`` to buckets at a time."""
IN_POOL = threading.local()

Item = TypeVar("Item")
Result = TypeVar("Result")


class ObjectStore:
    """Objects (bytes) by key under one URL; keys are relative paths with ``/``. Threads may share a store."""

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        self.url = text if text.endswith("://") else text.rstrip("/") or "/"
        self.local_path: Path | None = local_path(self.url)
        """The folder, if it is on a file system."""
        self._backend = make_backend(self.url)

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        return ObjectStore, (self.url,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStore) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    @property
    def supports_append(self) -> bool:
        """True on a file system, the only place where ``append`` works."""
        return self.local_path is not None

    def get(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """The bytes of an object, or its bytes ``start`` to ``stop`` (a negative start counts from the end).

        Raises ``MissingObjectError`` (a ``StorageError`` and ``KeyError``) if there is none.
        """
        data = self.get_or_none(key, start, stop)
        if data is None:
            raise MissingObjectError(f"{self._name(key)} does not exist; run the step that writes it first")
        return data

    def get_or_none(self, key: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        """Like ``get``, but ``None`` for a missing object."""
        with storage_errors("read", self._name(key)):
            return self._backend.get(key, start, stop)

    def put(self, key: str, data: bytes, *, durable: bool = False) -> None:
        """Store an object, replacing any of that key, all or nothing; ``durable`` also waits for the disk."""
        with storage_errors("write", self._name(key)):
            self._backend.put(key, data, durable)

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """An object and its version, for ``put_if``; ``None`` if there is none. Equal bytes may have equal versions."""
        with storage_errors("read", self._name(key)):
            return self._backend.get_versioned(key)

    def put_if(self, key: str, data: bytes, version: str | None) -> str | None:
        """Store an object if its present version is ``version``, or if there is none and ``version`` is ``None``.

        Returns the new version, or ``None`` if another writer came first. Of several callers, in any processes and on
        any machines that share the store, exactly one succeeds. Other writes to the same key (``put``, ``delete``) are
        not held back: use only ``put_if`` on a key that several write. The object survives a crash of the machine.
        """
        with storage_errors("write", self._name(key)):
            return self._backend.put_if(key, data, version)

    def exists(self, key: str) -> bool:
        """True if there is an object of this key (a folder is not an object)."""
        with storage_errors("look for", self._name(key)):
            return self._backend.exists(key)

    def list(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``, sorted; half-written objects are never among them."""
        with storage_errors("list", self._name(prefix)):
            return sorted(self._backend.list(prefix))

    def some(self, count: int) -> Sequence[str] | None:
        """A few keys, up to about ``count``, however many there are; ``None`` where keys cannot be listed."""
        with storage_errors("list", self.url):
            return self._backend.some(count)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        with storage_errors("delete", self._name(key)):
            self._backend.delete(key)

    def append(self, key: str, data: bytes) -> None:
        """Add bytes at the end of an object, which has one writer; on an error the object is as it was before."""
        if self.local_path is None:
            raise StorageError(f"cannot append to {self._name(key)}; only local folders can: put whole objects instead")
        with storage_errors("append to", self._name(key)):
            append_bytes(self.local_path / key, data)

    def put_arrays(self, key: str, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
        """Store named arrays as one ``.npz`` object; equal arrays give equal bytes. No Python objects."""
        self.put(key, pack_arrays(arrays, compress=compress))

    def get_arrays(self, key: str) -> dict[str, np.ndarray]:
        """The arrays of an object that ``put_arrays`` (or ``numpy.savez``) wrote; ``CorruptError`` if damaged."""
        return unpack_arrays(self.get(key), self._name(key))

    def get_array(self, key: str, name: str) -> np.ndarray | None:
        """One of the arrays that ``put_arrays`` stored uncompressed, without the bytes of the others.

        ``None`` if the object has no such array; ``CorruptError`` if damaged.
        """
        return read_array(partial(self.get, key), name, self._name(key))

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Sequence[Result]:
        """Apply ``function`` to every item and return the results in order; in a bucket, the calls run in parallel."""
        alone = (
            self.local_path is not None or len(items) < 2 or getattr(IN_POOL, "yes", False)
        )  # a pool that waits for itself hangs
        return tuple(map(function, items) if alone else pool().map(function, items))

    def _name(self, key: str) -> str:
        return f"{self.url}/{key}"


def store_of(url: str | Path) -> tuple[ObjectStore, str]:
    """The store and the key of a single object that a user names by its path or URL."""
    path = local_path(str(url))
    if path is not None:
        return ObjectStore(path.parent), path.name
    text = str(url).rstrip("/")
    folder = parent_of(text)
    if folder is None:
        raise ConfigError(f"{url} names no object; write the whole address of a file, such as s3://bucket/file")
    return ObjectStore(folder), text.rpartition("/")[2]


@lru_cache(maxsize=1)
def pool() -> ThreadPoolExecutor:
    """Threads that wait for buckets; all stores of a process share them."""
    return ThreadPoolExecutor(REQUESTS, "petaseg-bucket", initializer=lambda: setattr(IN_POOL, "yes", True))


def make_backend(url: str) -> Backend:
    """The kind of storage that a URL names."""
    path = local_path(url)
    if path is not None:
        return LocalBackend(path)
    refuse_credentials(url)
    return BucketBackend(url) if url.partition("://")[0] in SCHEMES else WebBackend(url)
