"""The two protocols of execution: an executor that maps a function over items, and what comes back.

An executor knows nothing of stages, chunks or ledgers. The plain ``for`` loop of ``serial.py`` is the reference;
every other engine must give the same outcomes in some order (``tests/contracts/executor.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or the error with its traceback as text."""

    item: Item
    result: Result | None = None
    error: str | None = None
    """One line: type and message of the exception, or what happened to the worker."""
    traceback: str = ""
    seconds: float = 0.0
    worker: str = ""
    """Where it ran: host and process."""

    @property
    def ok(self) -> bool:
        """True if the item has a result."""
        return self.error is None


@dataclass(frozen=True)
class Resources:
    """What one item needs while it runs."""

    gpus: int = 0
    memory_bytes: int = 0
    timeout_seconds: float | None = None
    """After this time the item counts as failed and its worker is restarted; ``None`` waits for ever."""


class Executor(Protocol):
    """Runs a function over many items, at most ``max_in_flight`` of them submitted at a time."""

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        resources: Resources,
        max_in_flight: int | None = None,
    ) -> Iterator[Outcome[Item, Result]]:
        """Yield one outcome an item, in the order of completion; items are drawn lazily, so memory stays flat.

        Closing the iterator cancels what is in flight. An item whose worker dies is an outcome with an error; it
        is never lost and never raises here.
        """
        ...

    def close(self) -> None:
        """Release the workers."""
        ...
