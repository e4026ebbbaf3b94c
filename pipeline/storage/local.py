"""Objects as files under a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pipeline.storage.base import md5

PARTIAL = ".partial"
LOCK = ".lock"
LOCK_SECONDS = 30.0
"""``put_if`` holds a lock for milliseconds; if it is not free after this time, a stopped process holds it."""


class LocalBackend:
    """Objects as files under a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """See ``Backend``."""
        try:
            with open(self.root / key, "rb") as file:
                if start:
                    file.seek(start if start > 0 else max(0, file.seek(0, os.SEEK_END) + start))
                return file.read(-1 if stop is None else max(0, stop - file.tell()))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """See ``Backend``."""
        write_atomic(self.root / key, data, durable=durable)

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        """See ``Backend``; the version is a digest of the bytes."""
        data = self.get(key, None, None)
        return None if data is None else (data, md5(data))

    def put_if(self, key: str, data: bytes, version: str | None) -> str | None:
        """See ``Backend``. Compares and renames under a lock of the file system, which the kernel frees if we die."""
        path = self.root / key
        with locked(path):
            present = self.get_versioned(key)
            if version != (None if present is None else present[1]):
                return None
            if version is not None:
                write_atomic(path, data, durable=True)
            elif not create_atomic(path, data):
                return None
        return md5(data)

    def exists(self, key: str) -> bool:
        """See ``Backend``."""
        return (self.root / key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Backend``."""
        for folder, _, names in os.walk(self.root / prefix.rpartition("/")[0]):
            parent = Path(folder).relative_to(self.root).as_posix()
            for name in names:
                key = name if parent == "." else f"{parent}/{name}"
                if key.startswith(prefix) and not is_hidden(name):
                    yield key

    def some(self, count: int) -> Sequence[str]:
        """See ``Backend``."""
        return list(islice(self.list(""), count))

    def delete(self, key: str) -> None:
        """See ``Backend``."""
        (self.root / key).unlink(missing_ok=True)


def is_hidden(name: str) -> bool:
    """True for the files beside an object that are no objects themselves."""
    return name.endswith(PARTIAL) or (name.startswith(".") and name.endswith(LOCK))


def write_atomic(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file under a temporary name beside it and rename it; no temporary file is left after an error."""
    with temporary_file(path, data, durable=durable) as temporary:
        os.replace(temporary, path)


def create_atomic(path: Path, data: bytes) -> bool:
    """Write a file that does not exist yet; False if it does. Only one process can make a hard link, on network disks
    too.
    """
    with temporary_file(path, data, durable=True) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def temporary_file(path: Path, data: bytes, *, durable: bool) -> Iterator[Path]:
    """A hidden file with these bytes beside ``path``, removed at the end if it is still there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with open_for_writing(temporary) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def open_for_writing(path: Path) -> BinaryIO:
    """Open an empty file. Its folder is made only if opening fails, which saves a call for each object."""
    try:
        return open(path, "wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes and threads that lock the same path out; the lock ends with the process at the latest."""
    with open_for_writing(path.with_name(f".{path.name}{LOCK}")) as file:
        end = time.monotonic() + LOCK_SECONDS
        while not try_lock(file.fileno()):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, f"another process has held the lock {file.name} too long")
            time.sleep(0.005)
        yield


def try_lock(descriptor: int) -> bool:
    """Lock an open file; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def append_bytes(path: Path, data: bytes) -> None:
    """Append to a file that has one writer; a write that fails half-way is undone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(size)
            raise
