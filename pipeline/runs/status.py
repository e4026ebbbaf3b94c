"""The state of a run as seen from outside: chunks done and failed of each stage, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.config.reading import read_config
from pipeline.config.run_file import RunConfig
from pipeline.errors import CorruptError
from pipeline.ledger.ledger import Ledger
from pipeline.runs.applied import Threshold
from pipeline.runs.cost import RunCost, levels_of, read_rates, share_of, stage_hours
from pipeline.runs.lease import DriverState, LeaseRecord, read_lease
from pipeline.runs.outline import RunOutline, StageOutline, read_outline
from pipeline.runs.workers import slots_of
from pipeline.storage import ObjectStore, absolute, local_path, parent_of

if TYPE_CHECKING:  # it imports torch and numba, which are not needed to read a run directory
    from pipeline.runs.run import Run


@dataclass(frozen=True)
class StageStatus:
    """Progress of one stage under its present fingerprint."""

    name: str
    total: int
    done: int
    failed: int
    seconds: float
    """Sum of the seconds of all chunks."""
    voxels: int
    bytes_written: int
    """Bytes of the products, before compression."""
    attempts: int
    errors: tuple[str, ...]
    """Chunk and first error of each chunk that was set aside."""
    notes: tuple[str, ...]
    """Other events: avoided nodes, chunks that ran out of memory; the newest last."""
    outdated: bool
    """True if the stored chunks belong to another configuration, so that the next run computes them again."""
    voxels_per_second: float
    """Voxels per second over the last minute."""
    seconds_left: float | None
    """Seconds of work left in this stage, on the workers that it can use; None if not known yet, or if no driver works.
    """
    last: float | None
    """Unix time of the latest chunk, by the driver's clock; None if the ledger no longer holds it."""
    counters: dict[str, float]
    """Sums of the numbers that a stage counts, for example patches run and skipped."""

    @property
    def complete(self) -> bool:
        """True if every chunk is done."""
        return self.done == self.total

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "complete": self.complete}


@dataclass(frozen=True)
class RunStatus:
    """Progress and cost of a whole run."""

    url: str
    command: str
    """The command that continues the run."""
    stages: tuple[StageStatus, ...]
    cost: RunCost
    lease: LeaseRecord | None
    """The lease of the run's driver; None if there never was one."""
    driver: DriverState | None
    """What this machine knows about that driver."""
    threshold: Threshold | None = None
    """The threshold of the labels, and where it comes from; None in a run directory of an earlier petaseg."""
    precision: str = ""
    """The precision that was measured, in words; empty unless the run file leaves it to a measurement."""

    @property
    def complete(self) -> bool:
        """True if every chunk of every stage is done."""
        return all(stage.complete for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        stages = [stage.as_dict() for stage in self.stages]
        driver = None if self.lease is None else {**asdict(self.lease), "state": self.driver}
        threshold = None if self.threshold is None else asdict(self.threshold)
        head = {"run": self.url, "complete": self.complete, "driver": driver, "threshold": threshold}
        head |= {"precision": self.precision} if self.precision else {}
        return {**head, "stages": stages, "cost": self.cost.as_dict()}


class RunWatch:
    """Reads the state of a run repeatedly; of its ledgers it reads only new records.

    A new configuration in the run directory is noticed. Memory: 29 bytes for each chunk.
    """

    def __init__(self, outline: RunOutline) -> None:
        self.outline = outline
        self._ledgers: dict[str, Ledger] = {}
        self._beat = ""
        self._heard = 0.0
        """When the driver's beat changed between two readings, by this machine's clock."""

    def read(self) -> RunStatus:
        """The state now."""
        now, rates, config = time.time(), read_rates(self.outline.store), self.outline.config
        driven, lease = self._driven(), read_lease(self.outline.store)
        driver = self._driver(lease, driven.config.execution.lease_seconds, now)
        began = lease.holder.started if lease is not None and driver == "working" else None
        states, hours = [], []
        for stage in self.outline.stages:
            ledger, rate = self.ledger(stage), rates.get(stage.name)
            share = share_of(driven.config, driven.cluster, stage)
            hours.append(stage_hours(stage, ledger, share, rate))
            left = None
            if began is not None:
                slots = slots_of(driven.config, driven.cluster, network=stage.network)
                left = ledger.pace.seconds_left(levels_of(stage, ledger, rate), slots, now, began)
            states.append(_stage_status(stage, ledger, now, left))
            if began is not None:  # the next stage begins when this one ends
                began = max(began, ledger.pace.last) if states[-1].complete else now
        return RunStatus(
            url=self.outline.url,
            command=self.outline.command,
            stages=tuple(states),
            cost=RunCost(tuple(hours), config.cluster.prices),
            lease=lease,
            driver=driver,
            threshold=self.outline.threshold,
            precision=self.outline.precision,
        )

    def _driver(self, lease: LeaseRecord | None, lease_seconds: float, now: float) -> DriverState | None:
        if lease is None:
            return None
        if self._beat and lease.beat != self._beat:
            self._heard = now
        self._beat = lease.beat
        return lease.state(now, lease_seconds, self._heard)

    def _driven(self) -> RunOutline:
        """The run as its last driver was started, whose workers the records come from: also if a run file is named that
        has changed since, or without the options of that driver. Before the first driver: as the run file says.
        """
        try:
            last = read_outline(self.outline.store)
            return last or replace(self.outline, cluster=self.outline.config.cluster.kind)
        except CorruptError:  # `petaseg run` writes it anew
            return self.outline

    def follow(self) -> RunStatus:
        """The state now, under the configuration that the run directory holds now."""
        outline = read_outline(self.outline.store)
        if outline is not None and outline != self.outline:
            self.outline, self._ledgers = outline, {}
        return self.read()

    def ledger(self, stage: StageOutline) -> Ledger:
        """The records of a stage, with what has come since the last reading."""
        known = self._ledgers.get(stage.name)
        if known is not None and known.refresh():
            return known
        ledger = self._ledgers[stage.name] = self.outline.ledger(stage)
        if known is not None:  # its log was compacted, and arrays hold no times
            ledger.pace.go_on_from(known.pace)
        return ledger


def read_status(run: Run | RunOutline) -> list[StageStatus]:
    """The state of every stage, from the ledger alone; works while another process runs, and after it died."""
    return list(RunWatch(run if isinstance(run, RunOutline) else run.outline).read().stages)


def open_outline(path: str, overrides: Sequence[str] = ()) -> RunOutline:
    """The outline of a run, against which its records are compared.

    For a run file, or with overrides, it is made from the configuration as it would be run now. For a run directory
    (path or URL) it is that of the last driver, and only that directory is read.
    """
    if not overrides and (store := run_directory(path)) is not None:
        outline = read_outline(store)
        if outline is not None:
            return outline
    from pipeline.runs.run import Run

    return Run.open(path, overrides).outline


def find_run_directory(path: str, overrides: Sequence[str] = ()) -> ObjectStore:
    """The run directory of a run file or of a directory; nothing else is opened."""
    store = run_directory(path)
    if store is None:
        from pipeline.runs.run import run_file

        folder, key = run_file(path)
        source = absolute(f"{folder.url}/{key}", ".")
        config: RunConfig = read_config(folder.get(key), source, overrides)
        store = ObjectStore(absolute(config.run_directory, parent_of(source) or ""))
    return store


def run_directory(path: str) -> ObjectStore | None:
    """The run directory, if ``path`` (a path or URL) is one; else ``None``."""
    folder = local_path(path)
    named = folder.is_dir() if folder is not None else not path.endswith((".yaml", ".yml"))
    return ObjectStore(path) if named else None


def _stage_status(stage: StageOutline, ledger: Ledger, now: float, seconds_left: float | None) -> StageStatus:
    summary, failed = ledger.summary(), ledger.quarantined()
    return StageStatus(
        name=stage.name,
        total=stage.total,
        done=summary.done,
        failed=len(failed),
        seconds=summary.seconds,
        voxels=summary.voxels,
        bytes_written=summary.bytes_written,
        attempts=summary.attempts,
        errors=tuple(f"{failure.chunk_name}: {failure.error}" for failure in failed),
        notes=tuple(ledger.notes()),
        outdated=ledger.other_fingerprint,
        voxels_per_second=ledger.pace.voxels_per_second(now),
        seconds_left=seconds_left,
        last=ledger.pace.last or None,
        counters=summary.counters,
    )
