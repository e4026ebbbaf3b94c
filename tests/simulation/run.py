"""One seed from its first life to its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from unittest.mock import patch

from pipeline.errors import StageFailed, StorageError
from pipeline.execution.runner import Event, RunOptions, run_stage
from pipeline.ledger import Ledger
from tests.simulation.executor import SimulatedExecutor
from tests.simulation.fate import Fate, Life, draw
from tests.simulation.judge import Broken, Ending, Judge, require
from tests.simulation.stages import SimulatedStage, chain
from tests.simulation.store import Disk, SimulatedStore
from tests.simulation.world import Process, ProcessDied, World, simulated_time


def simulate(seed: int, *, verbose: bool = False) -> Counter[str]:
    """Run one seed; returns how often each kind of thing happened, raises ``Broken`` if a promise does not hold."""
    world = World(seed, verbose=verbose)
    fate = draw(world.dice)
    with simulated_time(world), patch.multiple("pipeline.ledger", **fate.constants):
        return Simulation(world, fate).run()


class Simulation:
    """A run and what it runs on."""

    def __init__(self, world: World, fate: Fate) -> None:
        self.world, self.fate = world, fate
        self.disk = Disk(file_system=fate.file_system)
        self.store = SimulatedStore(world, self.disk)
        self.judge = Judge(world, self.disk, self.store, fate.grid)

    def run(self) -> Counter[str]:
        """All lives, each judged."""
        ending: Ending = None
        layout = "a file system" if self.fate.file_system else "an object store"
        self.world.tell("run", f"of {len(self.fate.grid)} chunks on {layout}, {dict(self.fate.constants)}")
        for number, life in enumerate(self.fate.lives):
            self._await(life, self.fate.lives[number - 1] if number else life)
            self.judge.life_begins(life)
            ending = self._live(life)
            self.judge.life_ends(ending)
        require(ending is None, f"the last run, in which nothing goes wrong, ends with {ending!r}")
        self.judge.run_ends()
        return self.world.counts

    def _await(self, life: Life, before: Life) -> None:
        """Somebody mends what is broken, and types the command again."""
        if life.setting != before.setting:
            self.world.tell("another setting", f"{life.setting}; the workers of the old one have gone")
            self.world.forget_events()
        self.world.wait(life.begins_after)
        self.disk.mend()
        self.world.faults = dict(life.faults)
        self.disk.room = life.room
        if life.read_only_after is not None:
            self.world.later(life.read_only_after, lambda: self._turn_read_only(life))

    def _turn_read_only(self, life: Life) -> None:
        if self.judge.life is life:
            self.disk.read_only = True

    def _live(self, life: Life) -> Ending:
        """One ``petaseg run``, to whatever end."""
        world = self.world
        driver = Process("driver", life.dies_at, life.how, world.now + life.dies_after, life.unreliable, True)
        world.tell("life", f"{life}")
        ending: Ending = None
        with world.acting_as(driver):
            try:
                for stage in chain(world, self.store, self.fate.grid, life.setting):
                    self._run_stage(stage, life)
            except (ProcessDied, KeyboardInterrupt, StageFailed, StorageError) as error:
                ending = error
            except Exception as error:
                raise Broken(f"a run ended with {type(error).__name__}: {error}") from error
        driver.alive = False
        world.tell(f"ends: {type(ending).__name__ if ending else 'complete'}", str(ending or ""))
        return ending

    def _run_stage(self, stage: SimulatedStage, life: Life) -> None:
        """As ``workflows.session`` does: a complete stage is not begun, and a ledger is closed whatever happens."""
        self.judge.stage_begins(stage)
        seen = Ledger(self.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)
        if all(seen.done_count(grid) == len(grid) for grid in stage.grids()):
            return
        executor = SimulatedExecutor(self.world, life.pool, self.judge.chunk_begins)
        ledger = Ledger(self.store, stage.name, stage.fingerprint, stage.grids())
        try:
            options = RunOptions(attempts=life.attempts, sleep=self.world.wait)
            run_stage(stage, ledger, executor, options, on_event=self._listener(life))
        finally:
            ledger.close()

    def _listener(self, life: Life) -> Callable[[Event], None]:
        """The judge; and somebody who may type Ctrl-C."""
        left = [life.interrupted_at]

        def hear(event: Event) -> None:
            self.judge.hear(event)
            if left[0] is not None:
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt

        return hear
