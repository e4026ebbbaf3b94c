"""The speed of a stage, from the times at which its chunks were finished."""

import pytest

from pipeline.ledger.pace import FEW, SECONDS_KEPT, Level, Pace, in_waves


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
    assert pace().seconds_left([Level(0, 10, None)], 2, 5) is None
    assert pace(3).seconds_left([Level(1, 10, 1.0)], None, 5) is None


def test_chunks_that_ended_together_say_how_long_a_chunk_takes() -> None:
    """After 2 of 8 chunks that two workers ended together, three waves are left, and less as they go on."""
    two = pace(1100, 1100)
    assert two.seconds_left([Level(2, 6, 100.0)], 2, 1100) == 300
    assert two.seconds_left([Level(2, 6, 100.0)], 2, 1150) == 250
    assert two.seconds_left([Level(2, 6, 100.0)], 2, 1290) == 200


def test_a_worker_that_has_ended_no_chunk_is_in_the_middle_of_one() -> None:
    """After the first chunk of four workers, the three others end theirs soon."""
    assert pace(1100).seconds_left([Level(1, 3, 100.0)], 4, 1100) == pytest.approx(0)
    assert pace(1100).seconds_left([Level(1, 4, 100.0)], 4, 1100) == 100


def test_a_stage_of_which_no_chunk_is_done_is_estimated_from_its_sample() -> None:
    """Before a chunk is done the estimate counts whole waves, and less as the first ones go on."""
    levels = [Level(0, 5, 10.0)]
    assert pace().seconds_left(levels, 2, 1000, since=1000) == 30
    assert pace().seconds_left(levels, 2, 1004, since=1000) == 26
    assert pace().seconds_left(levels, 2, 1050, since=1000) == 100, "chunks take 50 s at least"


def test_levels_that_have_fewer_chunks_than_workers_take_a_wave_each() -> None:
    """Work is not divided by workers that a level cannot use."""
    tree = [Level(0, 64, 2.0), Level(0, 8, 3.0), Level(0, 1, 5.0)]
    assert in_waves(tree, 16) == 4 * 2 + 3 + 5
    assert in_waves([*tree, Level(0, 1, None)], 16) is None
    assert in_waves([Level(7, 0, None)], 16) == 0
    assert pace().seconds_left(tree, 16, 1000, since=1000) == 4 * 2 + 3 + 5


def test_what_an_earlier_driver_ended_tells_nothing_about_the_workers_of_this_one() -> None:
    """A driver that has begun a minute ago has chunks in work since then, not since the last one ended."""
    before = pace(*range(0, 1000, 10))
    assert before.seconds_left([Level(100, 4, 10.0)], 1, 5000, since=5000) == 40


def test_the_time_left_follows_the_last_minute() -> None:
    """The time left of many chunks follows the speed of the last minute, not that of a slow beginning."""
    slow_then_fast = pace(*range(0, 1000, 10), *(1000 + n / 10 for n in range(1000)))
    assert slow_then_fast.seconds_left([Level(1100, 1000, 1.0)], 10, 1100) == pytest.approx(100, rel=0.1)


def test_workers_that_are_not_there_are_not_counted() -> None:
    """If 100 workers were wanted and 2 came, the time left follows what the two do."""
    ordered = pace(*sorted([*(100 * n for n in range(1, 11)), *(100 * n + 50 for n in range(1, 11))]))
    assert ordered.seconds_left([Level(20, 10, 100.0)], 100, 1050) == pytest.approx(500, rel=0.1)
    assert ordered.seconds_left([Level(20, 10, 100.0)], None, 1050) == pytest.approx(500, rel=0.1)


def test_slow_chunks_are_judged_by_the_last_few() -> None:
    """For chunks that take minutes each, the time left follows the last few chunks."""
    slow = pace(*range(0, 600 * 50, 600))
    assert slow.seconds_left([Level(50, 10, 500.0)], 1, 600 * 49 + 30) == pytest.approx(6000, rel=0.1)


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
