"""Errors of storage: what failed, why, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import CorruptError, PetasegError, StorageError

NO_LOCKS = "this file system has no locks or no hard links: mount it with them, or choose another folder or a bucket"
REMEDIES = {
    errno.ENOSPC: "free some space there and run the same command again; nothing that was stored is lost",
    errno.EDQUOT: "raise the quota or free some space and run the same command again; nothing that was stored is lost",
    errno.EFBIG: "this file system or a limit of this process refuses such large files: choose smaller chunks or parts",
    errno.EROFS: "this file system is mounted read-only: choose another folder, or remount it",
    errno.EACCES: "give this user the right to read and write there, or choose another folder",
    errno.EPERM: "give this user the right to read and write there, or choose another folder",
    errno.ENOTDIR: "a part of this path is a file: choose another folder, or move that file away",
    errno.ENAMETOOLONG: "this file system holds no such long names: choose a shorter one",
    errno.ELOOP: "a link there leads to itself: choose another folder, or correct the link",
    errno.EISDIR: "there is a folder of this name: choose another name, or move that folder away",
    errno.ENOLCK: NO_LOCKS,
    errno.EOPNOTSUPP: NO_LOCKS,
    errno.ENOSYS: NO_LOCKS,
    errno.ETIMEDOUT: "see that no stopped process of this run is left there, then run again",
}


class MissingObjectError(StorageError, KeyError):
    """No object has this key."""


class RequestError(Exception):
    """A bucket refused a request, or did not answer; it holds nothing of what was sent."""

    def __init__(
        self, cause: str, remedy: str, *, transient: bool = False, answered: bool = True, number: int | None = None
    ) -> None:
        super().__init__(f"{cause}; {remedy}")
        self.cause, self.remedy, self.number = cause, remedy, number
        self.transient = transient
        """True if the same request may succeed later."""
        self.answered = answered
        """False if nobody answered."""


class DamagedError(RequestError):
    """Bytes came out of a bucket that are not those that went in."""


@contextmanager
def storage_errors(verb: str, name: str) -> Iterator[None]:
    """Turn the system's errors into a ``StorageError`` that gives the name, the cause and the remedy."""
    try:
        yield
    except (PetasegError, MemoryError):
        raise
    except Exception as error:
        raise as_storage_error(error, verb, name) from error


def as_storage_error(error: Exception, verb: str, name: str) -> StorageError:
    """The ``StorageError`` that tells what failed, why, and what to do; it keeps the error number."""
    if isinstance(error, RequestError):
        kind = CorruptError if isinstance(error, DamagedError) else StorageError
        number, cause, remedy = error.number, error.cause, error.remedy
    else:
        kind = StorageError
        number = error.errno if isinstance(error, OSError) else None
        cause = os.strerror(number) if number else f"{type(error).__name__}: {error}"
        remedy = REMEDIES.get(number or 0, "check the disk or the network and the credentials, then run again")
    result = kind(f"cannot {verb} {name}: {cause}; {remedy}")
    result.errno = number
    return result
