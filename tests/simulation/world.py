"""The clock, the dice, and processes that can die: nothing here takes real time, and one seed decides everything."""

from __future__ import annotations

import heapq
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

CLOCKED = ("pipeline.ledger", "pipeline.stages.base")
"""Modules that ask for the time; those that start timers have ``threading`` too."""
LONGEST_REQUEST = 0.02


class ProcessDied(BaseException):
    """Raised in a process that is no more, whatever it tries; no ``Exception``, so that nothing catches it."""


@dataclass
class Process:
    """A driver, a worker, or somebody who only looks."""

    name: str
    dies_at: int | None = None
    """The storage operation, counted from 1, at which it dies ..."""
    how: str = "before"
    """... before it, after it, or in the middle of it."""
    dies_when: float = float("inf")
    """The moment at which it dies anyway."""
    unreliable: float = 0.0
    """Share of its requests to the store that fail; of half of those that do, only the reply is lost."""
    takes_time: bool = False
    alive: bool = True
    operations: int = 0

    def die(self) -> None:
        """Never comes back."""
        self.alive = False
        raise ProcessDied(self.name)


class World:
    """Simulated time, what is going to happen in it, and who acts at the moment."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.seed, self.verbose = seed, verbose
        self.dice = random.Random(seed)
        self.now = 0.0
        self.observer = Process("observer")
        self.acting = self.observer
        self.counts: Counter[str] = Counter()
        self.faults: dict[tuple[str, str], tuple[str, int]] = {}
        """(stage, chunk) -> what goes wrong when it is computed, and how many times still."""
        self.granted_bytes = 0
        """Memory that the chunk at hand may use."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def tell(self, kind: str, text: str = "") -> None:
        """Count an event, and print it if somebody wants to read the story."""
        self.counts[kind] += 1
        if self.verbose:
            print(f"{self.now:10.2f} s  {kind:24s} {text}")

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen after a while, whoever is alive then."""
        self._order += 1
        heapq.heappush(self._events, (self.now + seconds, self._order, action))

    def forget_events(self) -> int:
        """Let nothing more happen of what was to come; returns how much it was."""
        count, self._events = len(self._events), []
        return count

    def wait(self, seconds: float) -> None:
        """Let time pass for the one who acts; he may die while he waits."""
        waiting = self.acting
        end = self.now + seconds
        until = min(end, max(self.now, waiting.dies_when))
        while self._events and self._events[0][0] <= until:
            moment, _, action = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            action()
        self.now = max(self.now, until)
        if until < end and waiting.alive:
            self.tell("dies", f"{waiting.name}, while it waits")
            waiting.die()

    @contextmanager
    def acting_as(self, process: Process) -> Iterator[None]:
        """What happens within is done by a process."""
        before, self.acting = self.acting, process
        try:
            yield
        finally:
            self.acting = before

    def request(self, what: str, change: Callable[[], Any], tear: Callable[[], None] | None = None) -> Any:
        """One storage operation of the one who acts: it may take time, fail, lose its reply, or be his last."""
        process = self.acting
        if process.takes_time and process.alive:
            self.wait(self.dice.uniform(0, LONGEST_REQUEST))
        if not process.alive:
            raise ProcessDied(process.name)
        process.operations += 1
        last = process.operations == process.dies_at
        if last and process.how != "after":
            self._end(process, what, tear if process.how == "middle" else None)
        fails = process.unreliable > 0 and self.dice.random() < process.unreliable
        if fails and self.dice.random() < 0.5:
            self.tell("request fails", f"{what} of {process.name}")
            raise ConnectionError("connection reset by peer")
        result = change()
        if last:
            self._end(process, what, None)
        if fails:
            self.tell("reply is lost", f"{what} of {process.name}")
            raise ConnectionError("connection closed before the reply")
        return result

    def _end(self, process: Process, what: str, tear: Callable[[], None] | None) -> None:
        if tear is not None:
            tear()
        kind = "dies in the middle" if tear is not None else "dies"
        self.tell(kind, f"{process.name}, {process.how if tear is None else 'in the middle of'} {what}")
        process.die()


class Timer:
    """``threading.Timer`` on the simulated clock; it ends with the process that started it."""

    def __init__(self, world: World, seconds: float, action: Callable[[], None]) -> None:
        self.world, self.seconds, self.action = world, seconds, action
        self.owner, self.cancelled, self.daemon = world.acting, False, False

    def start(self) -> None:
        """Begin to wait."""
        self.world.later(self.seconds, self._ring)

    def cancel(self) -> None:
        """Never ring."""
        self.cancelled = True

    def _ring(self) -> None:
        if not self.cancelled and self.owner.alive:
            with self.world.acting_as(self.owner):
                self.action()


@contextmanager
def simulated_time(world: World) -> Iterator[None]:
    """Let every module of the pipeline that asks for the time ask this world."""
    clock = SimpleNamespace(
        time=lambda: 1.8e9 + world.now, monotonic=lambda: world.now, perf_counter=lambda: world.now, sleep=world.wait
    )
    threads = SimpleNamespace(
        RLock=threading.RLock, Lock=threading.Lock, Timer=lambda seconds, action: Timer(world, seconds, action)
    )
    with patch.multiple("pipeline.ledger", threading=threads):
        patches = [patch.object(import_module(name), "time", clock) for name in CLOCKED]
        for replaced in patches:
            replaced.start()
        try:
            yield
        finally:
            for replaced in patches:
                replaced.stop()
