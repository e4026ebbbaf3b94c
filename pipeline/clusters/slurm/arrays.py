"""Jobs that are wanted at the same time are submitted together, as an array: a thousand workers are one submission.

    start(4) start(5) start(6) start(9)    in one turn of the event loop
      4 to 6   an array of three tasks     numbers 17_0, 17_1, 17_2
      9        a plain job                 number 18

An array is accepted or refused as a whole, so one that is refused (at a limit on jobs) is tried again as two halves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.clusters.slurm.commands import slurm, submit_script
from pipeline.errors import ClusterError

DEFAULT_TASKS = 1000
"""Tasks of the largest array, where SLURM does not say its own limit."""


class Arrays:
    """Submits jobs by their numbers; used in one event loop.

    script: the batch script of so many jobs, the first of which has this number.
    """

    def __init__(self, script: Callable[[int, int], str]) -> None:
        self._script = script
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._most = 0

    async def start(self, number: int) -> str:
        """Submit a job; returns its number in SLURM. ``ClusterError`` if SLURM refuses it."""
        self._waiting[number] = asyncio.get_running_loop().create_future()
        future = self._waiting[number]
        if self._task is None:
            self._task = asyncio.create_task(self._submit_waiting())
        return await future

    async def _submit_waiting(self) -> None:
        """Submit what waits; the others of this turn of the loop have been added meanwhile."""
        await asyncio.sleep(0)
        waiting, self._waiting, self._task = self._waiting, {}, None
        try:
            self._most = self._most or await asyncio.to_thread(largest_array)
            for numbers in runs(sorted(waiting), self._most):
                await self._submit(numbers, waiting)
        finally:
            for future in waiting.values():
                if not future.done():
                    future.set_exception(ClusterError("the submission was interrupted; it is tried again"))

    async def _submit(self, numbers: Sequence[int], waiting: dict[int, asyncio.Future[str]]) -> bool:
        """Submit these jobs; False if all are refused. If the first half is, so is the second, without another try."""
        try:
            job = await asyncio.to_thread(submit_script, self._script(numbers[0], len(numbers)))
        except ClusterError as error:
            half = len(numbers) // 2
            if half and await self._submit(numbers[:half], waiting):
                await self._submit(numbers[half:], waiting)
                return True
            for number in numbers[half:]:
                waiting[number].set_exception(error)
            return False
        for task, number in enumerate(numbers):
            waiting[number].set_result(job if len(numbers) == 1 else f"{job}_{task}")
        return True


def runs(numbers: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Sorted numbers, cut into runs without a gap of at most ``most``."""
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1 or end - begin == most:
            yield numbers[begin:end]
            begin = end


def largest_array() -> int:
    """The tasks of the largest array that SLURM accepts (``MaxArraySize``); at least 1."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", slurm("scontrol", "show", "config"), re.MULTILINE)
    except ClusterError:
        found = None
    return DEFAULT_TASKS if found is None else max(1, int(found[1]) - 1)
