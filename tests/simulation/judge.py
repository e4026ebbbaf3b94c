"""The promises checked after every life of a run and at its end. Nothing here looks into the runner or the ledger.

1. A chunk that is marked done is stored, with the checksum that is recorded, and with the bytes that it should have;
   under every configuration that was ever run, not only under the present one.
2. A done chunk is not computed again, and is not lost: where lines are appended, no record whose call returned; in
   segments, at most those of the last ``FLUSH_SECONDS`` before the driver died. Only what a driver that was cut off
   had already sent, and what arrives after its time, may cost more; it never makes anything wrong.
3. A life ends complete, dead, with an error of a store that failed, refused because another driver lives, or with
   ``StageFailed``, which names exactly the chunks that were set aside.
4. When nothing goes wrong any more the run is completed, and is byte for byte what it would have been without faults.
"""

from __future__ import annotations

import re
from functools import cache

from pipeline.errors import LeaseError, StageFailed, StorageError
from pipeline.execution.nodes import IN_A_ROW
from pipeline.execution.runner import MOSTLY, NAMED, ChunkDone, ChunkFailed, Event, NodeAvoided, StageStarted
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger import writer
from pipeline.ledger.ledger import Ledger
from pipeline.stages.base import checksum_of
from pipeline.storage import ObjectStore
from tests.simulation.executor import LOST
from tests.simulation.fate import Life
from tests.simulation.stages import Setting, SimulatedStage, chain, chunks_of
from tests.simulation.store import Disk, SimulatedStore
from tests.simulation.world import LONGEST_REQUEST, Process, World

Ending = BaseException | None
"""The error that ended a life; None if the run is complete."""
SET_ASIDE = re.compile(
    r"(\d+) of (\d+) chunks? failed and (?:was|were) set aside.* Chunks (.+?)(?: and (\d+) more)?\. First"
)
STOPPED_EARLY = re.compile(r"stopped early: (\d+) of the first (\d+) chunks failed")
TOO_LATE_TO_TRY_AGAIN = ("MemoryError", "ConfigError", LOST)
"""Errors after which a chunk may be set aside after fewer attempts."""


class BrokenPromiseError(BaseException):
    """A promise is broken. It is no ``Exception``, which the store would take for an error of its own."""


def require(condition: bool, text: str) -> None:
    """Raise ``BrokenPromiseError`` with a text unless a condition holds."""
    if not condition:
        raise BrokenPromiseError(text)


class Witness:
    """Watches one life, and what its driver reports about chunks."""

    def __init__(self, judge: Judge, life: Life, driver: Process) -> None:
        self.judge, self.life, self.driver = judge, life, driver
        self.errors: dict[Chunk, list[str]] = {}
        self.overtaken = False
        """True once another driver has taken over the run."""
        self.met_another = False
        """True once another driver has held the lease during this life, whether or not this one held it before."""
        self.after_all = 0
        """Records since then; one is allowed, since it may have been on its way."""

    def stage_begins(self, stage: SimulatedStage) -> None:
        """Called before the ledger of a stage is opened for writing."""
        self.stage, self.done = stage, done_chunks(stage, self.judge.ledger(stage))
        self.errors = {}

    def chunk_begins(self, chunk: Chunk) -> None:
        """Called when the executor draws a chunk."""
        require(not self.overtaken, f"{self.driver.name} hands out {chunk.name}, though another driver has taken over")
        require(chunk not in self.done, f"{self.stage.name} {chunk.name} is done and is computed again")

    def hear(self, event: Event) -> None:
        """Check an event of the runner."""
        if isinstance(event, ChunkDone):
            chunk = self.stage.grids()[event.report.level].chunk(event.report.index)
            self.done.add(chunk)
            self.after_all += self.overtaken
            require(self.after_all < 2, f"{self.driver.name} goes on recording, though another driver has taken over")
            self.judge.records(self.stage)[chunk] = (self, self.judge.world.now)
        elif isinstance(event, ChunkFailed):
            self._hear_failure(event)
        elif isinstance(event, NodeAvoided):
            broken = self.life.pool.bad_node is not None and event.node == f"node-{self.life.pool.bad_node}"
            count = 1 + sum(map(len, self.errors.values()))  # the last attempt is reported afterwards
            require(broken or count >= IN_A_ROW, f"{event.node} is avoided after {count} failures")
        elif isinstance(event, StageStarted) and event.done < event.total:
            self.judge.others_may_be_overwritten(self.stage)

    def _hear_failure(self, event: ChunkFailed) -> None:
        errors = self.errors.setdefault(event.chunk, [])
        errors.append(event.error)
        hopeless = any(text in error for error in errors for text in TOO_LATE_TO_TRY_AGAIN)
        if event.final and not hopeless:
            require(len(errors) == self.life.attempts, f"{event.chunk.name} was set aside too early: {errors}")


class Judge:
    """Watches the lives of one run."""

    def __init__(self, world: World, disk: Disk, store: ObjectStore, grid: ChunkGrid) -> None:
        self.world, self.disk, self.store, self.grid = world, disk, store, grid
        self.settings: list[Setting] = []
        self.recorded: dict[tuple[str, str], dict[Chunk, tuple[Witness, float]]] = {}
        """(stage, fingerprint) -> chunks that a runner has recorded: in which life, and when."""
        self._late_requests = 0

    def life_begins(self, life: Life, driver: Process) -> Witness:
        """Called before the first stage of a life."""
        if life.setting not in self.settings:
            self.settings.append(life.setting)
        return Witness(self, life, driver)

    def others_may_be_overwritten(self, stage: SimulatedStage) -> None:
        """From now on nothing is promised of chunks that this stage made under other fingerprints."""
        for name, fingerprint in self.recorded:
            if name == stage.name and fingerprint != stage.fingerprint:
                self.recorded[name, fingerprint] = {}

    def life_ends(self, witness: Witness, ending: Ending) -> None:
        """Check all promises after a life, however it ended."""
        excused = witness.overtaken or self.world.late_requests > self._late_requests
        self._late_requests = self.world.late_requests
        for setting in self.settings:
            for stage in chain(self.world, self.store, self.grid, setting):
                book = self.ledger(stage)
                done = done_chunks(stage, book)
                self._check_stored(stage, book, done)
                for chunk, (by, _) in list(self.records(stage).items()):
                    may_still_store = by is not witness and by.driver.alive
                    if chunk not in done and not may_still_store:
                        self._check_loss(stage, chunk, witness, ending, excused=excused)
        self._check_ending(witness, ending, excused=excused)

    def run_ends(self, setting: Setting) -> None:
        """Check all promises after the last life, in which nothing goes wrong."""
        stored = {key: data for key, data in self.disk.objects.items() if not key.startswith(("ledger/", "lease"))}
        require(stored == undisturbed(self.grid, setting), "the result differs from the undisturbed run's")
        for stage in chain(self.world, self.store, self.grid, setting):
            summary = self.ledger(stage).summary()
            count = sum(map(len, stage.grids()))
            require((summary.done, summary.failed) == (count, 0), f"{stage.name} says {summary} of {count}")
            voxels = sum(chunk.core.voxels for grid in stage.grids() for chunk in chunks_of(grid))
            require(summary.voxels == voxels, f"{stage.name} counts {summary.voxels} of {voxels} voxels")
            require(summary.bytes_written == 16 * count * len(stage.products), f"{stage.name} counts other bytes")
            require(summary.counters == counters(stage), f"{stage.name} has counters {summary.counters}")

    def ledger(self, stage: SimulatedStage) -> Ledger:
        """Open a ledger afresh from what is stored."""
        with self.world.acting_as(self.world.observer):
            return Ledger(self.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)

    def records(self, stage: SimulatedStage) -> dict[Chunk, tuple[Witness, float]]:
        """The chunks of a stage that runners have recorded."""
        return self.recorded.setdefault((stage.name, stage.fingerprint), {})

    def _check_stored(self, stage: SimulatedStage, book: Ledger, done: set[Chunk]) -> None:
        right = checksums(stage.name, self.grid, stage.setting)
        for chunk in done:
            place = f"{stage.name} {chunk.name}, done under {stage.setting},"
            require(all(stage.key(name, chunk) in self.disk.objects for name in stage.products), f"{place} is missing")
            require(checksum_of(stage.load(chunk)) == book.checksum(chunk), f"{place} is not what was recorded")
            require(book.checksum(chunk) == right[chunk], f"{place} has a wrong checksum")

    def _check_loss(
        self, stage: SimulatedStage, chunk: Chunk, witness: Witness, ending: Ending, *, excused: bool
    ) -> None:
        by, moment = self.records(stage).pop(chunk)
        place = f"{stage.name} {chunk.name}, recorded at {moment:.2f} s under {stage.setting},"
        excused |= by.overtaken
        self.world.tell("record is overwritten" if excused else "record is lost", place)
        if excused:
            return
        require(not self.disk.file_system, f"{place} is lost, though it was appended to the log")
        require(by is witness, f"{place} is lost, though an earlier life had recorded it")
        died = not isinstance(ending, Exception | None)
        require(died or witness.life.store_fails, f"{place} is lost, though nothing was wrong with the driver")
        limit = writer.FLUSH_SECONDS + 10 * LONGEST_REQUEST
        recent = self.world.now - moment <= limit
        life = witness.life  # a request lasts as long as another driver's life within it
        slow = life.store_fails or life.cut_off_at is not None or life.rival_at is not None
        require(recent or slow, f"{place} is lost, though the driver died {limit} s later")

    def _check_ending(self, witness: Witness, ending: Ending, *, excused: bool) -> None:
        life = witness.life
        if isinstance(ending, StageFailed):
            stopped = "stopped at chunk" in str(ending) and (life.store_fails or excused)
            require(stopped or life.chunks_fail, f"a stage failed for no reason: {ending}")
            if not stopped and not excused:
                self._check_verdict(witness.stage, str(ending))
        elif isinstance(ending, StorageError):
            require(life.store_fails, f"a sound store failed: {ending}")
        elif isinstance(ending, LeaseError):
            others = [d for d in self.world.drivers.values() if d is not witness.driver and d.alive]
            require(excused or witness.met_another or bool(others), f"nobody else works on this run: {ending}")

    def _check_verdict(self, stage: SimulatedStage, message: str) -> None:
        if early := STOPPED_EARLY.search(message):
            failed, tried = map(int, early.groups())
            require(failed >= MOSTLY * tried, message)
            return
        found = SET_ASIDE.search(message)
        require(found is not None, f"no verdict: {message}")
        missing, total, names, more = found.groups()  # type: ignore[union-attr]
        book = self.ledger(stage)
        grid = next(grid for grid in stage.grids() if book.done_count(grid) < len(grid))
        aside = [failure.chunk_name for failure in book.quarantined() if failure.level == grid.level]
        require(set(aside) == {chunk.name for chunk in book.pending(grid)}, f"{aside} were set aside: {message}")
        require((int(missing), int(total)) == (len(aside), len(grid)), message)
        require((names.split(", "), int(more or 0)) == (aside[:NAMED], max(0, len(aside) - NAMED)), message)


def done_chunks(stage: SimulatedStage, book: Ledger) -> set[Chunk]:
    """The chunks that a ledger calls done."""
    return {chunk for grid in stage.grids() for chunk in chunks_of(grid) if book.is_done(chunk)}


@cache
def undisturbed(grid: ChunkGrid, setting: Setting) -> dict[str, bytes]:
    """The objects of a run in which nothing goes wrong, by key, computed by a plain loop over the stages."""
    world, disk = World(0), Disk(file_system=True)
    for stage in chain(world, SimulatedStore(world, disk), grid, setting):
        for level in stage.grids():
            for chunk in level:
                stage.run_chunk(chunk)
    return disk.objects


@cache
def checksums(name: str, grid: ChunkGrid, setting: Setting) -> dict[Chunk, str]:
    """The right checksums of a stage."""
    world, disk = World(0), Disk(file_system=True)
    disk.objects = undisturbed(grid, setting)
    (stage,) = (stage for stage in chain(world, SimulatedStore(world, disk), grid, setting) if stage.name == name)
    return {chunk: checksum_of(stage.load(chunk)) for level in stage.grids() for chunk in chunks_of(level)}


def counters(stage: SimulatedStage) -> dict[str, float]:
    """The right sums of a stage's counters."""
    if stage.name == "paint_voxels":
        return {"painted": len(stage.grid)}
    grids = stage.grids()
    children = sum(len(grids[chunk.level - 1].children(chunk)) for grid in grids[1:] for chunk in grid)
    return {"read": 2 * len(grids[0]) + children}
