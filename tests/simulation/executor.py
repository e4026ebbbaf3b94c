"""SimulatedExecutor, whose workers live on the simulated clock, die, hang, get lost and come back late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, takewhile

from pipeline.execution.base import Outcome, attempt
from pipeline.execution.stopping import Gate
from pipeline.grid import Chunk
from pipeline.needs import Needs
from pipeline.stages.base import ChunkReport
from tests.simulation.world import Process, ProcessDied, World

Compute = Callable[[Chunk], ChunkReport]
Told = Outcome[Chunk, ChunkReport]
FATES = ("dies", "is lost", "hangs", "comes back late")
LOST = "its worker died on this chunk"


@dataclass(frozen=True)
class Pool:
    """The workers and their faults."""

    workers: int = 2
    seconds: float = 1.0
    """Mean duration of a chunk."""
    trouble: float = 0.0
    """Share of the chunks that meet one of ``FATES``."""
    unreliable: float = 0.0
    """Share of the workers' requests that fail."""
    bad_node: int | None = None
    """Index of a worker on which everything fails."""
    outlives: bool = False
    """True if workers finish their chunk when nobody waits for it any more."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to compute a chunk on a worker."""

    chunk: Chunk
    worker: int
    fate: str
    alone: bool

    @property
    def node(self) -> str:
        """The node of the worker."""
        return f"node-{self.worker}"


class SimulatedExecutor:
    """A fake behind the ``Executor`` protocol: each item has one outcome, but a lost attempt may still write.

    on_start: told of every chunk that is drawn.
    """

    def __init__(self, world: World, pool: Pool, on_start: Callable[[Chunk], None]) -> None:
        self.world, self.pool, self.on_start = world, pool, on_start
        self.workers = list(range(pool.workers))
        """The workers that are not avoided."""

    def map_unordered(
        self,
        function: Compute,
        items: Iterable[Chunk],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
        gate: Gate | None = None,
    ) -> Generator[Told, None, None]:
        """See ``Executor``."""
        window = 1 if needs.generous else max_in_flight or 2 * self.pool.workers
        drawn = takewhile(lambda _: gate is None or not gate.closed, items)
        flow = _Flow(self, function, drawn, needs, window)
        try:
            while flow.fill():
                yield from flow.wait()
        finally:
            flow.closed = True

    def avoid(self, node: str) -> bool:
        """See ``Executor``."""
        others = [worker for worker in self.workers if f"node-{worker}" != node]
        if not others:
            return False
        self.world.tell("node is avoided", node)
        self.workers = others
        return True

    def close(self) -> None:
        """Nothing to release."""


class _Flow:
    """The chunks in flight during one ``map_unordered``; each ends at its time, whether or not anybody waits."""

    def __init__(
        self, executor: SimulatedExecutor, function: Compute, source: Iterator[Chunk], needs: Needs, window: int
    ) -> None:
        self.executor, self.world, self.pool = executor, executor.world, executor.pool
        self.function, self.source, self.needs, self.window = function, source, needs, window
        self.free = [self.world.now] * self.pool.workers
        self.running = 0
        self.suspects: deque[Chunk] = deque()
        self.told: list[Told] = []
        self.changed = False
        """True if a chunk has ended since the last look."""
        self.closed = False
        """True if nobody waits for outcomes any more."""

    def fill(self) -> bool:
        """Hand out chunks; False if there are no more."""
        if self.suspects and not self.running:
            self._hand_out(self.suspects.popleft(), alone=True)
            return True
        for chunk in islice(self.source, max(0, self.window - self.running - len(self.suspects))):
            self.executor.on_start(chunk)
            self._hand_out(chunk)
        return bool(self.running or self.told)

    def wait(self) -> list[Told]:
        """Let time pass until a chunk ends in some way; a suspect chunk has no outcome yet."""
        while not self.changed:
            self.world.wait_for_event()
        self.changed = False
        told, self.told = self.told, []
        return told

    def _hand_out(self, chunk: Chunk, *, alone: bool = False) -> None:
        dice, now = self.world.dice, self.world.now
        worker = min(self.executor.workers, key=lambda n: self.free[n])
        self.free[worker] = max(now, self.free[worker]) + dice.expovariate(1 / self.pool.seconds)
        fate = dice.choice(FATES) if dice.random() < self.pool.trouble else "ends"
        tried = Attempt(chunk, worker, fate, alone)
        self.running += 1
        self.world.later(self.free[worker] - now, lambda: self._end(tried))

    def _end(self, tried: Attempt) -> None:
        """End an attempt, in whatever way, at its time."""
        self.running -= 1
        self.changed = True
        outcome = self._compute(tried, mortal=not self.pool.outlives) if self.closed else self._meet(tried)
        if outcome is None and not tried.alone:
            self.suspects.append(tried.chunk)
        elif not self.closed:
            self.told.append(outcome or Outcome(tried.chunk, error=LOST, out_of_memory=True))

    def _meet(self, tried: Attempt) -> Told | None:
        """Apply the fate of an attempt; None if the worker is lost."""
        if tried.fate not in ("ends", "dies"):
            self.world.later(self.world.dice.expovariate(0.1), lambda: self._come_back(tried))
        if tried.fate == "hangs":
            return Outcome(tried.chunk, error="no result in time", worker=f"{tried.node}:1")
        if tried.fate == "is lost":
            self.world.tell("worker is lost", f"{tried.node} with {tried.chunk.name}")
            return None
        return self._compute(tried, mortal=tried.fate == "dies")

    def _come_back(self, tried: Attempt) -> None:
        """Let a worker for which nobody waits any more finish its chunk."""
        self.world.tell("late write", f"{tried.node} finishes {tried.chunk.name}")
        self._compute(tried, mortal=self.world.dice.random() < 0.3)

    def _compute(self, tried: Attempt, *, mortal: bool) -> Told | None:
        """The outcome of a chunk, or None if its worker dies; what the chunk has stored by then stays."""
        dice = self.world.dice
        dies_at, how = (dice.randint(1, 6), dice.choice(["before", "after"])) if mortal else (None, "before")
        worker = Process(f"{tried.node}:1", dies_at=dies_at, how=how, unreliable=self.pool.unreliable)
        if tried.worker == self.pool.bad_node:
            return Outcome(tried.chunk, error="OSError: this node is broken", worker=worker.name)
        self.world.generous = self.needs.generous
        with self.world.acting_as(worker):
            try:
                return replace(attempt(self.function, tried.chunk), worker=worker.name)
            except ProcessDied:
                return None
