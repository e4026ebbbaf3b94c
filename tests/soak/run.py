"""The soak of one seed, from its first life to its last."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from tests.disks import Disk, Folder, MountedDisk
from tests.runs import results, write_run
from tests.soak.cluster import Cluster
from tests.soak.plan import Life, Plan
from tests.soak.processes import DONE, REFUSED, Transcript, drive, fork, kill, status_of
from tests.soak.references import References

TICK = 0.005
WORDS = 10_000
"""Characters of the output that a message shows."""
PATIENCE_SECONDS = 120
"""Seconds after which a driver counts as hanging."""
KILLED = -9
CALM = Life()
ENDINGS = {DONE: "complete", REFUSED: "refused", KILLED: "killed"}


class BrokenPromiseError(AssertionError):
    """A promise is broken."""


def soak(plan: Plan, references: References, folder: Path, tell: Callable[[str], None]) -> list[str]:
    """Soak one seed; returns how each life ended. ``BrokenPromiseError`` if a promise breaks."""
    with (
        run_on_disk(plan, references, folder) as (file, disk),
        closing(Transcript(folder / "log.txt")) as log,
        cluster_of(plan, folder, log) as cluster,
    ):
        soaked = Soak(plan, file, disk, cluster, log, tell)
        endings = [soaked.live(life) for life in plan.lives]
        last = soaked.live(CALM)
        if last != "complete":
            raise BrokenPromiseError(f"an undisturbed run is not complete: {soaked.last_words()}")
        check_results(Run.open(file), references.results[plan.flavour.name])
    return [*endings, last]


@contextmanager
def run_on_disk(plan: Plan, references: References, folder: Path) -> Iterator[tuple[Path, Disk]]:
    """Write the run file; yields it and the disk that holds its run directory."""
    shape = {"chunk_shape": list(plan.chunk_shape), "storage_chunk_shape": list(plan.chunk_shape)}
    file = write_run(folder, execution=plan.execution, **shape, **plan.flavour.tables(references.folder))
    small = any(life.room is not None or life.read_only_after is not None for life in plan.lives)
    disk: Disk = MountedDisk(folder / "run") if small else Folder(folder / "run")
    (folder / "run" / "petaseg.log").symlink_to(folder / "petaseg.log")  # open files forbid a read-only remount
    try:
        yield file, disk
    finally:
        disk.close()
        shutil.rmtree(folder)


@contextmanager
def cluster_of(plan: Plan, folder: Path, log: Transcript) -> Iterator[Cluster | None]:
    """The forked Dask cluster, if the plan has one."""
    cluster = Cluster(plan.workers, folder / "workers", log) if plan.workers else None
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()


class Soak:
    """A run, between its lives."""

    def __init__(
        self, plan: Plan, file: Path, disk: Disk, cluster: Cluster | None, log: Transcript, tell: Callable[[str], None]
    ) -> None:
        self.plan, self.file, self.disk, self.cluster, self.log, self.tell = plan, file, disk, cluster, log, tell
        self.done: dict[str, int] = {}

    def live(self, life: Life) -> str:
        """Run one life; what was done before must still be done after it."""
        overrides = life.overrides
        if self.cluster is not None:
            self.cluster.plan_deaths(life.worker_deaths)
            overrides = (*overrides, f"execution.scheduler={self.cluster.address}")
        self.disk.mend()
        if life.room is not None:
            self.disk.leave(life.room)
        began = time.monotonic()
        pid = fork(lambda: drive(self.file, life, overrides), self.log)
        try:
            status = self._watch(pid, life)
        finally:
            kill(pid)
        self.disk.mend()
        if status not in ENDINGS:
            raise BrokenPromiseError(f"{life}: the driver ended with status {status}: {self.last_words()}")
        self.tell(f"  {time.monotonic() - began:5.2f} s  {ENDINGS[status]:8s}  {life}")
        self._check_done(life)
        return ENDINGS[status]

    def _watch(self, pid: int, life: Life) -> int:
        """Apply the faults of the plan at their times until the driver has ended; returns its status."""
        began = time.monotonic()
        todo = [(life.read_only_after, lambda: self.disk.set_read_only()), (life.killed_after, lambda: kill(pid))]
        todo += [(after, self._kill_worker) for after in life.workers_killed_after]
        waiting = sorted(((after, act) for after, act in todo if after is not None), key=lambda pair: pair[0])
        while True:
            status = status_of(pid)
            if status is not None:
                return status
            if waiting and time.monotonic() - began > waiting[0][0]:
                after, act = waiting.pop(0)
                act()
                if after == life.killed_after:
                    return KILLED
            if time.monotonic() - began > PATIENCE_SECONDS:
                os.kill(pid, signal.SIGABRT)
            if self.cluster is not None:
                self.cluster.tend()
            time.sleep(TICK)

    def _kill_worker(self) -> None:
        assert self.cluster is not None
        self.cluster.kill_worker(self.plan.seed)

    def _check_done(self, life: Life) -> None:
        """Compare with the chunks done before; another configuration begins anew."""
        if life.overrides:
            self.done = {}
            return
        run = Run.open(self.file)
        for stage in run.stages:
            count = run.ledger(stage, read_only=True).summary().done
            if count < self.done.get(stage.name, 0):
                raise BrokenPromiseError(f"{stage.name} had {self.done[stage.name]} chunks done, now {count}: {life}")
            self.done[stage.name] = count

    def last_words(self) -> str:
        """The end of the output of drivers and workers."""
        return self.log.end(WORDS)


def check_results(run: Run, expected: dict[str, bytes]) -> None:
    """Check that everything is as in the undisturbed run, and as the ledgers record."""
    found = results(run)
    different = [name for name in expected if found[name] != expected[name]]
    if different:
        raise BrokenPromiseError(f"{', '.join(different)} differ from those of the undisturbed run")
    for proof in verify_run(run, sample=0, seed=0):
        if not proof.proven:
            raise BrokenPromiseError(f"{proof.stage} is not proven: {proof.findings[:3]}")
