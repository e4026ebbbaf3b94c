"""Dask: worker processes on this machine, or the cluster behind a scheduler's address.

The scheduler never holds more than a bounded window of tasks. Items that take milliseconds are sent in small batches,
so that the scheduler's millisecond for each task does not dominate; a worker returns a batch after ``BATCH_SECONDS``,
with the items that it has not begun. When a worker dies, Dask blames every item that it held, so these items are only
suspects: each is tried again with nothing else in flight, and an item that then loses its worker again is an outcome
with an error.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from typing import Generic, NamedTuple

import dask
from distributed import Client, Future, as_completed
from distributed.comm import CommClosedError, get_address_host_port
from distributed.scheduler import KilledWorker

from pipeline.config.run_file import Execution
from pipeline.errors import ConfigError, StageFailed, counted
from pipeline.execution.base import Item, Outcome, Result, node_name, one_line
from pipeline.execution.batch import BATCH_SECONDS, close_gate, run_batch
from pipeline.execution.local_cluster import SETTINGS, LocalWorkers
from pipeline.execution.stopping import Gate
from pipeline.execution.within_workers import hear_of_chunks
from pipeline.needs import Needs

logger = logging.getLogger("petaseg.execution")

DEFAULTS = Execution()
BATCH_ITEMS = 32
CONNECT_SECONDS = 30
ANSWER_SECONDS = 2
"""The longest time in which workers say how many items they run."""


def configure_dask(settings: dict[str, object]) -> None:
    """Configure Dask for the rest of this process, with the scheduler's settings that this executor needs."""
    dask.config.set({**SETTINGS, **settings})


class DaskExecutor:
    """Worker processes, each with a nanny that replaces it when it dies.

    All but ``memory_limit``, which is Dask's, are keys of the table ``execution``.
    workers, threads_per_worker: of a cluster on this machine; unused with ``scheduler``, an existing one's address.
    """

    def __init__(
        self,
        workers: int = DEFAULTS.workers,
        threads_per_worker: int = DEFAULTS.threads_per_worker,
        scheduler: str | None = None,
        memory_limit: str | None = None,
        dashboard: str | None = None,
    ) -> None:
        if workers < 1 or threads_per_worker < 1:
            raise ConfigError(
                f"workers is {workers} and threads_per_worker {threads_per_worker}; both must be at least 1"
            )
        self.workers, self.threads_per_worker = workers, threads_per_worker
        self.scheduler, self.memory_limit, self.dashboard = scheduler, memory_limit, dashboard
        self._nodes: dict[str, str] = {}
        """The nodes of known workers, by address; filled once a node is avoided."""
        self._avoided: set[str] = set()

    @cached_property
    def client(self) -> Client:
        """The connection, which is made when it is first needed; ``ConfigError`` if no scheduler answers."""
        client = self._connected()
        hear_of_chunks(client)
        return client

    def _connected(self) -> Client:
        if self.scheduler is None:
            return Client(self._workers.cluster, set_as_default=False)
        try:
            get_address_host_port(self.scheduler, strict=True)  # else its client is never closed
            return Client(self.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {self.scheduler} ({error}); start one (`dask scheduler`), correct "
                "execution.scheduler, or leave it out for workers on this machine"
            ) from error

    @cached_property
    def _workers(self) -> LocalWorkers:
        return LocalWorkers(self.workers, self.threads_per_worker, self.memory_limit, self.dashboard)

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
        gate: Gate | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``Executor``; by default two items for every worker thread are in flight, and one item in all if
        ``needs.generous``.

        Raises ``StageFailed`` if the connection to the scheduler is lost.
        """
        gate = gate or Gate()
        flow = _Flow(self.client, function, iter(items), needs.timeout_seconds, gate)
        most = 1 if needs.generous else max_in_flight
        try:
            while flow.fill(most or 2 * self._slots(), 1 if most else BATCH_ITEMS):
                yield from flow.wait()
                self._retire_avoided()
        except CommClosedError as error:
            raise StageFailed(
                f"the connection to the Dask scheduler {self.scheduler or 'on this machine'} is lost ({error}); "
                "nothing that was finished is lost: see that the scheduler runs, then give the same command again"
            ) from error
        finally:
            self._end(flow)

    def _end(self, flow: _Flow[Item, Result]) -> None:
        """Cancel what is in flight; the processes that run abandoned items end, if they are ours."""
        if flow.gate.abandoned and self.scheduler is None:
            self._workers.kill()
        else:
            flow.cancel()

    @property
    def dashboard_link(self) -> str:
        """The dashboard's URL; without bokeh, which its graphs need, the URL of a plain page of the workers."""
        link: str = self.client.dashboard_link
        return link if find_spec("bokeh") else link.replace("/status", "/info/main/workers.html")

    def _slots(self) -> int:
        """Worker threads that are connected now, at least one: workers may come and go."""
        return (
            max(1, sum(self.client.nthreads().values())) if self.scheduler else self.workers * self.threads_per_worker
        )

    def avoid(self, node: str) -> bool:
        """See ``Executor``: workers on the node are retired, now and whenever they connect again."""
        if self.scheduler is None or set(self._worker_nodes().values()) <= {node, *self._avoided}:
            return False
        self._avoided.add(node)
        self._retire_avoided()
        return True

    def _retire_avoided(self) -> None:
        """Retire the workers on avoided nodes; the scheduler gives their items to others."""
        if not self._avoided:
            return
        unwanted = [address for address, node in self._worker_nodes().items() if node in self._avoided]
        if unwanted:
            logger.warning("retiring %s on %s", counted(len(unwanted), "worker"), ", ".join(sorted(self._avoided)))
            self.client.retire_workers(unwanted)

    def _worker_nodes(self) -> dict[str, str]:
        """The node of every worker that is connected now."""
        present = self.client.scheduler_info(n_workers=-1)["workers"]
        unknown = [address for address in present if address not in self._nodes]
        if unknown:
            self._nodes |= self.client.run(node_name, workers=unknown, on_error="ignore")
        return {address: self._nodes[address] for address in present if address in self._nodes}

    def close(self) -> None:
        """Disconnect, and stop the workers if they are ours."""
        client, workers = self.__dict__.pop("client", None), self.__dict__.pop("_workers", None)
        if client is not None:
            client.close()
        if workers is not None:
            workers.close()


class _Batch(NamedTuple, Generic[Item]):
    """Items that are sent together; ``alone`` if nothing else was in flight."""

    items: Sequence[Item]
    alone: bool = False


class _Flow(Generic[Item, Result]):
    """The batches in flight during one ``map_unordered``."""

    def __init__(
        self,
        client: Client,
        function: Callable[[Item], Result],
        source: Iterator[Item],
        limit: float | None,
        gate: Gate,
    ) -> None:
        self.client, self.function, self.source, self.limit = client, function, source, limit
        self.gate, self.name = gate, uuid.uuid4().hex
        gate.close_elsewhere = self._close_gates
        self.completed = as_completed(loop=client.loop)
        self.running: dict[Future, _Batch[Item]] = {}
        self.returned: deque[Item] = deque()
        """Items not begun in batches that took too long; they are sent first."""
        self.suspects: deque[Item] = deque()
        """Items whose worker died."""
        self.seconds = BATCH_SECONDS
        """Estimated seconds for one item; it begins so high that the first items are sent one by one."""

    def fill(self, window: int, most: int) -> bool:
        """Submit batches of at most ``most`` items until ``window`` are in flight; False if nothing is left."""
        if self.gate.closed:
            return bool(self.running)
        if self.suspects and not self.running:
            self._submit(_Batch([self.suspects.popleft()], alone=True))
            return True
        size = max(1, min(most, int(BATCH_SECONDS / max(self.seconds, 1e-6))))
        while len(self.running) + len(self.suspects) < window and (items := self._draw(size)):
            self._submit(_Batch(items))
        return bool(self.running)

    def wait(self) -> list[Outcome[Item, Result]]:
        """Wait for a batch; returns its outcomes, or none if its items are to be tried again."""
        future = next(self.completed)
        batch = self.running.pop(future)
        outcomes: list[Outcome[Item, Result]]
        try:
            outcomes, took, stuck = future.result()
        except Exception as error:  # of the cluster, or a result that cannot be pickled
            if self.gate.closed and future.cancelled():
                return []
            if future.cancelled() or self._scheduler_is_gone(error):  # not cancelled by us
                raise CommClosedError(one_line(error)) from error
            return self._lost(batch, error)
        self.seconds = took / max(1, len(outcomes))
        self.returned.extend(batch.items[len(outcomes) :])
        if stuck:
            logger.warning("worker %s is stuck; restarting it", stuck)
            self.client.restart_workers([stuck], timeout=CONNECT_SECONDS, raise_for_error=False)
        return outcomes

    def _scheduler_is_gone(self, error: Exception) -> bool:
        """True if the connection to the scheduler is lost, and not one to a worker."""
        if not isinstance(error, OSError | TimeoutError):
            return False
        try:
            self.client.nthreads()
        except (OSError, TimeoutError):
            return True
        return self.client.status != "running"

    def cancel(self) -> None:
        """Cancel the batches in flight."""
        if self.client.status == "running":
            self.client.cancel(list(self.running))

    def _close_gates(self) -> int:
        """Let workers begin no more items; returns the number of those that run. Called from another thread."""
        options = {"on_error": "ignore", "callback_timeout": ANSWER_SECONDS}
        try:
            inside = self.client.sync(self.client._run, close_gate, self.name, **options)
        except (OSError, TimeoutError):  # a worker that does not answer; the others have closed theirs
            return len(self.running)
        if not inside:  # batches that wait for a worker would wait on
            self.client.cancel(list(self.running))
        return sum(inside.values())

    def _draw(self, size: int) -> list[Item]:
        again = [self.returned.popleft() for _ in range(min(size, len(self.returned)))]
        return again or list(islice(self.source, size))

    def _submit(self, batch: _Batch[Item]) -> None:
        future = self.client.submit(run_batch, self.function, batch.items, self.limit, self.name, pure=False, retries=0)
        self.running[future] = batch
        self.completed.add(future)

    def _lost(self, batch: _Batch[Item], error: BaseException) -> list[Outcome[Item, Result]]:
        """The outcomes of a batch without a result; none if another item may have caused the loss."""
        killed = isinstance(error, KilledWorker)
        if len(batch.items) > 1 or (killed and not batch.alone):
            self.suspects.extend(batch.items)
            return []
        text = "its worker died on this chunk, also with nothing else in flight; it may need more memory"
        error_text = text if killed else one_line(error)
        return [Outcome(item, error=error_text, out_of_memory=killed) for item in batch.items]
