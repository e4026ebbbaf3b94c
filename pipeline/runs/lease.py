"""One driver a run: a lease in the run directory, renewed while its holder lives.

A driver writes ``lease.json`` before it changes anything, and a new beat into it every few seconds. Another driver
that finds it

    released                                   takes it at once
    of a process of this machine that is gone  takes it at once
    of an earlier start of the same job        takes it at once: a cluster starts a job once at a time
    with a beat that changes                   is refused
    with one beat for the whole lease time     takes it: the holder is dead, or cut off

Only the watcher's own clock counts, so machines whose clocks differ agree. Every write is conditional on what was read
(``ObjectStore.put_if``), so of two that are fast only one gets it. A holder that was cut off and comes back asks
before it writes the next record, and stops; so do its workers before they write (``Fence``).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass

import psutil

from pipeline.errors import LeaseError, StorageError
from pipeline.storage import ObjectStore

logger = logging.getLogger("petaseg.lease")

KEY = "lease.json"
BEATS = 4
"""Renewals in one lease time."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """A driver process, so that another can tell whether it still lives."""

    host: str
    pid: int
    started: float
    """When the process began, seconds since 1970: another process may get the same number later."""
    job: str = ""
    """SLURM job or Kubernetes pod, if it is one."""
    start: int = 0
    """How often a cluster has started this job before."""

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        environment = os.environ
        job = environment.get("SLURM_JOB_ID")
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            job=f"slurm {job}" if job else environment.get("PETASEG_POD", ""),
            start=int(environment.get("SLURM_RESTART_COUNT", 0)),
        )

    def is_surely_dead(self) -> bool:
        """True if this process can know that the holder is gone; False if it lives or nobody can tell from here."""
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

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" ({self.job})" if self.job else "")


@dataclass(frozen=True)
class LeaseRecord:
    """What ``lease.json`` says."""

    holder: Holder
    beat: str
    """Changes with every renewal."""
    renewed: float
    """By the holder's clock, seconds since 1970; for display."""
    released: bool = False
    term: str = ""
    """Names this lease from ``acquire`` to ``release``; no other has the same."""

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> LeaseRecord | None:
        """``None`` if the object is damaged."""
        try:
            plain = json.loads(data)
            return cls(Holder(**plain.pop("holder")), **plain)
        except (ValueError, TypeError, KeyError):
            return None


def read_lease(store: ObjectStore) -> LeaseRecord | None:
    """The lease of a run, for display; ``None`` if there never was one."""
    data = store.get_or_none(KEY)
    return None if data is None else LeaseRecord.decode(data)


@dataclass(frozen=True)
class Fence:
    """What a worker asks before it writes: whether the driver that gave it its chunk was followed by another one.

    The next driver may work under another configuration, and the chunk may be done and recorded under it by then: what
    comes late must not be written over it. While nobody has followed, what a worker writes late is wanted.

    What is left is a worker that stands still between the question and the write, and goes on when its chunk was done
    anew: no store can refuse that. Drivers end the workers that they have started, which leaves seconds for it.
    """

    store: ObjectStore
    term: str

    def may_write(self) -> None:
        """Raise ``LeaseError`` if another driver has taken the lease since."""
        record = read_lease(self.store)
        if record is not None and record.term not in ("", self.term):  # one that is damaged says nothing
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
        """For workers."""
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
        """Take the lease; waits at most the lease time for a silent holder. ``LeaseError`` if another driver lives."""
        seen, since = "", time.monotonic()
        while True:
            found = self.store.get_versioned(KEY)
            other = None if found is None else LeaseRecord.decode(found[0])
            if other is not None and seen and other.beat != seen and not other.released:
                raise LeaseError(self._refusal(other))
            silent = bool(seen) and time.monotonic() - since >= self.seconds
            if other is None or other.released or silent or other.holder.is_surely_dead():
                if self._put(None if found is None else found[1]):
                    return
                seen, since = "", time.monotonic()  # somebody was faster: look at them anew
                continue
            self._refuse_neighbour(other)
            if not seen:
                logger.info("waiting up to %.0f s to see whether %s still lives", self.seconds, other.holder)
                seen, since = other.beat, time.monotonic()
            self._sleep(min(POLL_SECONDS, self.seconds / BEATS))

    def may_write(self) -> None:
        """Raise ``LeaseError`` if the lease is lost; asks the store only if the last renewal is long ago."""
        if not self._lost and time.monotonic() - self._renewed > self.seconds / 2:
            self.renew()
        if self._lost:
            raise LeaseError(self._lost)

    def renew(self) -> None:
        """Write a new beat; notices if another driver has taken over."""
        with self._lock:
            if self._version is not None and not self._put_again(self._version):
                self._version = None
                self._lost = (
                    "another driver has taken over this run, since this one gave no sign of life for "
                    f"{self.seconds:.0f} s; this one stops, and nothing is lost"
                )

    def release(self) -> None:
        """Give the lease back, so that the next driver need not wait."""
        with self._lock:
            if self._version is not None:
                try:
                    self._put_again(self._version, released=True)
                except StorageError as error:
                    logger.warning("the lease was not released (%s); it expires in %.0f s", error, self.seconds)
                self._version = None

    def _keep(self) -> None:
        """Renew until the end; a store that fails for a while is tried again."""
        while not self._ended.wait(self.seconds / BEATS) and not self._lost:
            try:
                self.renew()
            except StorageError as error:
                logger.warning("the lease could not be renewed: %s", error)

    def _put_again(self, version: str, *, released: bool = False) -> bool:
        """Write the record if the stored one is ours, also if only the reply to our last beat was lost."""
        if self._put(version, released=released):
            return True
        found = self.store.get_versioned(KEY)
        record = None if found is None else LeaseRecord.decode(found[0])
        if found is None or record is None or record.holder != self.holder or record.released:
            return False
        return self._put(found[1], released=released)

    def _put(self, version: str | None, *, released: bool = False) -> bool:
        """Write the record if the stored one is ``version``; False if somebody was faster."""
        began = time.monotonic()
        record = LeaseRecord(self.holder, uuid.uuid4().hex, time.time(), released, self.fence.term)
        written = self.store.put_if(KEY, record.encode(), version)
        if written is not None:
            self._version, self._renewed = written, began
        return written is not None

    def _refuse_neighbour(self, other: LeaseRecord) -> None:
        """A holder on this machine that lives needs no waiting for a beat."""
        if other.holder.host == self.holder.host and psutil.pid_exists(other.holder.pid):
            raise LeaseError(self._refusal(other))

    def _refusal(self, other: LeaseRecord) -> str:
        return (
            f"{other.holder} works on {self.store.url} already; two drivers would do everything twice. Look at it with "
            f"`petaseg status {self.store.url}`, or end it first and give the same command again"
        )
