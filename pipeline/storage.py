"""Small objects under one folder or URL: whole reads, all-or-nothing writes, sorted lists.

    local path, file://          put writes a hidden temporary file beside the target and renames it
    s3://, gs://, https://       through cloud-files (credentials as for cloud-volume); a put is atomic there anyway
    mem://                       objects that live as long as the process

A reader, also one in another process or after ``kill -9``, sees an object as it was before a put or after it.
"""

from __future__ import annotations

import errno
import io
import os
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import CorruptError, PetasegError, StorageError

PARTIAL = ".partial"
REMEDIES = {
    errno.ENOSPC: "free some space there and run the same command again; nothing that was stored is lost",
    errno.EDQUOT: "raise the quota or free some space and run the same command again; nothing that was stored is lost",
    errno.EFBIG: "this file system or a limit of this process refuses such large files: choose smaller chunks or parts",
    errno.EROFS: "this file system is mounted read-only: choose another folder, or remount it",
    errno.EACCES: "give this user the right to read and write there, or choose another folder",
    errno.EPERM: "give this user the right to read and write there, or choose another folder",
    errno.ENOTDIR: "a part of this path is a file: choose another folder, or move that file away",
    errno.EISDIR: "there is a folder of this name: choose another name, or move that folder away",
}
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class MissingObjectError(StorageError, KeyError):
    """No object has this key."""


class Backend(Protocol):
    """What a kind of storage can do with one key; errors are the system's own."""

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """The bytes of an object or of a range of it; a negative start counts from the end; ``None`` if missing."""
        ...

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """Store an object, all or nothing."""
        ...

    def exists(self, key: str) -> bool:
        """True if there is such an object."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that begins with a prefix, in any order."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        ...


class ObjectStore:
    """Objects (bytes) by key under one URL; keys are relative paths with ``/``. Threads may share a store."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/") or "/"
        self.local_path: Path | None = local_path(self.url)
        """The folder, if it is on a file system."""
        self._backend: Backend = LocalBackend(self.local_path) if self.local_path else CloudBackend(self.url)

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

    def exists(self, key: str) -> bool:
        """True if there is an object of this key (a folder is none)."""
        with storage_errors("look for", self._name(key)):
            return self._backend.exists(key)

    def list(self, prefix: str = "") -> list[str]:
        """All keys that begin with ``prefix``, sorted; half-written objects are never among them."""
        with storage_errors("list", self._name(prefix)):
            return sorted(self._backend.list(prefix))

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

    def _name(self, key: str) -> str:
        return f"{self.url}/{key}"


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

    def exists(self, key: str) -> bool:
        """See ``Backend``."""
        return (self.root / key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Backend``."""
        for folder, _, names in os.walk(self.root / prefix.rpartition("/")[0]):
            parent = Path(folder).relative_to(self.root).as_posix()
            for name in names:
                key = name if parent == "." else f"{parent}/{name}"
                if key.startswith(prefix) and not name.endswith(PARTIAL):
                    yield key

    def delete(self, key: str) -> None:
        """See ``Backend``."""
        (self.root / key).unlink(missing_ok=True)


class CloudBackend:
    """Objects in a bucket, through cloud-files, which repeats failed requests by itself."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _files(self) -> Any:
        from cloudfiles import CloudFiles  # one to two seconds: only where a bucket is used

        return CloudFiles(self.url, progress=False)

    def get(self, key: str, start: int | None, stop: int | None) -> bytes | None:
        """See ``Backend``."""
        if start is None and stop is None:
            return self._files.get(key)  # type: ignore[no-any-return]
        size = self._files.size(key)
        if size is None:
            return None
        first = max(0, size + start) if start and start < 0 else start or 0
        last = size if stop is None else min(stop, size)
        if first >= last:
            return b""
        data: bytes = self._files.get({"path": key, "start": first, "end": last})
        return data if len(data) <= last - first else data[first:last]  # plain web servers send the whole file

    def put(self, key: str, data: bytes, durable: bool) -> None:
        """See ``Backend``."""
        self._files.put(key, bytes(data), compress=None, cache_control="no-cache")

    def exists(self, key: str) -> bool:
        """See ``Backend``."""
        return bool(self._files.exists(key))

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Backend``."""
        return iter(self._files.list(prefix))

    def delete(self, key: str) -> None:
        """See ``Backend``."""
        self._files.delete(key)


def local_path(url: str) -> Path | None:
    """The path that a URL names on this machine; ``None`` for any other scheme than ``file``."""
    scheme, marker, rest = url.partition("://")
    if not marker:
        return Path(url).expanduser()
    return Path(rest) if scheme == "file" else None


def write_atomic(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file under a temporary name beside it and rename it; no temporary file is left after an error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        file = open(temporary, "wb")  # noqa: SIM115  (closed below; the folder may have to be made first)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")  # noqa: SIM115
    try:
        with file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def append_bytes(path: Path, data: bytes) -> None:
    """Append to a file that has one writer; a write that fails half-way is taken back."""
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


def pack_arrays(arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> bytes:
    """Named arrays as the bytes of an npz file, members in name order and dated 1980: equal arrays, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
            member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                array = np.asarray(arrays[name], order="C")
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(data: bytes, name: str = "object") -> dict[str, np.ndarray]:
    """The named arrays in the bytes of an npz file; every member's CRC is checked (``CorruptError``)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        return {
            key.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
            for key, member in members.items()
        }
    except Exception as error:
        raise CorruptError(
            f"{name} is damaged ({error}): its bytes are not the arrays that were written; "
            "delete it and run the step that writes it again"
        ) from error


@contextmanager
def storage_errors(verb: str, name: str) -> Iterator[None]:
    """Turn the system's errors into ``StorageError`` with the name, the cause and what to do."""
    try:
        yield
    except (PetasegError, MemoryError):
        raise
    except Exception as error:
        raise as_storage_error(error, verb, name) from error


def as_storage_error(error: Exception, verb: str, name: str) -> StorageError:
    """The ``StorageError`` that tells what failed, why, and what to do; it keeps the error number."""
    number = error.errno if isinstance(error, OSError) else None
    cause = os.strerror(number) if number else f"{type(error).__name__}: {error}"
    remedy = REMEDIES.get(number or 0, "check the disk or the network and the credentials, then run again")
    result = StorageError(f"cannot {verb} {name}: {cause}; {remedy}")
    result.errno = number
    return result
