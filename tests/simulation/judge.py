"""What must hold after every life of a run, and in the end. Nothing here looks into the runner or the ledger.

1. A chunk that is marked done is stored, with the checksum that is recorded, and with the bytes that it should have;
   under every configuration that was ever run, not only under the present one.
2. What is done is not computed again, and is not lost: where lines are appended, no record that was returned from; in
   segments, at most those of the last ``FLUSH_SECONDS`` before the driver died.
3. A life ends complete, dead, with an error of a store that failed, or with ``StageFailed``, which names exactly the
   chunks that were set aside.
4. When nothing goes wrong any more the run is completed, and is byte for byte what it would have been without faults.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from pipeline import ledger as ledger_module
from pipeline.errors import StageFailed, StorageError
from pipeline.execution.runner import MOSTLY, NAMED, ChunkDone, ChunkFailed, Event, StageStarted
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger import Ledger
from pipeline.stages.base import checksum_of
from pipeline.storage import ObjectStore
from tests.simulation.fate import Life
from tests.simulation.stages import Setting, SimulatedStage, chain, chunks_of
from tests.simulation.store import Disk, SimulatedStore
from tests.simulation.world import LONGEST_REQUEST, World

Ending = BaseException | None
"""How a life ended; None if the run is complete."""
SET_ASIDE = re.compile(r"(\d+) of (\d+) chunks failed and were set aside.* Chunks (.+?)(?: and (\d+) more)?\. First")
STOPPED_EARLY = re.compile(r"stopped early: (\d+) of the first (\d+) chunks failed")


class Broken(AssertionError):
    """A promise does not hold."""


def require(condition: bool, text: str) -> None:
    """Raise ``Broken`` with a text unless a condition holds."""
    if not condition:
        raise Broken(text)


class Judge:
    """Watches the lives of one run."""

    def __init__(self, world: World, disk: Disk, store: ObjectStore, grid: ChunkGrid) -> None:
        self.world, self.disk, self.store, self.grid = world, disk, store, grid
        self.settings: list[Setting] = []
        self.recorded: dict[tuple[str, str], dict[Chunk, tuple[Life, float]]] = {}
        """(stage, fingerprint) -> chunks that the runner has recorded: in which life, and when."""

    def life_begins(self, life: Life) -> None:
        """Before the first stage."""
        self.life, self.failures = life, {}  # type: Life, dict[tuple[str, Chunk], int]
        if life.setting not in self.settings:
            self.settings.append(life.setting)

    def stage_begins(self, stage: SimulatedStage) -> None:
        """Before its ledger is opened for writing."""
        self.stage, self.done = stage, done_chunks(stage, self._ledger(stage))

    def chunk_begins(self, chunk: Chunk) -> None:
        """Handed out by the executor for the first time in a round."""
        require(chunk not in self.done, f"{self.stage.name} {chunk.name} is done and is computed again")

    def hear(self, event: Event) -> None:
        """Listen to the runner."""
        if isinstance(event, ChunkDone):
            chunk = self.stage.grids()[event.report.level].chunk(event.report.index)
            self.done.add(chunk)
            self._records(self.stage)[chunk] = (self.life, self.world.now)
        elif isinstance(event, ChunkFailed):
            key = (event.stage, event.chunk)
            self.failures[key] = self.failures.get(key, 0) + 1
            fault = self.life.faults.get((event.stage, event.chunk.name), ("", 0))[0]
            if event.final and fault not in ("config", "memory"):
                require(self.failures[key] == self.life.attempts, f"{event.chunk.name} was set aside too early")
        elif isinstance(event, StageStarted) and event.done < event.total:
            for name, fingerprint in self.recorded:  # from here on their data may be overwritten
                if name == event.stage and fingerprint != self.stage.fingerprint:
                    self.recorded[name, fingerprint] = {}

    def life_ends(self, ending: Ending) -> None:
        """After a life, whatever its end."""
        for setting in self.settings:
            for stage in chain(self.world, self.store, self.grid, setting):
                book = self._ledger(stage)
                done = done_chunks(stage, book)
                self._check_stored(stage, book, done)
                self._check_lost(stage, done, died=not isinstance(ending, Exception | None))
        self._check_ending(ending)

    def run_ends(self) -> None:
        """After the last life, in which nothing goes wrong."""
        stored = {key: data for key, data in self.disk.objects.items() if not key.startswith("ledger/")}
        require(stored == undisturbed(self.grid, self.life.setting), "the result differs from the undisturbed run's")
        for stage in chain(self.world, self.store, self.grid, self.life.setting):
            summary = self._ledger(stage).summary()
            count = sum(map(len, stage.grids()))
            require((summary.done, summary.failed) == (count, 0), f"{stage.name} says {summary} of {count}")
            voxels = sum(chunk.core.voxels for grid in stage.grids() for chunk in chunks_of(grid))
            require(summary.voxels == voxels, f"{stage.name} counts {summary.voxels} of {voxels} voxels")
            require(summary.bytes_written == 16 * count * len(stage.products), f"{stage.name} counts other bytes")
            require(summary.counters == counters(stage), f"{stage.name} has counters {summary.counters}")

    def _ledger(self, stage: SimulatedStage) -> Ledger:
        """A fresh look at what is stored."""
        with self.world.acting_as(self.world.observer):
            return Ledger(self.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)

    def _records(self, stage: SimulatedStage) -> dict[Chunk, tuple[Life, float]]:
        return self.recorded.setdefault((stage.name, stage.fingerprint), {})

    def _check_stored(self, stage: SimulatedStage, book: Ledger, done: set[Chunk]) -> None:
        right = checksums(stage.name, self.grid, stage.setting)
        for chunk in done:
            place = f"{stage.name} {chunk.name}, done under {stage.setting},"
            require(all(stage.key(name, chunk) in self.disk.objects for name in stage.products), f"{place} is missing")
            require(checksum_of(stage.load(chunk)) == book.checksum(chunk), f"{place} is not what was recorded")
            require(book.checksum(chunk) == right[chunk], f"{place} has a wrong checksum")

    def _check_lost(self, stage: SimulatedStage, done: set[Chunk], *, died: bool) -> None:
        records = self._records(stage)
        for chunk in [chunk for chunk in records if chunk not in done]:
            life, moment = records.pop(chunk)
            place = f"{stage.name} {chunk.name}, recorded at {moment:.2f} s under {stage.setting},"
            require(not self.disk.file_system, f"{place} is lost, though it was appended to the log")
            require(life is self.life, f"{place} is lost, though an earlier life had recorded it")
            require(died or life.store_fails, f"{place} is lost, though nothing was wrong with the driver")
            limit = ledger_module.FLUSH_SECONDS + 10 * LONGEST_REQUEST
            recent = self.world.now - moment <= limit
            require(recent or life.store_fails, f"{place} is lost, though the driver died {limit} s later")
            self.world.tell("record is lost", place)

    def _check_ending(self, ending: Ending) -> None:
        if isinstance(ending, StageFailed):
            stopped = "stopped at chunk" in str(ending) and self.life.store_fails
            require(stopped or self.life.chunks_fail, f"a stage failed for no reason: {ending}")
            if not stopped:
                self._check_verdict(str(ending))
        elif isinstance(ending, StorageError):
            require(self.life.store_fails, f"a sound store failed: {ending}")

    def _check_verdict(self, message: str) -> None:
        if early := STOPPED_EARLY.search(message):
            failed, tried = map(int, early.groups())
            require(failed >= MOSTLY * tried, message)
            return
        found = SET_ASIDE.search(message)
        require(found is not None, f"no verdict: {message}")
        missing, total, names, more = found.groups()  # type: ignore[union-attr]
        book = self._ledger(self.stage)
        grid = next(grid for grid in self.stage.grids() if book.done_count(grid) < len(grid))
        aside = [failure.chunk_name for failure in book.quarantined() if failure.level == grid.level]
        require(set(aside) == {chunk.name for chunk in book.pending(grid)}, f"{aside} were set aside: {message}")
        require((int(missing), int(total)) == (len(aside), len(grid)), message)
        require((names.split(", "), int(more or 0)) == (aside[:NAMED], max(0, len(aside) - NAMED)), message)


def done_chunks(stage: SimulatedStage, book: Ledger) -> set[Chunk]:
    """What a ledger says."""
    return {chunk for grid in stage.grids() for chunk in chunks_of(grid) if book.is_done(chunk)}


@cache
def undisturbed(grid: ChunkGrid, setting: Setting) -> dict[str, bytes]:
    """What a run stores in which nothing goes wrong, by key: a plain loop over the stages."""
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
    stages: Sequence[SimulatedStage] = chain(world, SimulatedStore(world, disk), grid, setting)
    (stage,) = (stage for stage in stages if stage.name == name)
    return {chunk: checksum_of(stage.load(chunk)) for level in stage.grids() for chunk in chunks_of(level)}


def counters(stage: SimulatedStage) -> dict[str, float]:
    """The right sums of a stage's counters."""
    if stage.name == "paint_voxels":
        return {"painted": len(stage.grid)}
    below, *above = stage.grids()
    children = sum(
        len(grid.children(chunk)) for grid, upper in zip([below, *above], above, strict=False) for chunk in upper
    )
    return {"read": 2 * len(below) + children}
