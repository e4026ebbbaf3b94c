"""The runner computes what is pending, retries or sets aside what fails, and loses nothing that is done."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import LeaseError, StageFailed
from pipeline.execution.base import Executor
from pipeline.execution.runner import ChunkDone, ChunkFailed, Event, RunOptions, StageFinished, StageStarted, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.execution.stopping import Interrupted, Stop
from pipeline.execution.threads import ThreadExecutor
from pipeline.grid import Chunk
from pipeline.ledger.ledger import Ledger, Summary
from pipeline.stages.base import Products, checksum_of
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage

COMMAND = "petaseg run tissue.yaml"


class Bench:
    """A store, an executor, and what the runner told and waited for."""

    def __init__(self, folder: Path, executor: Executor) -> None:
        self.store, self.executor = ObjectStore(folder), executor
        self.events: list[Event] = []
        self.pauses: list[float] = []

    def stage(self, **options) -> ToyStage:
        return ToyStage(self.store, **options)

    def ledger(self, stage: ToyStage) -> Ledger:
        return Ledger(self.store, stage.name, stage.fingerprint, stage.grids())

    def run(self, stage: ToyStage, **options) -> Summary:
        """As ``petaseg run`` does; events and counted tries are those of this run."""
        self.events.clear()
        self.pauses.clear()
        stage.forget_tries()
        settings = RunOptions.of(Execution(**options), COMMAND, sleep=self.pauses.append)
        ledger = self.ledger(stage)
        try:
            return run_stage(stage, ledger, self.executor, settings, on_event=self.events.append)
        finally:
            ledger.close()

    def failing(self, stage: ToyStage, **options) -> str:
        """The message of a run that must fail."""
        with pytest.raises(StageFailed) as caught:
            self.run(stage, **options)
        return str(caught.value)

    def done(self, stage: ToyStage) -> set[str]:
        ledger = self.ledger(stage)
        return {chunk.name for grid in stage.grids() for chunk in grid if ledger.is_done(chunk)}

    def tried(self, stage: ToyStage) -> set[str]:
        return set(stage.tried())


@pytest.fixture(params=["serial", "threads"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    executor = SerialExecutor() if request.param == "serial" else ThreadExecutor(3)
    yield Bench(tmp_path, executor)
    executor.close()


def names(stage: ToyStage, level: int = 0) -> set[str]:
    return {chunk.name for chunk in stage.chunks(level)}


def test_a_stage_is_computed_once_and_recorded_with_its_checksums(bench: Bench) -> None:
    stage = bench.stage()
    summary = bench.run(stage)
    assert (summary.done, summary.failed, summary.voxels) == (48, 0, stage.roi.voxels)
    assert summary.counters == {"corners": 8 * 48}
    ledger = bench.ledger(stage)
    assert all(ledger.checksum(chunk) == checksum_of(stage.load(chunk)) for chunk in stage.chunks())
    assert set(stage.tried().values()) == {1}


def test_a_finished_stage_computes_nothing(bench: Bench) -> None:
    stage = bench.stage()
    first = bench.run(stage)
    assert bench.run(stage) == first
    assert bench.tried(stage) == set()
    assert [type(event) for event in bench.events] == [StageStarted, StageFinished]
    assert bench.events[0] == StageStarted(stage.name, 48, 48, ((0, 0),))


def test_only_pending_chunks_run(bench: Bench) -> None:
    """A resumed run computes only the chunks that are not recorded as done."""
    stage = bench.stage()
    bench.run(stage)
    ledger = bench.ledger(stage)
    for chunk in stage.chunks()[5:9]:
        ledger.forget(chunk)
    ledger.close()
    bench.run(stage)
    assert bench.tried(stage) == {chunk.name for chunk in stage.chunks()[5:9]}


def test_another_fingerprint_computes_everything(bench: Bench) -> None:
    """A change of the fingerprint makes every chunk run again, and so does changing it back."""
    first = bench.stage()
    bench.run(first)
    expected = first.stored()
    bench.run(bench.stage(version=2))
    assert first.stored() != expected
    bench.run(first)
    assert bench.tried(first) == names(first)
    assert first.stored() == expected


def test_the_old_marks_end_before_the_first_chunk_is_overwritten(bench: Bench) -> None:
    """No chunk of the old configuration counts as done once a run with another one has begun."""
    first = bench.stage()
    bench.run(first)
    bench.failing(bench.stage(version=2, faults=dict.fromkeys(names(first), "full")))
    assert bench.done(first) == set()


class ConfinedStage(ToyStage):
    """A toy that notes what was recorded and computed when the driver had it remove what others left."""

    def confine(self, may_write: Callable[[], None]) -> None:
        """See ``Stage``."""
        log = self.store.get_or_none(f"ledger/{self.name}/log.jsonl") or b""
        self.store.put("confined", str([self.fingerprint in log.decode(), len(self.tried())]).encode())


def test_what_others_left_is_removed_between_their_marks_and_the_first_chunk(bench: Bench) -> None:
    """A stage is confined once our log has begun, and before a chunk is handed out."""
    bench.run(ConfinedStage(bench.store))
    assert bench.store.get("confined") == b"[True, 0]"


def test_failed_chunks_are_tried_again_after_doubling_pauses(bench: Bench) -> None:
    """Failing chunks are retried after pauses that double, and each of the other chunks runs once."""
    stage = bench.stage(faults={"1_2_0": "fail", "2_0_3": "fail"}, times=3)
    summary = bench.run(stage, attempts=5, backoff_seconds=0.5)
    assert bench.pauses == [0.5, 1.0, 2.0]
    assert (summary.done, summary.failed, summary.attempts) == (48, 0, 6)
    tried = stage.tried()
    assert (tried.pop("1_2_0"), tried.pop("2_0_3")) == (4, 4)
    assert set(tried.values()) == {1}


def test_pauses_have_a_longest(bench: Bench) -> None:
    stage = bench.stage(faults={"1_2_0": "fail"})
    bench.failing(stage, attempts=12, backoff_seconds=1.0)
    assert max(bench.pauses) == 300
    assert len(bench.pauses) == 11


def test_a_chunk_that_always_fails_is_set_aside_and_the_rest_finishes(bench: Bench) -> None:
    """One bad chunk is set aside after three attempts, the rest finishes, and the error names chunk and command."""
    stage = bench.stage(faults={"1_2_0": "fail"})
    message = bench.failing(stage)
    assert bench.done(stage) == names(stage) - {"1_2_0"}
    for part in ("measure_distances: 1 of 48 chunks failed", "1_2_0", "cannot be computed", COMMAND):
        assert part in message
    (failure,) = bench.ledger(stage).quarantined()
    assert (failure.chunk_name, failure.attempts) == ("1_2_0", 3)
    assert "misbehave" in failure.traceback
    assert stage.tried()["1_2_0"] == 3


def test_many_failures_are_counted_and_some_named(bench: Bench) -> None:
    bad = sorted(names(bench.stage()))[::3]
    message = bench.failing(bench.stage(faults=dict.fromkeys(bad, "fail")))
    assert f"{len(bad)} of 48 chunks failed" in message
    assert f"and {len(bad) - 10} more" in message


def test_errors_that_come_again_are_not_tried_again(bench: Bench) -> None:
    """A ConfigError, which every attempt would raise again, costs one attempt and no pause."""
    stage = bench.stage(faults={"1_2_0": "config"})
    assert "ConfigError: chunk 1_2_0 has a wrong option" in bench.failing(stage)
    assert bench.pauses == []
    assert stage.tried()["1_2_0"] == 1
    assert bench.done(stage) == names(stage) - {"1_2_0"}


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_fault_of_the_disk_stops_at_once_and_keeps_what_is_done(bench: Bench, fault: str) -> None:
    """A full or read-only disk stops the run at once, sets no chunk aside and keeps the finished ones."""
    stage = bench.stage(faults={"1_2_0": fault})
    message = bench.failing(stage)
    for part in ("stopped at chunk 1_2_0", "cannot write chunk", "Nothing that was finished is lost", COMMAND):
        assert part in message
    assert bench.pauses == []
    assert len(stage.tried()) < 48
    kept = bench.done(stage)
    assert len(kept) >= 20
    assert bench.ledger(stage).quarantined() == []
    bench.run(bench.stage())
    assert bench.tried(stage) == names(stage) - kept


def test_a_stage_stops_early_when_most_of_the_first_chunks_fail(bench: Bench) -> None:
    """A stage stops without a retry if the first 20 chunks all fail."""
    stage = bench.stage(faults=dict.fromkeys(names(bench.stage()), "fail"))
    message = bench.failing(stage)
    assert "stopped early: 20 of the first 20 chunks failed" in message
    assert COMMAND in message
    assert len(stage.tried()) < 30
    assert bench.pauses == []


def test_many_bad_chunks_among_good_ones_do_not_stop_a_stage(bench: Bench) -> None:
    """A stage does not stop early although half of its chunks fail, nor does a second run of the bad ones alone."""
    bad = sorted(names(bench.stage()))[1::2]
    stage = bench.stage(faults=dict.fromkeys(bad, "fail"))
    assert len(bad) > 20
    for _ in range(2):
        assert "24 of 48 chunks failed and were set aside" in bench.failing(stage)
        assert bench.done(stage) == names(stage) - set(bad)
        assert all(stage.tried()[name] == 3 for name in bad)


def test_after_mending_the_next_run_computes_only_what_is_missing(bench: Bench) -> None:
    """The next run computes the chunks that were set aside, and they are no longer listed as failed."""
    broken = bench.stage(faults={"1_2_0": "fail", "0_0_1": "config"})
    bench.failing(broken)
    whole = bench.stage()
    summary = bench.run(whole)
    assert bench.tried(whole) == {"1_2_0", "0_0_1"}
    assert (summary.done, summary.failed) == (48, 0)
    assert bench.ledger(whole).quarantined() == []


def test_a_level_begins_when_the_one_below_is_complete(bench: Bench) -> None:
    """No chunk of a level runs before all chunks of the level below are done."""
    stage = bench.stage(level_count=3, faults={"1_2_0": "fail"})
    message = bench.failing(stage)
    assert "1 of 48 chunks failed" in message
    assert bench.tried(stage) == names(stage)
    whole = bench.stage(level_count=3)
    bench.run(whole)
    assert bench.tried(whole) == {"1_2_0", *names(whole, 1), *names(whole, 2)}
    (top,) = whole.chunks(2)
    assert whole.load(top)["total"] == sum(whole.load(chunk)["total"] for chunk in whole.chunks())


def test_a_failure_above_names_its_level(bench: Bench) -> None:
    stage = bench.stage(level_count=3, faults={"L1_0_1_1": "fail"})
    message = bench.failing(stage)
    assert re.search(r"1 of \d+ chunks failed .*Chunks L1_0_1_1\. First error: ValueError", message)
    assert bench.done(stage) == (names(stage) | names(stage, 1)) - {"L1_0_1_1"}


def test_events_tell_the_story_in_order(bench: Bench) -> None:
    """The start of a stage is told first, its chunks level by level, and its end last."""
    stage = bench.stage(level_count=2, faults={"1_2_0": "fail"}, times=1)
    summary = bench.run(stage)
    first, *middle, last = bench.events
    assert first == StageStarted(stage.name, 48 + len(stage.chunks(1)), 0, ((0, 48), (1, len(stage.chunks(1)))))
    assert last == StageFinished(stage.name, summary)
    (failed,) = [event for event in middle if isinstance(event, ChunkFailed)]
    assert (failed.chunk.name, failed.attempt, failed.final) == ("1_2_0", 1, False)
    levels = [event.report.level for event in middle if isinstance(event, ChunkDone)]
    assert levels == [0] * 48 + [1] * len(stage.chunks(1))


def test_the_last_attempt_is_told_as_final(bench: Bench) -> None:
    bench.failing(bench.stage(faults={"1_2_0": "fail"}))
    failures = [event for event in bench.events if isinstance(event, ChunkFailed)]
    assert [(event.attempt, event.final) for event in failures] == [(1, False), (2, False), (3, True)]
    assert not any(isinstance(event, StageFinished) for event in bench.events)


def test_an_interrupted_run_keeps_what_it_has_recorded(bench: Bench) -> None:
    """After Ctrl-C, recorded chunks stay done and hardly any other chunk is begun."""
    stage = bench.stage()
    count = 0

    def interrupt(event: Event) -> None:
        nonlocal count
        count += isinstance(event, ChunkDone)
        if count == 10:
            raise KeyboardInterrupt

    ledger = bench.ledger(stage)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, ledger, bench.executor, RunOptions.of(Execution(max_in_flight=3), COMMAND), on_event=interrupt)
    ledger.close()
    begun = len(stage.tried())
    kept = bench.done(stage)
    assert len(kept) == 10
    assert begun <= 13
    bench.run(stage)
    assert bench.tried(stage) == names(stage) - kept


def test_a_run_that_is_asked_to_stop_records_every_chunk_that_it_began(bench: Bench) -> None:
    """After a request to stop, chunks that run are finished and recorded, no other begins, and the stage ends."""
    stage, stop = bench.stage(), Stop()

    def ask(event: Event) -> None:
        bench.events.append(event)
        if sum(isinstance(event, ChunkDone) for event in bench.events) == 10:
            stop.request()

    ledger = bench.ledger(stage)
    options = RunOptions.of(Execution(max_in_flight=3), COMMAND, stop=stop)
    with pytest.raises(Interrupted):
        run_stage(stage, ledger, bench.executor, options, on_event=ask)
    ledger.close()
    kept = bench.done(stage)
    assert 10 <= len(kept) <= 12
    assert set(stage.tried()) == kept
    with pytest.raises(Interrupted):  # nor does the next stage begin
        run_stage(stage, bench.ledger(stage), bench.executor, options)
    assert bench.done(stage) == kept
    bench.run(stage)
    assert bench.tried(stage) == names(stage) - kept


def test_a_driver_that_was_replaced_hands_out_and_writes_nothing_more(bench: Bench) -> None:
    """A driver that has lost its lease hands out no more chunks and writes no more records."""
    stage = bench.stage()
    count = 0

    def check() -> None:
        if count >= 10:
            raise LeaseError("another driver has taken over this run")

    def listen(event: Event) -> None:
        nonlocal count
        count += isinstance(event, ChunkDone)

    ledger = bench.ledger(stage)
    with pytest.raises(LeaseError):
        run_stage(
            stage,
            ledger,
            bench.executor,
            RunOptions.of(Execution(max_in_flight=3), COMMAND, may_write=check),
            on_event=listen,
        )
    with pytest.raises(LeaseError):
        ledger.compact()
    assert len(bench.done(stage)) == 10
    assert len(stage.tried()) <= 13


def test_a_driver_that_was_replaced_asks_before_it_hands_out_a_chunk(tmp_path: Path) -> None:
    """A driver that loses its lease after the third record hands out no fourth chunk."""
    stage, done = ToyStage(ObjectStore(tmp_path)), 0

    def may_write() -> None:
        if done >= 3:
            raise LeaseError("another driver has taken over this run")

    def listen(event: Event) -> None:
        nonlocal done
        done += isinstance(event, ChunkDone)

    ledger = Ledger(stage.store, stage.name, stage.fingerprint, stage.grids())
    with pytest.raises(LeaseError):
        run_stage(
            stage, ledger, SerialExecutor(), RunOptions.of(Execution(), COMMAND, may_write=may_write), on_event=listen
        )
    assert len(stage.tried()) == 3


def test_a_worker_whose_driver_was_followed_by_another_writes_nothing(bench: Bench) -> None:
    """A worker of a replaced driver writes nothing, and the stage stops after the chunks in flight."""
    stage = bench.stage()

    def fence() -> None:
        raise LeaseError("another driver has taken over this run")

    with pytest.raises(StageFailed, match=r"stopped at chunk .*another driver has taken over"):
        run_stage(
            stage,
            bench.ledger(stage),
            bench.executor,
            RunOptions.of(Execution(max_in_flight=3), COMMAND, worker_may_write=fence),
        )
    assert bench.done(stage) == set()
    assert len(stage.tried()) <= 3


class HalfWritten(ToyStage):
    """A toy stage that fails while it writes one chunk."""

    def write(self, chunk: Chunk, products: Products) -> None:
        if chunk.name == "1_2_0":
            raise OSError("the store is gone")
        super().write(chunk, products)


def test_a_chunk_that_cannot_be_written_is_not_done(bench: Bench) -> None:
    """A chunk whose products could not be stored is set aside, and the next run computes it."""
    message = bench.failing(HalfWritten(bench.store))
    assert "1 of 48 chunks failed" in message
    whole = bench.stage()
    assert bench.done(whole) == names(whole) - {"1_2_0"}
    bench.run(whole)
    assert bench.tried(whole) == {"1_2_0"}
