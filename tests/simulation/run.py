"""The simulation of one seed, from its first life to its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest.mock import patch

from pipeline.config.run_file import Execution
from pipeline.errors import LeaseError, StageFailed, StorageError
from pipeline.execution.runner import Event, RunOptions, run_stage
from pipeline.ledger.ledger import Ledger
from pipeline.runs.lease import BEATS, KEY, Holder, Lease, LeaseRecord
from tests.simulation.executor import SimulatedExecutor
from tests.simulation.fate import Fate, Life, draw
from tests.simulation.judge import BrokenPromiseError, Ending, Judge, Witness, require
from tests.simulation.stages import SimulatedStage, chain
from tests.simulation.store import Disk, SimulatedStore
from tests.simulation.world import Process, ProcessDied, World, simulated_time

LEASE_SECONDS = 8.0


def simulate(seed: int, *, verbose: bool = False) -> Counter[str]:
    """Simulate one seed; returns how often each kind of event happened. ``BrokenPromiseError`` if a promise breaks."""
    world = World(seed, verbose=verbose)
    fate = draw(world.dice)
    with simulated_time(world), patch.multiple("pipeline.ledger.ledger", **fate.constants):
        return Simulation(world, fate).run()


class Simulation:
    """A run, its world, and the lives that are still to come."""

    def __init__(self, world: World, fate: Fate) -> None:
        self.world, self.fate = world, fate
        self.disk = Disk(file_system=fate.file_system)
        self.store = SimulatedStore(world, self.disk)
        self.judge = Judge(world, self.disk, self.store, fate.grid)
        self.lives: Iterator[Life] = iter(fate.lives[:-1])
        self.setting = fate.lives[0].setting
        self.mended = 0
        """Number of times that the faults were mended."""

    def run(self) -> Counter[str]:
        """Run all lives and judge each; the last one must complete the run."""
        layout = "a file system" if self.fate.file_system else "an object store"
        self.world.tell("run", f"of {len(self.fate.grid)} chunks on {layout}, {dict(self.fate.constants)}")
        for life in self.lives:
            self._live_on_mended(life)
        ending = self._live_on_mended(self.fate.lives[-1])
        require(ending is None, f"the last run, in which nothing goes wrong, ends with {ending!r}")
        self.judge.run_ends(self.fate.lives[-1].setting)
        return self.world.counts

    def _live_on_mended(self, life: Life) -> Ending:
        """Mend what is broken, and run again."""
        self.world.wait(life.begins_after)
        self.disk.mend()
        self.mended += 1
        self.disk.room, mended = life.room, self.mended
        if life.read_only_after is not None:
            self.world.later(life.read_only_after, lambda: self._turn_read_only(mended))
        return self._live(life)

    def _turn_read_only(self, mended: int) -> None:
        if self.mended == mended:
            self.disk.read_only = True

    def _live(self, life: Life) -> Ending:
        """Run one life, to whatever end."""
        world = self.world
        if life.setting != self.setting:
            world.tell("another setting", f"{life.setting}; workers of the old one may still be at work")
            self.setting = life.setting
        world.faults = dict(life.faults)
        world.tell("life", f"{life}")
        driver = self._driver(life)
        witness = self.judge.life_begins(life, driver)
        driver.interrupts = self._interrupts(life, witness)
        with world.acting_as(driver):
            ending = self._drive(life, witness)
        driver.alive = False
        world.tell(f"ends: {type(ending).__name__ if ending else 'complete'}", f"{driver.name} {ending or ''}")
        self.judge.life_ends(witness, ending)
        return ending

    def _driver(self, life: Life) -> Process:
        pid = len(self.world.drivers) + 1
        process = Process(
            f"driver {pid}",
            host=life.host,
            pid=pid,
            dies_at=life.dies_at,
            how=life.how,
            dies_when=self.world.now + life.dies_after,
            unreliable=life.unreliable,
            driver=True,
        )
        self.world.drivers[pid] = process
        return process

    def _interrupts(self, life: Life, witness: Witness) -> dict[int, Callable[[], None]]:
        interrupts: dict[int, Callable[[], None]] = {}
        if life.rival_at is not None:
            interrupts[life.rival_at] = lambda: self._rival(life, witness)
        if life.cut_off_at is not None:
            interrupts[life.cut_off_at] = lambda: self._cut_off(life, witness)
        return interrupts

    def _rival(self, life: Life, witness: Witness) -> None:
        """Start a second driver of the same run."""
        self.world.tell("rival", witness.driver.name)
        self._meanwhile(Life(life.setting, host="elsewhere"), life, witness)

    def _cut_off(self, life: Life, witness: Witness) -> None:
        """Stop a driver and live the next life meanwhile, which may wait for the lease and take over."""
        other = next(self.lives, None)
        self.world.tell("cut off", witness.driver.name)
        witness.driver.cut_off = True
        if other is None:
            self.world.wait(3 * LEASE_SECONDS)
        else:
            self._meanwhile(other, life, witness)
        witness.driver.cut_off = False
        self.world.tell("comes back", witness.driver.name)

    def _meanwhile(self, other: Life, life: Life, witness: Witness) -> None:
        """Run another driver's life within one operation of a driver, on the same disk."""
        faults, held_by = self.world.faults, self._lease_holder()
        unlucky = replace(other, room=life.room, read_only_after=life.read_only_after)
        with self.world.acting_as(self.world.observer):
            self._live(unlucky)
        self.world.faults = faults
        taken = self._lease_holder() != held_by
        witness.met_another |= taken
        witness.overtaken |= taken and witness.driver.has_lease

    def _lease_holder(self) -> Holder | None:
        data = self.disk.objects.get(KEY)
        record = None if data is None else LeaseRecord.decode(data)
        return None if record is None else record.holder

    def _drive(self, life: Life, witness: Witness) -> Ending:
        """Drive a run as ``workflows.driver`` does: one lease, one stage after another."""
        lease = Lease(self.store, seconds=LEASE_SECONDS, sleep=self.world.wait)
        try:
            lease.acquire()
            witness.driver.has_lease = True
            heart = Heart(self.world, lease, witness.driver)
            try:
                for stage in chain(self.world, self.store, self.fate.grid, life.setting):
                    self._run_stage(stage, life, witness, lease)
            finally:
                heart.beats = False
                lease.release()
        except (ProcessDied, KeyboardInterrupt, StageFailed, StorageError, LeaseError) as error:
            return error
        except Exception as error:
            raise BrokenPromiseError(f"a run ended with {type(error).__name__}: {error}") from error
        return None

    def _run_stage(self, stage: SimulatedStage, life: Life, witness: Witness, lease: Lease) -> None:
        """Run a stage as ``workflows.driver`` does: a complete one is not begun, and its ledger is always closed."""
        witness.stage_begins(stage)
        seen = Ledger(self.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)
        if all(seen.done_count(grid) == len(grid) for grid in stage.grids()):
            return
        executor = SimulatedExecutor(self.world, life.pool, witness.chunk_begins)
        options = RunOptions.of(
            Execution(attempts=life.attempts),
            "petaseg run run.yaml",
            sleep=self.world.wait,
            may_write=lease.may_write,
            worker_may_write=lease.fence.may_write,
        )
        ledger = Ledger(self.store, stage.name, stage.fingerprint, stage.grids())
        try:
            run_stage(stage, ledger, executor, options, on_event=self._listener(life, witness))
        finally:
            ledger.close()

    def _listener(self, life: Life, witness: Witness) -> Callable[[Event], None]:
        """A listener that tells the witness, and raises Ctrl-C where the life says so."""
        left = [life.interrupted_at]

        def hear(event: Event) -> None:
            witness.hear(event)
            if left[0] is not None:
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt

        return hear


class Heart:
    """The thread that renews a lease."""

    def __init__(self, world: World, lease: Lease, driver: Process) -> None:
        self.world, self.lease, self.driver, self.beats = world, lease, driver, True
        self._wait(LEASE_SECONDS / BEATS)

    def _wait(self, seconds: float) -> None:
        self.world.later_by(self.driver, seconds, self._beat)

    def _beat(self) -> None:
        if not self.beats:
            return
        try:
            self.lease.renew()
        except StorageError as error:
            self.world.tell("no renewal", str(error))
        self._wait(LEASE_SECONDS / BEATS)
