"""Where the seconds of a chunk go, and how long its stage stood still in this process before it. Never in a result."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Laps:
    """Seconds between one call and the next, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = self.began = time.perf_counter()

    def lap(self, name: str) -> None:
        """What was done since the last call was this."""
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.began


class BusyClock:
    """How long nobody was inside, between those who were; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._left: float | None = None

    @contextmanager
    def inside(self) -> Iterator[float]:
        """Be inside; gives the seconds since the last one left: 0 for the first, and while others are inside."""
        with self._lock:
            idle = 0.0 if self._inside or self._left is None else time.perf_counter() - self._left
            self._inside += 1
        try:
            yield idle
        finally:
            with self._lock:
                self._inside -= 1
                self._left = time.perf_counter()


_COMPUTING: dict[str, BusyClock] = {}


def computing(stage: str) -> BusyClock:
    """The clock of a stage in this process: for a stage that runs a network, when the network runs."""
    return _COMPUTING.get(stage) or _COMPUTING.setdefault(stage, BusyClock())
