"""Jobs that are wanted together are submitted together, and each is refused or accepted."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from pipeline.clusters.slurm import arrays as under_test
from pipeline.clusters.slurm.arrays import Arrays, runs
from pipeline.clusters.slurm.pool import free_port
from pipeline.errors import ClusterError, ConfigError


class Controller:
    """What SLURM would do: it numbers submissions from 100 on, and accepts so many tasks."""

    def __init__(self, room: int = 10**6) -> None:
        self.room = room
        self.submissions: list[tuple[int, int]] = []
        self.refused = 0

    def __call__(self, script: str) -> str:
        first, tasks = map(int, script.split())
        if tasks > self.room:
            self.refused += 1
            raise ClusterError("SLURM refused: limit")
        self.room -= tasks
        self.submissions.append((first, tasks))
        return str(99 + len(self.submissions))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Start jobs with these numbers; returns SLURM's numbers or messages."""

    def start(controller: Controller, *numbers: int, most: int = 1000) -> list[str]:
        monkeypatch.setattr(under_test, "submit_script", controller)
        monkeypatch.setattr(under_test, "largest_array", lambda: most)

        async def all_at_once() -> list[str]:
            arrays = Arrays(lambda first, tasks: f"{first} {tasks}")
            found = await asyncio.gather(*(arrays.start(number) for number in numbers), return_exceptions=True)
            return [str(each) for each in found]

        return asyncio.run(all_at_once())

    return start


def test_a_thousand_workers_are_one_submission(started: Callable[..., list[str]]) -> None:
    """All jobs of one moment are tasks of one array, in the order of their numbers."""
    controller = Controller()
    found = started(controller, *reversed(range(1000)))
    assert controller.submissions == [(0, 1000)]
    assert found == [f"100_{task}" for task in reversed(range(1000))]


def test_numbers_with_gaps_are_several_arrays_and_one_alone_is_a_plain_job(started: Callable[..., list[str]]) -> None:
    controller = Controller()
    assert started(controller, 4, 5, 6, 9) == ["100_0", "100_1", "100_2", "101"]
    assert controller.submissions == [(4, 3), (9, 1)]


def test_no_array_is_larger_than_slurm_accepts(started: Callable[..., list[str]]) -> None:
    controller = Controller()
    started(controller, *range(7), most=3)
    assert controller.submissions == [(0, 3), (3, 3), (6, 1)]


@pytest.mark.parametrize("room", [0, 1, 300, 999])
def test_of_an_array_that_is_too_large_as_many_jobs_start_as_there_is_room_for(
    started: Callable[..., list[str]], room: int
) -> None:
    """A limit on jobs costs a few refused tries, not one for each job, and no job that would fit."""
    controller = Controller(room)
    found = started(controller, *range(1000))
    accepted = [each for each in found if each != "SLURM refused: limit"]
    assert sum(tasks for _, tasks in controller.submissions) == len(accepted) == room
    assert len(set(accepted)) == room
    assert controller.refused <= 20


def test_jobs_that_end_together_are_cancelled_by_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(under_test, "slurm", lambda *words, refusal_is_fine: given.append(words))

    async def all_at_once() -> None:
        arrays = Arrays(lambda first, tasks: "")
        await asyncio.gather(*(arrays.cancel(f"7_{task}") for task in range(3)))
        await arrays.cancel("8")

    asyncio.run(all_at_once())
    assert given == [("scancel", "7_0", "7_1", "7_2"), ("scancel", "8")]


def test_an_error_on_the_way_is_that_of_each_job(
    started: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job waits for ever for a submission that broke off."""

    def broken(script: str) -> str:
        raise RuntimeError("out of threads")

    found = started(broken, 1, 2)  # type: ignore[arg-type]
    assert found == ["the submission was interrupted; it is tried again"] * 2


@pytest.mark.parametrize(
    ("numbers", "most", "cut"),
    [([], 3, []), ([5], 3, [[5]]), ([1, 2, 3, 4], 2, [[1, 2], [3, 4]]), ([1, 3, 4], 9, [[1], [3, 4]])],
)
def test_runs_have_no_gap_and_a_largest_length(numbers: list[int], most: int, cut: list[list[int]]) -> None:
    assert [list(run) for run in runs(numbers, most)] == cut


@pytest.mark.parametrize(("words", "most"), [("MaxArraySize            = 501\n", 500), ("", under_test.DEFAULT_TASKS)])
def test_the_largest_array_is_slurm_s_own_limit(words: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "slurm", lambda *_: words)
    assert under_test.largest_array() == most


def test_a_driver_takes_the_first_free_port_of_its_range() -> None:
    """A port on which somebody listens is passed over; without a free one the range and the remedy are named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(range(port, port + 50)) > port
        with pytest.raises(ConfigError, match=rf"cluster.ports is {port}-{port}, and all .* wider range"):
            free_port(range(port, port + 1))
