"""What a kind of storage must be able to do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol


class Backend(Protocol):
    """What a kind of storage can do with one key. It raises the system's own errors, or a ``RequestError``."""

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """The bytes of an object or of a range of it; a negative start counts from the end; ``None`` if missing."""
        ...

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """Store an object, all or nothing."""
        ...

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """An object with its version, ``None`` if missing."""
        ...

    def put_if(self, key: str, data: bytes, version: str | None) -> str | None:
        """Store an object if its present version is ``version``; returns the new version, or ``None`` if it is another
        one.
        """
        ...

    def exists(self, key: str) -> bool:
        """True if there is such an object."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that begins with a prefix, in any order."""
        ...

    def some(self, count: int) -> Sequence[str] | None:
        """A few keys, up to about ``count``, without looking at all; ``None`` where keys cannot be listed."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        ...


def md5(data: bytes) -> str:
    """The checksum that object stores use too. It finds damage, but does not protect against forgery."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
