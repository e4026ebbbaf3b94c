"""Threads in this process: while one chunk computes, others read and write.

The kernels release Python's lock, so chunks also compute in parallel where a stage allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from pipeline.config.run_file import Execution
from pipeline.errors import ConfigError
from pipeline.execution.base import Item, Outcome, Result, attempt
from pipeline.execution.stopping import Gate
from pipeline.needs import Needs


class ThreadExecutor:
    """A pool of threads. A time limit cannot be enforced here and is ignored."""

    def __init__(self, workers: int = Execution().workers) -> None:
        if workers < 1:
            raise ConfigError(f"workers is {workers}; at least 1 thread is needed")
        self.workers = workers

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
        gate: Gate | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``Executor``; by default one item more than threads is drawn, so that none of them waits."""
        gate = gate or Gate()
        window = 1 if needs.generous else max_in_flight or self.workers + 1
        source = iter(items)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="petaseg")
        running: set[Future[Outcome[Item, Result] | None]] = set()
        try:
            while True:
                for item in islice(source, 0 if gate.closed else window - len(running)):
                    running.add(pool.submit(_attempt_inside, gate, function, item))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from filter(None, (future.result() for future in finished))
        finally:
            pool.shutdown(wait=not gate.abandoned, cancel_futures=True)

    def avoid(self, node: str) -> bool:
        """False, since there is no other node."""
        return False

    def close(self) -> None:
        """Do nothing: threads exist only during a call."""


def _attempt_inside(gate: Gate, function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result] | None:
    """The outcome of an item; ``None`` if the gate was closed before it began."""
    with gate.passing() as may_begin:
        return attempt(function, item) if may_begin else None
