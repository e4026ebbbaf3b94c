"""Jobs that are wanted at the same time are submitted together, as an array, and cancelled together: a thousand workers
are one submission.

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
"""Tasks of the largest array, where SLURM does not say its own limit; jobs of one scancel."""


class Arrays:
    """Submits jobs by their numbers and cancels them; used in one event loop.

    script: the batch script of so many jobs, the first of which has this number.
    """

    def __init__(self, script: Callable[[int, int], str]) -> None:
        self._script = script
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._most = 0
        self._unwanted: list[str] = []
        self._cancelling: asyncio.Task[None] | None = None

    async def start(self, number: int) -> str:
        """Submit a job; returns its number in SLURM. ``ClusterError`` if SLURM refuses it."""
        self._waiting[number] = asyncio.get_running_loop().create_future()
        future = self._waiting[number]
        self._task = self._task or asyncio.create_task(self._submit_waiting())
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

    async def cancel(self, job: str) -> None:
        """Cancel a job by its number in SLURM, if it is still there."""
        self._unwanted.append(job)
        self._cancelling = self._cancelling or asyncio.create_task(self._cancel_unwanted())
        await self._cancelling

    async def _cancel_unwanted(self) -> None:
        await asyncio.sleep(0)
        unwanted, self._unwanted, self._cancelling = self._unwanted, [], None
        for begin in range(0, len(unwanted), DEFAULT_TASKS):
            await asyncio.to_thread(slurm, "scancel", *unwanted[begin : begin + DEFAULT_TASKS], refusal_is_fine=True)

    async def _submit(self, numbers: Sequence[int], waiting: dict[int, asyncio.Future[str]]) -> bool:
        """Submit these jobs; True if all are accepted. Where the first half is not, the second is not tried."""
        try:
            job = await asyncio.to_thread(submit_script, self._script(numbers[0], len(numbers)))
        except ClusterError as error:
            half = len(numbers) // 2
            if half and await self._submit(numbers[:half], waiting):
                return await self._submit(numbers[half:], waiting)
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
