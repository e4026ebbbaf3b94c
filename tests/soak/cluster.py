"""A Dask cluster of forked processes: workers die and come back as on a real one, but are there at once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import dask
from distributed import Scheduler, Worker

from pipeline.execution.local_cluster import SETTINGS
from tests.soak.plan import Death
from tests.soak.processes import Transcript, die_at, fork, kill, status_of


class Cluster:
    """A scheduler and its workers on the loopback interface.

    folder: where workers keep their files.
    """

    def __init__(self, workers: int, folder: Path, log: Transcript) -> None:
        self.folder, self.log = folder, log
        self.deaths: list[Death] = []
        """The deaths of the workers that are started next."""
        reader, writer = os.pipe()
        self.scheduler = fork(lambda: asyncio.run(schedule(writer)), log)
        os.close(writer)
        with os.fdopen(reader) as answer:
            self.address = answer.readline().strip()
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> int:
        death = self.deaths.pop() if self.deaths else None
        return fork(lambda: asyncio.run(work(self.address, self.folder, death)), self.log)

    def plan_deaths(self, deaths: tuple[Death, ...]) -> None:
        """Replace some workers by others that will kill themselves."""
        self.deaths = list(deaths)
        for number in range(min(len(deaths), len(self.workers))):
            self.kill_worker(number)

    def kill_worker(self, number: int) -> None:
        """Kill one worker; another takes its place."""
        number %= len(self.workers)
        kill(self.workers[number])
        self.workers[number] = self._start()

    def tend(self) -> None:
        """Replace workers that are gone."""
        for number, pid in enumerate(self.workers):
            if status_of(pid) is not None:
                self.workers[number] = self._start()

    def close(self) -> None:
        """Kill everything."""
        for pid in (*self.workers, self.scheduler):
            kill(pid)


async def schedule(writer: int) -> None:
    """Be the scheduler, and tell its address."""
    with dask.config.set(SETTINGS):
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            with os.fdopen(writer, "w") as answer:
                answer.write(f"{scheduler.address}\n")
            await scheduler.finished()


async def work(address: str, folder: Path, death: Death | None) -> None:
    """Be a worker with one thread."""
    if death is not None:
        die_at(death)
    async with Worker(address, nthreads=1, local_directory=str(folder), memory_limit=0, dashboard=False) as worker:
        await worker.finished()
