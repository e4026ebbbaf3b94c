"""The simulation holds for ten thousand seeds, is the same for equal seeds, and finds planted faults."""

import logging
from collections import Counter

import pytest

from pipeline.execution.runner import _StageRun
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.records import decode, encode
from pipeline.runs.lease import Fence, Lease
from tests.simulation import __main__ as command
from tests.simulation.judge import BrokenPromiseError
from tests.simulation.run import simulate
from tests.simulation.stages import SimulatedStage
from tests.simulation.store import SimulatedBackend
from tests.simulation.world import Timer

SEEDS, PART = 10_000, 500
HAPPENINGS = (
    *("late write", "late request", "dies in the middle", "reply is lost", "worker is lost", "cut off", "rival"),
    *("node is avoided", "another setting", "record is lost", "record is overwritten"),
    *("ends: complete", "ends: ProcessDied", "ends: StageFailed", "ends: StorageError", "ends: LeaseError"),
    "ends: KeyboardInterrupt",
)


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("petaseg")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_every_promise_holds_whatever_happens(first):
    """Runner, ledger and lease keep their promises under every seed; a failure prints the command that replays it."""
    counts = Counter()
    for seed in range(first, first + PART):
        try:
            counts += simulate(seed)
        except BrokenPromiseError as error:
            pytest.fail(command.story_of(seed, error), pytrace=False)
    assert counts["run"] == PART


def test_everything_that_can_happen_does():
    """Each kind of event that the simulation can cause happens at least once in 150 seeds."""
    counts = sum((simulate(seed) for seed in range(1000, 1150)), Counter())
    assert [kind for kind in HAPPENINGS if not counts[kind]] == []


def test_a_seed_tells_the_same_story_twice(capsys):
    """A seed gives the same events, line by line, each time it is simulated."""
    stories = []
    for _ in range(2):
        simulate(11, verbose=True)
        stories.append(capsys.readouterr().out)
    assert stories[0] == stories[1]
    assert stories[0].count("life") > 1


def forget_nothing_at_a_new_beginning(monkeypatch):
    begin, write = Ledger.begin, Ledger._write
    monkeypatch.setattr(Ledger, "begin", lambda self: None)
    monkeypatch.setattr(Ledger, "_write", lambda self, record: (begin(self), write(self, record)))


def leave_torn_lines(monkeypatch):
    append = SimulatedBackend.append
    monkeypatch.setattr(
        SimulatedBackend, "append", lambda self, key, data: None if data == b"\n" else append(self, key, data)
    )


def begin_the_log_before_its_records_are_arrays(monkeypatch):
    compact = Ledger.compact

    def begin_log(ledger):
        ledger._writer._replace_log(ledger._kept(), same=True)

    monkeypatch.setattr(Ledger, "compact", lambda self: (begin_log(self), compact(self)))


def count_segments_from_zero(monkeypatch):
    read = Ledger._read

    def forgetful(self):
        read(self)
        self._log.next_segment = min(1, self._log.next_segment)

    monkeypatch.setattr(Ledger, "_read", forgetful)


def let_records_wait(monkeypatch):
    monkeypatch.setattr(Timer, "start", lambda self: None)


def mark_first_and_store_second(monkeypatch):
    write = SimulatedStage.write

    def late(self, chunk, products):
        self.world.later(0.5, lambda: write(self, chunk, products))

    monkeypatch.setattr(SimulatedStage, "write", late)


def ask_nobody(monkeypatch):
    monkeypatch.setattr(Lease, "may_write", lambda self: None)


def hand_out_without_asking(monkeypatch):
    monkeypatch.setattr(_StageRun, "_allowed", lambda self, chunks: iter(chunks))


def take_a_lost_reply_for_a_lost_lease(monkeypatch):
    monkeypatch.setattr(Lease, "_put_again", Lease._put)


def count_lines_of_any_log(monkeypatch):
    monkeypatch.setattr("pipeline.ledger.writer.encode", lambda record, log="": encode(record))
    monkeypatch.setattr("pipeline.ledger.ledger.decode", lambda line, log="": decode(line))


def let_late_workers_write(monkeypatch):
    monkeypatch.setattr(Fence, "may_write", lambda self: None)


PLANTED = [
    forget_nothing_at_a_new_beginning,
    leave_torn_lines,
    begin_the_log_before_its_records_are_arrays,
    count_segments_from_zero,
    let_records_wait,
    mark_first_and_store_second,
    ask_nobody,
    hand_out_without_asking,
    take_a_lost_reply_for_a_lost_lease,
    count_lines_of_any_log,
    let_late_workers_write,
]


def simulate_many(stop):
    for seed in range(stop):
        simulate(seed)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(monkeypatch, plant):
    """The simulation finds each fault that is planted in the runner, ledger or lease."""
    plant(monkeypatch)
    with pytest.raises(BrokenPromiseError):
        simulate_many(500)


def test_the_command_prints_how_a_failure_is_replayed(monkeypatch, capsys):
    """The command prints the broken promise, its seed, and the command that replays it."""

    def broken(seed, *, verbose):
        if seed == 5:
            raise BrokenPromiseError("chunk 0_0_0 is missing")
        return Counter(run=1)

    monkeypatch.setattr(command, "simulate", broken)
    assert command.main(["--seeds", "0:5"]) == 0
    assert "5 of 5 runs hold" in capsys.readouterr().out
    assert command.main(["--seeds", "3:8"]) == 1
    printed = capsys.readouterr().out
    assert "seed 5: chunk 0_0_0 is missing" in printed
    assert "python -m tests.simulation --seeds 5:6 --verbose" in printed
