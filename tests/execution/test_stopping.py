"""A request to stop closes the gate of what runs; nothing begins behind it, and what is inside is counted."""

import signal
import threading

import pytest

from pipeline.execution.batch import close_gate, run_batch
from pipeline.execution.local_cluster import deaf_to_the_terminal
from pipeline.execution.stopping import Gate, Interrupted, Stop
from pipeline.execution.threads import ThreadExecutor
from tests.contracts.executor import NEEDS, square


def test_nothing_passes_a_closed_gate() -> None:
    """An item that comes after the gate was closed may not begin and is not counted."""
    gate = Gate()
    with gate.passing() as first:
        assert first
        assert gate.close() == 1
        with gate.passing() as second:
            assert not second
            assert gate.close() == 1
    assert gate.close() == 0


def test_items_elsewhere_are_counted_too() -> None:
    gate = Gate()
    gate.close_elsewhere = lambda: 5
    with gate.passing():
        assert gate.close() == 6


def test_a_request_without_a_gate_says_so_and_lets_no_gate_open() -> None:
    """Where nothing runs there is nothing to wait for, and after the request nothing is begun."""
    stop = Stop()
    assert stop.request() is None
    with pytest.raises(Interrupted), stop.gate():
        pytest.fail("a gate was opened after the request")


def test_an_item_that_waits_for_a_thread_does_not_begin_after_a_request() -> None:
    """Two threads run two items and a third waits: after the request it is dropped, and the two have outcomes."""
    stop, release, begun = Stop(), threading.Event(), []
    inside = threading.Barrier(3)

    def wait(item: int) -> int:
        begun.append(item)
        inside.wait(60)
        release.wait(60)
        return item

    def ask() -> None:
        inside.wait(60)
        counted.append(stop.request())
        release.set()

    counted: list[int | None] = []
    asking = threading.Thread(target=ask)
    asking.start()
    with stop.gate() as gate:
        outcomes = list(ThreadExecutor(2).map_unordered(wait, range(9), needs=NEEDS, gate=gate))
    asking.join()
    assert counted == [2]
    assert sorted(outcome.item for outcome in outcomes) == sorted(begun) == [0, 1]


def test_abandoned_threads_are_not_waited_for() -> None:
    """After the running items are abandoned, closing the iterator returns although one of them still runs."""
    stop, release, begun = Stop(), threading.Event(), threading.Event()

    def wait(item: int) -> int:
        if item:
            begun.set()
            release.wait(60)
        return item

    with stop.gate() as gate:
        outcomes = ThreadExecutor(2).map_unordered(wait, [0, 1], needs=NEEDS, gate=gate)
        assert next(outcomes).item == 0
        assert begun.wait(60)
        stop.abandon()
        outcomes.close()
        assert not release.is_set()
    release.set()


def test_a_worker_begins_no_item_of_a_flow_whose_gate_is_closed() -> None:
    """A batch that comes after its flow was stopped gives no outcome; other flows go on."""
    assert close_gate("stopped") == 0
    assert run_batch(square, [1, 2], None, "stopped")[0] == []
    assert [outcome.result for outcome in run_batch(square, [1, 2], None, "other")[0]] == [1, 4]


def test_processes_of_workers_do_not_hear_the_terminal() -> None:
    """A thread that begins where the terminal is not heard blocks SIGINT, and so do the processes that it starts."""
    heard: list[set[int]] = []
    with deaf_to_the_terminal():
        thread = threading.Thread(target=lambda: heard.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        thread.start()
        thread.join()
    assert signal.SIGINT in heard[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
