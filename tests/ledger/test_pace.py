"""The speed of a stage, from the times at which its chunks were finished."""

import pytest

from pipeline.ledger.pace import FEW, SECONDS_KEPT, Pace


def pace(*seconds: float, voxels: int = 60) -> Pace:
    """The pace of chunks finished at these times."""
    made = Pace()
    for second in seconds:
        made.add(second, voxels)
    return made


def test_the_speed_is_that_of_the_last_minute() -> None:
    """The speed counts only chunks of the last minute."""
    busy = pace(*range(1000, 1100))
    assert busy.voxels_per_second(1099) == 60
    assert busy.voxels_per_second(1129) == 30
    assert busy.voxels_per_second(1200) == 0


def test_a_stage_younger_than_a_minute_is_judged_by_its_age() -> None:
    """The speed of a stage younger than a minute is taken over its age."""
    assert pace(*range(100, 110)).voxels_per_second(110) == 60


def test_nothing_is_said_of_a_stage_without_chunks() -> None:
    assert pace().voxels_per_second(5) == 0
    assert pace().seconds_left(10, 5) is None
    assert pace(3).seconds_left(10, 5) is None


def test_the_time_left_follows_the_last_minute() -> None:
    """The time left follows the speed of the last minute, not that of a slow beginning."""
    slow_then_fast = pace(*range(0, 1000, 10), *(1000 + n / 10 for n in range(1000)))
    assert slow_then_fast.seconds_left(1000, 1100) == pytest.approx(100, rel=0.1)


def test_slow_chunks_are_judged_by_the_last_few() -> None:
    """For chunks that take minutes each, the time left follows the last few chunks."""
    slow = pace(*range(0, 600 * 50, 600))
    assert slow.seconds_left(10, 600 * 49 + 30) == pytest.approx(6000, rel=0.1)


def test_a_dead_run_has_no_time_left() -> None:
    """Once no chunk has ended for much longer than chunks take, no time left is given."""
    busy = pace(*range(1000, 1100))
    assert busy.seconds_left(50, 1099 + 59) is not None
    assert busy.seconds_left(50, 1099 + 61) is None
    assert pace(*range(0, 6000, 60)).seconds_left(50, 5940 + 500) is not None


def test_a_clock_that_is_ahead_of_ours_is_believed() -> None:
    """When the driver's clock is ahead of ours, the speed is taken at the time of its last chunk."""
    assert pace(*range(1000, 1100)).voxels_per_second(900) == 60


def test_the_past_is_taken_over_and_not_counted_twice() -> None:
    """A pace goes on from an earlier one, and chunks that both hold count once."""
    earlier, later = pace(*range(1000, 1080)), pace(*range(1070, 1100))
    later.go_on_from(earlier)
    assert later.voxels_per_second(1099) == 60
    fresh = pace()
    fresh.go_on_from(earlier)
    assert fresh.voxels_per_second(1079) == 60
    assert fresh.last == 1079


def test_memory_is_flat() -> None:
    assert len(pace(*range(10 * SECONDS_KEPT))._seconds) == SECONDS_KEPT > FEW
