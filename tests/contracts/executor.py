"""The promises of every executor. Subclass ``ExecutorContract`` and say how to make one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator

import psutil
import pytest

from pipeline.errors import ConfigError, ModelError, StorageError
from pipeline.execution.base import Executor, Outcome
from pipeline.execution.serial import SerialExecutor
from pipeline.execution.stopping import Gate
from pipeline.needs import Needs

NEEDS = Needs()


def square(item: int) -> int:
    return item * item


def square_of_even(item: int) -> int:
    """Square an even item; raise on an odd one."""
    if item % 2:
        raise ValueError(f"item {item} is odd;\n  even ones are squared")
    return item * item


def refuse(item: str) -> None:
    """Raise the error that a name stands for."""
    if item == "configuration":
        raise ConfigError("wrong option")
    if item == "weights":
        raise ModelError("wrong weights")
    if item == "lost network":
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    cause = OSError(errno.EROFS if item == "read-only" else errno.ENOSPC, "refused")
    raise StorageError("cannot write a chunk") from cause


class Counted:
    """Items 0 .. count - 1, and how many of them were drawn so far."""

    def __init__(self, count: int) -> None:
        self.count, self.drawn = count, 0

    def __iter__(self) -> Iterator[int]:
        for item in range(self.count):
            self.drawn += 1
            yield item


def by_item(outcomes: Iterable[Outcome[int, int]]) -> list[tuple[int, int | None, str | None, bool, bool]]:
    """Outcomes without place and time, in the order of their items."""
    return sorted((o.item, o.result, o.error, o.retriable, o.stops_all) for o in outcomes)


def worker_processes() -> set[psutil.Process]:
    """The child processes that multiprocessing has started, without its resource tracker."""
    children = psutil.Process().children(recursive=True)
    return {child for child in children if "spawn_main" in " ".join(child.cmdline())}


class ExecutorContract:
    """Promises of ``Executor.map_unordered``; one executor serves all tests of a class, as it serves all stages."""

    @classmethod
    def make(cls) -> Executor:
        """The executor under test."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[Executor]:
        executor = cls.make()
        yield executor
        executor.close()

    def test_every_item_has_exactly_one_outcome(self, executor: Executor) -> None:
        """Every item has exactly one outcome, which holds its result."""
        outcomes = list(executor.map_unordered(square, range(200), needs=NEEDS))
        assert sorted(o.item for o in outcomes) == list(range(200))
        assert all(o.ok and o.result == o.item**2 for o in outcomes)

    def test_outcomes_equal_those_of_the_plain_loop(self, executor: Executor) -> None:
        """Outcomes equal those of the serial executor, errors included, also with few items in flight."""
        expected = by_item(SerialExecutor().map_unordered(square_of_even, range(60), needs=NEEDS))
        assert by_item(executor.map_unordered(square_of_even, range(60), needs=NEEDS)) == expected
        limited = executor.map_unordered(square_of_even, range(60), needs=NEEDS, max_in_flight=3)
        assert by_item(limited) == expected

    def test_an_exception_becomes_an_outcome_with_its_story(self, executor: Executor) -> None:
        """The outcome of an item that raised holds the exception's type, message and traceback."""
        (outcome,) = executor.map_unordered(square_of_even, [7], needs=NEEDS)
        assert not outcome.ok
        assert outcome.result is None
        assert outcome.error == "ValueError: item 7 is odd; even ones are squared"
        assert "in square_of_even" in outcome.traceback
        assert outcome.retriable
        assert not outcome.stops_all

    def test_the_worker_is_named(self, executor: Executor) -> None:
        """Each outcome names the host and the process that computed it."""
        for outcome in executor.map_unordered(square_of_even, range(4), needs=NEEDS):
            host, _, process = outcome.worker.rpartition(":")
            assert host == socket.gethostname()
            assert int(process) > 0

    def test_errors_that_come_again_are_told_from_those_that_may_not(self, executor: Executor) -> None:
        """Wrong configuration and weights are not retried; a full or read-only disk stops all chunks."""
        names = ["configuration", "weights", "lost network", "full disk", "read-only"]
        found = {o.item: (o.retriable, o.stops_all) for o in executor.map_unordered(refuse, names, needs=NEEDS)}
        assert found == {
            "configuration": (False, False),
            "weights": (False, False),
            "lost network": (True, False),
            "full disk": (True, True),
            "read-only": (True, True),
        }

    @pytest.mark.parametrize("window", [1, 2, 5])
    def test_items_are_drawn_lazily(self, executor: Executor, window: int) -> None:
        """Items are drawn lazily: at most ``max_in_flight`` are ahead of the outcomes."""
        items, seen = Counted(40), 0
        for _ in executor.map_unordered(square, items, needs=NEEDS, max_in_flight=window):
            assert items.drawn - seen <= window
            seen += 1
        assert seen == 40

    def test_the_default_window_is_bounded_too(self, executor: Executor) -> None:
        """Without ``max_in_flight`` an executor still draws a bounded number of items ahead."""
        items = Counted(100_000)
        outcomes = executor.map_unordered(square, items, needs=NEEDS)
        next(outcomes)
        outcomes.close()
        assert items.drawn < 1000

    def test_no_items_give_no_outcomes(self, executor: Executor) -> None:
        """Without items, as in a finished stage, there are no outcomes and no waiting."""
        assert list(executor.map_unordered(square, [], needs=NEEDS)) == []

    def test_closing_the_iterator_stops(self, executor: Executor) -> None:
        """After the iterator is closed no item is drawn, and the executor takes further items."""
        items = Counted(1000)
        outcomes = executor.map_unordered(square, items, needs=NEEDS, max_in_flight=4)
        next(outcomes)
        outcomes.close()
        drawn = items.drawn
        assert drawn <= 5
        (after,) = executor.map_unordered(square, [3], needs=NEEDS)
        assert after.result == 9
        assert items.drawn == drawn

    def test_after_its_gate_is_closed_only_items_that_run_have_outcomes(self, executor: Executor) -> None:
        """Once the gate is closed no item begins, the iterator ends, and the executor takes further items."""
        gate, items = Gate(), Counted(1000)
        outcomes = executor.map_unordered(square, items, needs=NEEDS, max_in_flight=4, gate=gate)
        assert next(outcomes).ok
        gate.close()
        assert all(outcome.ok for outcome in outcomes)
        assert items.drawn <= 6
        (after,) = executor.map_unordered(square, [3], needs=NEEDS, gate=Gate())
        assert after.result == 9

    def test_a_gate_that_was_closed_before_lets_nothing_begin(self, executor: Executor) -> None:
        """With a gate that is closed from the beginning there are no outcomes."""
        gate = Gate()
        gate.close()
        assert list(executor.map_unordered(square, range(20), needs=NEEDS, gate=gate)) == []

    def test_an_error_of_the_items_reaches_the_caller(self, executor: Executor) -> None:
        """An error raised by the iterator of items reaches the caller."""

        def broken() -> Iterator[int]:
            yield 1
            raise ConfigError("no such chunk")

        with pytest.raises(ConfigError, match="no such chunk"):
            list(executor.map_unordered(square, broken(), needs=NEEDS))

    def test_closing_twice_is_harmless_and_leaves_no_worker(self) -> None:
        """An executor can be closed unused and closed twice, and leaves no worker process."""
        before = worker_processes()
        unused, used = self.make(), self.make()
        assert by_item(used.map_unordered(square, [2], needs=NEEDS)) == [(2, 4, None, True, False)]
        for executor in (unused, used, used, unused):
            executor.close()
        assert worker_processes() <= before
