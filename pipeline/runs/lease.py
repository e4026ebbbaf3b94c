"""One driver for each run: a lease in the run directory, which its holder renews.

A driver writes ``lease.json`` before it changes anything, and a new beat into it every few seconds. Another driver that
finds a lease

    released                                   takes it at once
    of a process of this machine that is gone  takes it at once
    of an earlier start of the same job        takes it at once: a cluster starts a job once at a time
    with a beat that changes                   is refused
    with one beat for the whole lease time     takes it: the holder is dead, or cut off
    damaged, for the whole lease time          takes it: nobody can tell whose it was, and that driver may live
    written by a newer petaseg                 is refused

Only the waiting driver's own clock is used, so clocks may differ between machines. Every write is conditional on the
version that was read (``ObjectStore.put_if``), so only one of two drivers gets the lease. A holder that was cut off and
returns checks its lease before it writes the next record, and stops; so do its workers before they write (``Fence``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import psutil
from pydantic import TypeAdapter

from pipeline.errors import LeaseError, StorageError
from pipeline.formats import LEASE
from pipeline.runs.hints import command
from pipeline.storage import ObjectStore

logger = logging.getLogger("petaseg.lease")

KEY = "lease.json"
BEATS = 4
"""Renewals in one lease time."""
POLL_SECONDS = 1.0
DriverState = Literal["working", "silent", "dead", "released", "unknown"]
"""Dead: its process is gone, or, if it ran on another machine, its lease has expired.

Silent: its process is on this machine and gives no sign of life, as when it was stopped. Released: it ended by itself.
Unknown: its lease is damaged.
"""


@dataclass(frozen=True)
class Holder:
    """The identity of a driver process, by which another can tell whether it still lives."""

    host: str
    pid: int
    started: float
    """When the process began, seconds since 1970: another process may get the same number later."""
    job: str = ""
    """The job of a cluster that it runs in, if any: the environment variable ``PETASEG_JOB``."""
    start: int = 0
    """How often the cluster has started this job before: ``PETASEG_JOB_START``."""

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            job=os.environ.get("PETASEG_JOB", ""),
            start=int(os.environ.get("PETASEG_JOB_START", 0)),
        )

    def is_surely_dead(self) -> bool:
        """True if the holder has certainly ended; False if it lives, or if this process cannot know."""
        here = Holder.here()
        if self.job and self.job == here.job and self.start < here.start:
            return True
        if self.host != here.host or self == here:
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def is_here(self) -> bool:
        """True if it ran, or runs, on this machine."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        if self == UNKNOWN:
            return f"an unknown driver ({KEY} is damaged)"
        return f"process {self.pid} on {self.host}" + (f" ({self.job})" if self.job else "")


@dataclass(frozen=True)
class LeaseRecord:
    """The content of ``lease.json``."""

    holder: Holder
    beat: str
    """Changes with every renewal."""
    renewed: float
    """By the holder's clock, seconds since 1970; for display."""
    released: bool = False
    term: str = ""
    """Names this lease from ``acquire`` to ``release``; no other has the same."""

    @property
    def damaged(self) -> bool:
        """True if nobody can tell who the holder is."""
        return self.holder == UNKNOWN

    def state(self, now: float, lease_seconds: float, heard: float = 0.0) -> DriverState:
        """What this process knows about the driver.

        now: by this machine's clock, seconds since 1970. lease_seconds: after so long without a beat another driver may
        take over. heard: when this process saw the beat change, if it did; the holder's clock may differ from ours.
        """
        if self.released or self.damaged:
            return "released" if self.released else "unknown"
        if self.holder.is_surely_dead():
            return "dead"
        if now - max(self.renewed, heard) <= lease_seconds:
            return "working"
        return "silent" if self.holder.is_here() else "dead"

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({**LEASE.stamp, **asdict(self)}).encode()

    @classmethod
    def decode(cls, data: bytes, place: str = KEY) -> LeaseRecord:
        """The record that is stored at ``place``. A damaged one has an unknown holder, who may live.

        Raises ``LeaseError`` if a newer petaseg has written it.
        """
        try:
            LEASE.check(json.loads(data), place, LeaseError)
            return RECORD.validate_json(data, strict=True)
        except (ValueError, TypeError):
            return cls(UNKNOWN, hashlib.blake2b(data).hexdigest(), 0.0)


UNKNOWN = Holder("", 0, 0.0)
"""The holder of a damaged lease."""
RECORD = TypeAdapter(LeaseRecord)
"""Checks the types of what is read, and ignores fields that it does not know."""


def read_lease(store: ObjectStore) -> LeaseRecord | None:
    """The lease of a run; ``None`` if there never was one. ``LeaseError`` if a newer petaseg has written it."""
    data = store.get_or_none(KEY)
    return None if data is None else LeaseRecord.decode(data, f"{store.url}/{KEY}")


@dataclass(frozen=True)
class Fence:
    """The check that a worker makes before it writes: whether another driver has followed the one that gave it its
    chunk.

    The next driver may work under another configuration and may have recorded the chunk already, so a late result must
    not be written over it. If no driver has followed, a late result is written.

    One gap remains: a worker may stop between the check and the write, and continue after its chunk was computed again;
    no store can refuse that write. Drivers end the workers that they have started, so this can happen only within
    seconds.
    """

    store: ObjectStore
    term: str

    def may_write(self) -> None:
        """Raise ``LeaseError`` if another driver has taken the lease since, also one of a newer petaseg."""
        record = read_lease(self.store)
        if record is not None and record.term not in ("", self.term):  # a damaged record does not count
            raise LeaseError(
                f"{record.holder} has taken over {self.store.url}; this worker belongs to a driver whose time is over "
                "and writes nothing"
            )


class Lease:
    """The right to write a run directory; a context manager that renews it from a thread.

    seconds: after so long without a beat a holder counts as dead (``execution.lease_seconds``).
    """

    def __init__(self, store: ObjectStore, *, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self.store, self.seconds, self._sleep = store, seconds, sleep
        self.holder = Holder.here()
        self.fence = Fence(store, uuid.uuid4().hex)
        """The fence for this driver's workers."""
        self._version: str | None = None
        self._renewed = 0.0
        self._lost = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        self.acquire()
        self._thread = threading.Thread(target=self._keep, name="petaseg-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.release()

    def acquire(self) -> None:
        """Take the lease; waits up to the lease time for a new beat. ``LeaseError`` if another driver lives."""
        seen, since = "", time.monotonic()
        while True:
            found = self.store.get_versioned(KEY)
            other = None if found is None else LeaseRecord.decode(found[0], f"{self.store.url}/{KEY}")
            if other is not None and seen and other.beat != seen and not other.released:
                raise LeaseError(self._refusal(other))
            silent = bool(seen) and time.monotonic() - since >= self.seconds
            if other is None or other.released or silent or other.holder.is_surely_dead():
                if self._put(None if found is None else found[1]):
                    return
                seen, since = "", time.monotonic()  # another driver was faster: watch its beat
                continue
            self._refuse_neighbour(other)
            if not seen:
                logger.info("waiting up to %.0f s to see whether %s still lives", self.seconds, other.holder)
                seen, since = other.beat, time.monotonic()
            self._sleep(min(POLL_SECONDS, self.seconds / BEATS))

    def may_write(self) -> None:
        """Raise ``LeaseError`` if the lease is lost; reads the store only if the last renewal is long ago."""
        if not self._lost and time.monotonic() - self._renewed > self.seconds / 2:
            self.renew()
        if self._lost:
            raise LeaseError(self._lost)

    def renew(self) -> None:
        """Write a new beat; the lease is lost if another driver has taken over."""
        with self._lock:
            if self._version is not None and not self._put_again(self._version):
                self._version = None
                self._lost = (
                    "another driver has taken over this run, since this one gave no sign of life for "
                    f"{self.seconds:.0f} s; this one stops, and nothing is lost"
                )

    def release(self) -> None:
        """Release the lease, so that the next driver need not wait."""
        with self._lock:
            if self._version is not None:
                try:
                    self._put_again(self._version, released=True)
                except StorageError as error:
                    logger.warning("the lease was not released (%s); it expires in %.0f s", error, self.seconds)
                self._version = None

    def _keep(self) -> None:
        """Renew the lease until the end; if the store fails, try again."""
        while not self._ended.wait(self.seconds / BEATS) and not self._lost:
            try:
                self.renew()
            except StorageError as error:
                logger.warning("the lease could not be renewed: %s", error)

    def _put_again(self, version: str, *, released: bool = False) -> bool:
        """Write the record if the stored one is ours, also if its version is unknown since a reply was lost."""
        if self._put(version, released=released):
            return True
        found = self.store.get_versioned(KEY)
        return found is not None and self._is_ours(found[0]) and self._put(found[1], released=released)

    def _is_ours(self, data: bytes) -> bool:
        """True if a stored record is a beat of this process."""
        try:
            record = LeaseRecord.decode(data)
        except LeaseError:  # of a newer petaseg, so of another driver
            return False
        return record.holder == self.holder and not record.released

    def _put(self, version: str | None, *, released: bool = False) -> bool:
        """Write the record if the stored one has ``version``; False if another driver was faster."""
        began = time.monotonic()
        record = LeaseRecord(self.holder, uuid.uuid4().hex, time.time(), released, self.fence.term)
        written = self.store.put_if(KEY, record.encode(), version)
        if written is not None:
            self._version, self._renewed = written, began
        return written is not None

    def _refuse_neighbour(self, other: LeaseRecord) -> None:
        """Raise at once if the holder is a living process of this machine."""
        if other.holder.host == self.holder.host and psutil.pid_exists(other.holder.pid):
            raise LeaseError(self._refusal(other))

    def _refusal(self, other: LeaseRecord) -> str:
        return (
            f"{other.holder} works on {self.store.url} already; two drivers would do everything twice. Look at it with "
            f"`{command('status', self.store.url)}`, or end it first and give the same command again"
        )
