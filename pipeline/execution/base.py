"""The protocol of execution: an executor maps a function over items and yields their outcomes.

An executor knows nothing of stages, chunks or ledgers. The plain ``for`` loop of ``serial.py`` is the reference;
every other engine must give the same outcomes in some order (``tests/contracts/executor.py``).
"""

from __future__ import annotations

import errno
import os
import socket
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.errors import BoundsError, ConfigError, LeaseError, ModelError, WorkerEnvironmentError
from pipeline.execution.stopping import Gate
from pipeline.needs import Needs

Item = TypeVar("Item")
Result = TypeVar("Result")

HOPELESS_FOR_ITEM = (ConfigError, ModelError, BoundsError)
"""Errors that occur again however often the item is tried."""
HOPELESS_FOR_ALL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""System errors that every other item meets too: a full or read-only disk."""


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """The outcome of one item: a result, or the error with its traceback as text."""

    item: Item
    result: Result | None = None
    error: str | None = None
    """One line: type and message of the exception, or what happened to the worker."""
    traceback: str = ""
    worker: str = ""
    """The worker that ran it, as node:process; empty if unknown."""
    retriable: bool = True
    """False if another attempt would fail in the same way."""
    stops_all: bool = False
    """True if every other item would fail in the same way: a full disk, a driver that must end."""
    out_of_memory: bool = False
    """True if the item may succeed with more memory."""

    @property
    def ok(self) -> bool:
        """True if the item has a result."""
        return self.error is None

    @property
    def node(self) -> str:
        """The node where it ran; empty if unknown."""
        return self.worker.rpartition(":")[0]


class Executor(Protocol):
    """Runs a function over many items, at most ``max_in_flight`` of them submitted at a time."""

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
        gate: Gate | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        """Yield one outcome for each item, in the order of completion; items are drawn lazily, so memory is bounded.

        After ``gate`` is closed no item begins, and the iterator ends with those that run; if it is abandoned, nothing
        is waited for. Closing the iterator cancels what is in flight. An item whose worker dies is an outcome with an
        error; it is never lost and never raises here.
        """
        ...

    def avoid(self, node: str) -> bool:
        """Give no more items to the workers of a node; False, without any effect, if there are no other workers."""
        ...

    def close(self) -> None:
        """Release the workers."""
        ...


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    """Call a function on an item; an exception becomes an outcome."""
    worker = worker_name()
    try:
        return Outcome(item, function(item), worker=worker)
    except Exception as error:
        return Outcome(
            item,
            error=one_line(error),
            traceback=traceback.format_exc(),
            worker=worker,
            retriable=not isinstance(error, HOPELESS_FOR_ITEM) or isinstance(error, WorkerEnvironmentError),
            stops_all=isinstance(error, LeaseError) or system_error(error) in HOPELESS_FOR_ALL,
            out_of_memory=is_out_of_memory(error),
        )


def worker_name() -> str:
    """The name of this worker: node and process."""
    return f"{node_name()}:{os.getpid()}"


def node_name() -> str:
    """The name of this machine in the cluster, as a job says it in ``PETASEG_NODE``; else its own."""
    return os.environ.get("PETASEG_NODE") or socket.gethostname()


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors by which Python and torch report a lack of memory."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def one_line(error: BaseException) -> str:
    """Type and message of an exception, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def system_error(error: BaseException | None) -> int | None:
    """The errno of an exception or of its cause."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
