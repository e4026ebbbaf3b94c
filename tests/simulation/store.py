"""SimulatedStore: objects in memory that outlive every process; the disk may be full, read-only or unreliable."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.storage import ObjectStore
from pipeline.storage.base import md5
from pipeline.storage.errors import storage_errors
from tests.simulation.world import World


class Disk:
    """The stored objects. A file system appends to objects, a bucket does not."""

    def __init__(self, *, file_system: bool) -> None:
        self.file_system = file_system
        self.objects: dict[str, bytes] = {}
        self.room: int | None = None
        """Bytes that still fit; None if there is no limit."""
        self.read_only = False

    def mend(self) -> None:
        """Make room, and allow writing again."""
        self.room, self.read_only = None, False

    def take(self, data: bytes) -> None:
        """Make sure that a number of bytes may be written."""
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if self.room is not None:
            if len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)


class SimulatedBackend:
    """``Backend`` over a disk; every operation is a request in the simulated world."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world, self.disk = world, disk

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """See ``Backend``."""
        data: bytes | None = self.world.request(f"get {key}", lambda: self.disk.objects.get(key))
        return data if data is None else data[start:stop]

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """See ``Backend``: all or nothing."""

        def change() -> None:
            self.disk.take(data)
            self.disk.objects[key] = bytes(data)

        self.world.request(f"put {key}", change)

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """See ``Backend``."""
        data = self.get(key, None, None)
        return None if data is None else (data, md5(data))

    def put_if(self, key: str, data: bytes, version: str | None) -> str | None:
        """See ``Backend``."""

        def change() -> str | None:
            present = self.disk.objects.get(key)
            if version != (None if present is None else md5(present)):
                return None
            self.disk.take(data)
            self.disk.objects[key] = data
            return md5(data)

        written: str | None = self.world.request(f"put {key}", change)
        return written

    def append(self, key: str, data: bytes) -> None:
        """Add bytes to an object; a process that dies in the middle leaves a part of them."""

        def change(part: bytes = data) -> None:
            self.disk.take(part)
            self.disk.objects[key] = self.disk.objects.get(key, b"") + part

        def tear() -> None:
            if self.disk.room is None and not self.disk.read_only:
                change(data[: self.world.dice.randrange(len(data))])

        self.world.request(f"append to {key}", change, tear)

    def exists(self, key: str) -> bool:
        """See ``Backend``."""
        return bool(self.world.request(f"look for {key}", lambda: key in self.disk.objects))

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Backend``."""
        keys: list[str] = self.world.request(
            f"list {prefix}", lambda: [key for key in self.disk.objects if key.startswith(prefix)]
        )
        return iter(keys)

    def some(self, count: int) -> Sequence[str]:
        """See ``Backend``."""
        return list(self.list(""))[:count]

    def delete(self, key: str) -> None:
        """See ``Backend``."""

        def change() -> None:
            self.disk.take(b"")
            self.disk.objects.pop(key, None)

        self.world.request(f"delete {key}", change)


class SimulatedStore(ObjectStore):
    """The store of a simulated run: a fake that raises the errors of the real one."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.url = "simulated://run"
        self.local_path = Path("/simulated") if disk.file_system else None
        self._backend: SimulatedBackend = SimulatedBackend(world, disk)

    def append(self, key: str, data: bytes) -> None:
        """See ``ObjectStore``."""
        with storage_errors("append to", self._name(key)):
            self._backend.append(key, data)
