"""The simulated clock, the dice, and processes that die or are cut off. Nothing takes real time."""

from __future__ import annotations

import heapq
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import psutil

from pipeline.runs.lease import Holder

CLOCKED = ("pipeline.ledger.ledger", "pipeline.ledger.writer", "pipeline.runs.lease", "pipeline.stages.timing")
"""Modules that read the time, with ``threading`` where they start timers."""
LONGEST_REQUEST = 0.02
LATEST_REQUEST = 100.0
"""Seconds after which the last request of a dead driver has arrived."""


class ProcessDied(BaseException):
    """Raised in a dead process at whatever it does. It is no ``Exception``, so that nothing catches it."""


class WouldBlock(BaseException):
    """Raised where a thread would wait for a lock of its process; the action is tried again later."""


@dataclass(eq=False)
class Process:
    """A driver, a worker, or an observer."""

    name: str
    host: str = "somewhere"
    pid: int = 0
    dies_at: int | None = None
    """The storage operation, counted from 1, at which the process dies."""
    how: str = "before"
    """When it dies: before the operation, after it, in its middle, or before it arrives ("late")."""
    dies_when: float = float("inf")
    """The simulated time at which it dies in any case."""
    interrupts: dict[int, Callable[[], None]] | None = None
    """Number of an operation -> what happens before it, while this process waits."""
    unreliable: float = 0.0
    """Share of its requests to the store that fail; half of these are carried out, and only the reply is lost."""
    driver: bool = False
    alive: bool = True
    cut_off: bool = False
    """True while the process stands still, which no other process can see."""
    has_lease: bool = False
    """True if the process has ever held the lease."""
    operations: int = 0

    def die(self) -> None:
        """End the acting process; does not return."""
        self.alive = False
        raise ProcessDied(self.name)


class World:
    """Simulated time, its coming events, and the process that acts at the moment."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.seed, self.verbose = seed, verbose
        self.dice = random.Random(seed)
        self.now = 0.0
        self.observer = Process("observer")
        self.acting = self.observer
        self.thread = object()
        """The acting thread: each event has its own, since it may happen while its process waits."""
        self.drivers: dict[int, Process] = {}
        self.counts: Counter[str] = Counter()
        self.faults: dict[tuple[str, str], tuple[str, int]] = {}
        """(stage, chunk) -> the fault when it is computed, and how many more times."""
        self.generous = False
        """True if the chunk at hand may use more memory than usual."""
        self.late_requests = 0
        """Requests of dead drivers that have arrived."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def tell(self, kind: str, text: str = "") -> None:
        """Count an event, and print it when verbose."""
        self.counts[kind] += 1
        if self.verbose:
            print(f"{self.now:10.2f} s  {kind:24s} {text}")

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Let an action happen after some seconds, whichever process is alive then."""
        self._order += 1
        heapq.heappush(self._events, (self.now + seconds, self._order, action))

    def later_by(self, process: Process, seconds: float, action: Callable[[], None]) -> None:
        """Let a process act after some seconds, if it is alive then; a process that is cut off acts when it is back."""

        def act() -> None:
            if process.cut_off:
                self.later_by(process, 1.0, action)
            elif process.alive:
                try:
                    with self.acting_as(process):
                        action()
                except WouldBlock:
                    self.later_by(process, LONGEST_REQUEST, action)

        self.later(seconds, act)

    def wait(self, seconds: float) -> None:
        """Let time pass for the acting process, which may die meanwhile."""
        waiting, end = self.acting, self.now + seconds
        until = min(end, max(self.now, waiting.dies_when))
        while self._events and self._events[0][0] <= until:
            self._next_event()
        self.now = max(self.now, until)
        if until < end and waiting.alive:
            self.tell("dies", f"{waiting.name}, while it waits")
            waiting.alive = False
        if not waiting.alive:
            raise ProcessDied(waiting.name)

    def wait_for_event(self) -> None:
        """Let time pass until the next event."""
        self.wait(max(0.0, self._events[0][0] - self.now))

    def _next_event(self) -> None:
        moment, _, action = heapq.heappop(self._events)
        self.now = max(self.now, moment)
        with suppress(ProcessDied):  # a waiting process notices by itself
            action()

    @contextmanager
    def acting_as(self, process: Process) -> Iterator[None]:
        """Let a process act within the context."""
        before = self.acting, self.thread
        self.acting, self.thread = process, object()
        try:
            yield
        finally:
            self.acting, self.thread = before

    def request(self, what: str, change: Callable[[], Any], tear: Callable[[], None] | None = None) -> Any:
        """Make one storage operation of the acting process; it may take time, fail, lose its reply, or be its last."""
        process = self.acting
        if process.driver and process.alive:
            self.wait(self.dice.uniform(0, LONGEST_REQUEST))
        if not process.alive:
            raise ProcessDied(process.name)
        process.operations += 1
        number = process.operations
        if process.interrupts and number in process.interrupts:
            process.interrupts[number]()
        if number == process.dies_at and process.how != "after":
            self._die(process, what, change, tear)
        result = self._try(process, what, change)
        if number == process.dies_at:
            self.tell("dies", f"{process.name}, after {what}")
            process.die()
        return result

    def _try(self, process: Process, what: str, change: Callable[[], Any]) -> Any:
        """Lose a request, or its reply, at random."""
        fails = process.unreliable > 0 and self.dice.random() < process.unreliable
        if fails and self.dice.random() < 0.5:
            self.tell("request fails", f"{what} of {process.name}")
            raise ConnectionError("connection reset by peer")
        result = change()
        if fails:
            self.tell("reply is lost", f"{what} of {process.name}")
            raise ConnectionError("connection closed before the reply")
        return result

    def _die(self, process: Process, what: str, change: Callable[[], Any], tear: Callable[[], None] | None) -> None:
        how = "before" if process.how == "middle" and tear is None else process.how
        if how == "middle" and tear is not None:
            tear()
        if how == "late":
            self.later(self.dice.uniform(0, LATEST_REQUEST), lambda: self._arrive(what, change))
        self.tell({"middle": "dies in the middle", "late": "dies before it arrives"}.get(how, "dies"), what)
        process.die()

    def _arrive(self, what: str, change: Callable[[], Any]) -> None:
        self.late_requests += 1
        self.tell("late request", what)
        try:
            change()
        except OSError as error:
            self.tell("late request fails", str(error))


class Timer:
    """``threading.Timer`` on the simulated clock; it ends with the process that started it."""

    def __init__(self, world: World, seconds: float, action: Callable[[], None]) -> None:
        self.world, self.seconds, self.action = world, seconds, action
        self.cancelled, self.daemon = False, False

    def start(self) -> None:
        """Start the timer."""
        self.world.later_by(self.world.acting, self.seconds, self._ring)

    def cancel(self) -> None:
        """Stop the timer."""
        self.cancelled = True

    def _ring(self) -> None:
        if not self.cancelled:
            self.action()


class Lock:
    """``threading.RLock`` between the threads of a simulated process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.owner: object = None
        self.depth = 0

    def __enter__(self) -> None:
        if self.depth and self.owner is not self.world.thread:
            raise WouldBlock
        self.owner, self.depth = self.world.thread, self.depth + 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


class FakeProcesses:
    """A fake of ``psutil`` that knows the drivers of a world."""

    NoSuchProcess = psutil.NoSuchProcess
    STATUS_ZOMBIE = psutil.STATUS_ZOMBIE

    def __init__(self, world: World) -> None:
        self.world = world

    def pid_exists(self, pid: int) -> bool:
        """True while a driver lives."""
        return self.world.drivers[pid].alive

    def Process(self, pid: int) -> SimpleNamespace:  # noqa: N802  (as in psutil)
        """A driver that lives."""
        if not self.pid_exists(pid):
            raise psutil.NoSuchProcess(pid)
        return SimpleNamespace(create_time=lambda: float(pid), status=lambda: psutil.STATUS_RUNNING)


@contextmanager
def simulated_time(world: World) -> Iterator[None]:
    """Let every module of the pipeline that reads the time, or looks at processes, use this world."""
    clock = SimpleNamespace(
        time=lambda: 1.8e9 + world.now, monotonic=lambda: world.now, perf_counter=lambda: world.now, sleep=world.wait
    )
    threads = SimpleNamespace(
        Lock=lambda: Lock(world),
        RLock=lambda: Lock(world),
        Timer=lambda seconds, action: Timer(world, seconds, action),
        Event=threading.Event,
    )
    with ExitStack() as patches:
        for name in CLOCKED:
            patches.enter_context(patch.object(import_module(name), "time", clock))
        for name in ("pipeline.ledger.writer", "pipeline.runs.lease"):
            patches.enter_context(patch(f"{name}.threading", threads))
        patches.enter_context(patch("pipeline.runs.lease.psutil", FakeProcesses(world)))
        patches.enter_context(patch.object(Holder, "here", lambda: holder(world.acting)))
        yield


def holder(process: Process) -> Holder:
    """A driver as a lease names it."""
    return Holder(process.host, process.pid, float(process.pid))
