"""SimulatedExecutor: workers on the simulated clock, which die, hang, get lost and come back late."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

from pipeline.execution.base import Outcome, Resources, attempt
from pipeline.grid import Chunk
from pipeline.stages.base import ChunkReport
from tests.simulation.world import Process, ProcessDied, World

Compute = Callable[[Chunk], ChunkReport]
FATES = ("dies", "is lost", "hangs", "comes back late")


@dataclass(frozen=True)
class Pool:
    """Workers and what becomes of them."""

    workers: int = 2
    seconds: float = 1.0
    """A chunk takes so long on average."""
    trouble: float = 0.0
    """Share of the chunks that meet one of ``FATES``."""
    unreliable: float = 0.0
    """Share of the workers' requests that fail."""
    bad_node: int | None = None
    """Index of a worker on which everything fails."""
    outlives: bool = False
    """True if workers go on with what they have in hand when nobody waits for it any more."""


@dataclass(frozen=True)
class Attempt:
    """A chunk on a worker."""

    chunk: Chunk
    worker: int
    ends: float
    fate: str
    alone: bool = False


class SimulatedExecutor:
    """A fake behind the ``Executor`` protocol: one outcome an item, but what is lost may still write."""

    def __init__(self, world: World, pool: Pool, on_start: Callable[[Chunk], None]) -> None:
        self.world, self.pool, self.on_start = world, pool, on_start

    def map_unordered(
        self,
        function: Compute,
        items: Iterable[Chunk],
        *,
        resources: Resources,
        max_in_flight: int | None = None,
    ) -> Generator[Outcome[Chunk, ChunkReport], None, None]:
        """See ``Executor``."""
        flow = _Flow(self, function, iter(items), resources, max_in_flight or 2 * self.pool.workers)
        try:
            while flow.fill():
                yield from flow.wait()
        finally:
            flow.abandon()

    def close(self) -> None:
        """Nothing to release."""


class _Flow:
    """What is in flight during one ``map_unordered``."""

    def __init__(
        self, executor: SimulatedExecutor, function: Compute, source: Iterator[Chunk], needs: Resources, window: int
    ) -> None:
        self.world, self.pool, self.on_start = executor.world, executor.pool, executor.on_start
        self.function, self.source, self.needs, self.window = function, source, needs, window
        self.free = [self.world.now] * self.pool.workers
        self.running: list[tuple[float, int, Attempt]] = []
        self.suspects: deque[Chunk] = deque()
        self.order = count()

    def fill(self) -> bool:
        """Hand out chunks; False if there are no more."""
        if self.suspects and not self.running:
            self._hand_out(self.suspects.popleft(), alone=True)
            return True
        for chunk in islice(self.source, max(0, self.window - len(self.running) - len(self.suspects))):
            self.on_start(chunk)
            self._hand_out(chunk)
        return bool(self.running)

    def wait(self) -> list[Outcome[Chunk, ChunkReport]]:
        """Let time pass until a chunk ends in one way or another."""
        _, _, tried = heapq.heappop(self.running)
        self.world.wait(max(0.0, tried.ends - self.world.now))
        if tried.fate == "hangs":
            self._once_more(tried)
            return [Outcome(tried.chunk, error="no result in time", worker=self._name(tried))]
        if tried.fate == "is lost":
            self._once_more(tried)
            return self._lost(tried)
        if tried.fate == "comes back late":
            self._once_more(tried)
        outcome = self._compute(tried, mortal=tried.fate == "dies")
        return self._lost(tried) if outcome is None else [outcome]

    def abandon(self) -> None:
        """Nobody waits any more: workers stop, or finish what they have in hand."""
        for _, _, tried in self.running:
            if self.pool.outlives:
                self._once_more(tried, max(0.0, tried.ends - self.world.now))

    def _hand_out(self, chunk: Chunk, *, alone: bool = False) -> None:
        dice = self.world.dice
        worker = min(range(self.pool.workers), key=lambda n: self.free[n])
        ends = max(self.world.now, self.free[worker]) + dice.expovariate(1 / self.pool.seconds)
        fate = dice.choice(FATES) if dice.random() < self.pool.trouble else "ends"
        self.free[worker] = ends
        heapq.heappush(self.running, (ends, next(self.order), Attempt(chunk, worker, ends, fate, alone)))

    def _compute(self, tried: Attempt, *, mortal: bool) -> Outcome[Chunk, ChunkReport] | None:
        """The outcome of a chunk, or None if its worker dies; what it has stored by then stays."""
        dice = self.world.dice
        dies_at, how = (dice.randint(1, 6), dice.choice(["before", "after"])) if mortal else (None, "before")
        worker = Process(self._name(tried), dies_at=dies_at, how=how, unreliable=self.pool.unreliable)
        if tried.worker == self.pool.bad_node:
            return Outcome(tried.chunk, error="OSError: this node is broken", worker=worker.name)
        self.world.granted_bytes = self.needs.memory_bytes
        with self.world.acting_as(worker):
            try:
                return replace(attempt(self.function, tried.chunk), worker=worker.name)
            except ProcessDied:
                return None

    def _lost(self, tried: Attempt) -> list[Outcome[Chunk, ChunkReport]]:
        """A chunk that lost its worker is tried again with nothing beside it; then it counts."""
        self.world.tell("worker is lost", f"{self._name(tried)} with {tried.chunk.name}")
        if not tried.alone:
            self.suspects.append(tried.chunk)
            return []
        return [Outcome(tried.chunk, error="its worker died on this chunk", worker=self._name(tried))]

    def _once_more(self, tried: Attempt, seconds: float | None = None) -> None:
        """Let a worker that nobody waits for finish the chunk at some later time."""

        def late() -> None:
            self.world.tell("late write", f"{self._name(tried)} finishes {tried.chunk.name}")
            self._compute(tried, mortal=self.world.dice.random() < 0.3)

        self.world.later(self.world.dice.expovariate(0.1) if seconds is None else seconds, late)

    def _name(self, tried: Attempt) -> str:
        return f"node-{tried.worker}:1"
