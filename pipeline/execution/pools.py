"""The worker pools of a cluster: for the network, for other stages, and with more memory. A pool has workers only while
it has items to run.

    general      every stage; also the network, if there is no inference pool
    inference    the network; on clusters with GPUs, one process for each GPU
    *-large      twice the memory, for a chunk that ran out of it

A stage needs one pool, so a stage that needs another pool ends the workers of the one before: no GPU is idle while
supervoxels are merged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass

from pipeline.clusters.base import GENERAL, INFERENCE, LARGE, WorkerPool, large
from pipeline.config.cluster import WorkerShape
from pipeline.errors import ClusterError, StageFailed, counted
from pipeline.execution.base import Item, Outcome, Result
from pipeline.execution.dask import DaskExecutor
from pipeline.execution.stopping import Gate
from pipeline.needs import Needs

logger = logging.getLogger("petaseg.execution")

START_POOL = Callable[[str, WorkerShape], WorkerPool]


@dataclass
class _Pool:
    """A pool that has been started, with the executor that uses it."""

    workers: WorkerPool
    executor: DaskExecutor
    wanted: int = 0

    def scale(self, workers: int) -> None:
        if workers != self.wanted:
            logger.info("%s wanted at %s", counted(workers, "worker"), self.workers.address)
            self.workers.scale(workers)
            self.wanted = workers


class ClusterExecutor:
    """Runs each stage on the pool that it needs, and starts and ends workers accordingly.

    start: function that makes a pool, without workers, from a name and a shape.
    shapes: the shape of each pool's workers; "general" is required.
    """

    def __init__(self, start: START_POOL, shapes: Mapping[str, WorkerShape]) -> None:
        self._start = start
        self._shapes = dict(shapes)
        self._pools: dict[str, _Pool] = {}

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
        gate: Gate | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``Executor``; ``ClusterError`` if the cluster gives no worker."""
        name = self._name(needs)
        for other, pool in self._pools.items():
            if other != name:
                pool.scale(0)
        pool = self._pool(name)
        pool.scale(max(pool.wanted, workers_for(self._shape(name), needs.items)))
        try:
            yield from pool.executor.map_unordered(function, items, needs=needs, max_in_flight=max_in_flight, gate=gate)
        except StageFailed as error:
            if pool.workers.problem:
                raise ClusterError(f"no {name} worker comes: {pool.workers.problem}") from error
            raise

    def avoid(self, node: str) -> bool:
        """Give no more items to a node; False if no other node has workers."""
        pools = [pool for pool in self._pools.values() if pool.wanted and pool.executor.avoid(node)]
        for pool in pools:
            pool.workers.avoid(node)
        return bool(pools)

    def close(self) -> None:
        """End all workers."""
        while self._pools:
            _, pool = self._pools.popitem()
            pool.executor.close()
            pool.workers.close()

    def _name(self, needs: Needs) -> str:
        kind = INFERENCE if needs.network and INFERENCE in self._shapes else GENERAL
        return kind + (LARGE if needs.generous else "")

    def _shape(self, name: str) -> WorkerShape:
        shape = self._shapes[name.removesuffix(LARGE)]
        return large(shape) if name.endswith(LARGE) else shape

    def _pool(self, name: str) -> _Pool:
        if name not in self._pools:
            workers = self._start(name, self._shape(name))
            self._pools[name] = _Pool(workers, DaskExecutor(scheduler=workers.address))
        return self._pools[name]


def workers_for(shape: WorkerShape, items: int | None) -> int:
    """The number of workers that ``items`` can keep busy, at least one."""
    return shape.count if items is None else max(1, min(shape.count, math.ceil(items / shape.threads)))
