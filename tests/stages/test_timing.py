"""Reports say where the seconds of a chunk go, and the clock counts when a network waits for its input."""

import threading
from pathlib import Path

from pipeline.execution.threads import ThreadExecutor
from pipeline.stages.timing import BusyClock, Laps
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage


def test_the_first_one_has_waited_for_nothing() -> None:
    """The first computation has an idle time of 0, so the start of a worker does not count as waiting."""
    clock = BusyClock()
    with clock.inside() as idle:
        assert idle == 0


def test_time_between_two_is_counted_once() -> None:
    clock = BusyClock()
    with clock.inside():
        pass
    with clock.inside() as idle:
        assert idle > 0
        with clock.inside() as beside:
            assert beside == 0


def test_nobody_waits_while_another_is_inside() -> None:
    """No idle time is counted while any other thread is computing."""
    clock, entered, leave = BusyClock(), threading.Event(), threading.Event()

    def stay() -> None:
        with clock.inside():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert entered.wait(10)
    with clock.inside() as idle:
        assert idle == 0
    with clock.inside() as idle:
        assert idle == 0
    leave.set()
    thread.join()


def test_one_that_fails_leaves_too() -> None:
    """A computation that raises counts as ended, so the waiting after it is counted."""
    clock = BusyClock()
    try:
        with clock.inside():
            raise ValueError
    except ValueError:
        pass
    with clock.inside() as idle:
        assert idle > 0


def test_laps_add_up() -> None:
    laps = Laps()
    for name in ("read", "compute"):
        laps.lap(name)
    assert list(laps.seconds) == ["read", "compute"]
    assert 0 <= sum(laps.seconds.values()) <= laps.total


def test_every_report_says_where_its_seconds_went(tmp_path: Path) -> None:
    stage = ToyStage(ObjectStore(tmp_path))
    found = ThreadExecutor(3).map_unordered(stage.run_chunk, stage.chunks(), needs=stage.needs())
    reports = [outcome.result for outcome in found if outcome.result]
    assert len(reports) == 48
    for report in reports:
        assert list(report.timings) == ["read", "wait", "compute", "write", "idle"]
        assert sum(report.timings[name] for name in ("read", "wait", "compute", "write")) <= report.seconds
