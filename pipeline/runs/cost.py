"""The cost of a run so far and in all: hours of chunks, workers, CPU cores and GPUs, and money.

    spent      seconds of the chunks that are done, from the ledger, times the part of a worker that a chunk uses
    left       missing chunks, times the mean of done chunks on the same level of the same stage
    interval   90 %, from the means of batches of neighbouring chunks (which resemble each other): the errors
               of the means of done and of missing chunks

Idle workers, failed attempts, chunks that were computed again after a crash, and the driver are not counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from pipeline.config.cluster import Prices
from pipeline.config.run_file import RunConfig
from pipeline.errors import CorruptError, LedgerError
from pipeline.execution import engine_of
from pipeline.formats import RATES
from pipeline.grid import ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.pace import Level
from pipeline.runs.outline import StageOutline
from pipeline.runs.workers import shape_of
from pipeline.storage import ObjectStore

COVERAGE = 0.9
BATCHES = 20
"""The number of batches of neighbouring chunks, whose means give the error of the mean of all."""
FACTOR = 2.0
"""A forecast from a single chunk, which shows no spread, may be wrong by this factor."""
PLAN_KEY = "plan.json"


@dataclass(frozen=True)
class Estimate:
    """A figure, with its possible errors downwards and upwards."""

    value: float = 0.0
    random_error: tuple[float, float] = (0.0, 0.0)
    """Independent errors, so that their squares add up in a sum."""
    common_error: tuple[float, float] = (0.0, 0.0)
    """Errors of figures that were not measured: they may all have the same sign, so that they add up in a sum."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return max(0.0, self.value - self.random_error[0] - self.common_error[0])

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.random_error[1] + self.common_error[1]

    def __add__(self, other: Estimate) -> Estimate:
        (low, high), (other_low, other_high) = self.random_error, other.random_error
        random_error = math.hypot(low, other_low), math.hypot(high, other_high)
        (low, high), (other_low, other_high) = self.common_error, other.common_error
        return Estimate(self.value + other.value, random_error, (low + other_low, high + other_high))

    def __mul__(self, factor: float) -> Estimate:
        (low, high), (common_low, common_high) = self.random_error, self.common_error
        return Estimate(self.value * factor, (low * factor, high * factor), (common_low * factor, common_high * factor))


@dataclass(frozen=True)
class WorkerShare:
    """The part of a worker that one chunk uses while it runs."""

    workers: float = 1.0
    cores: float = 1.0
    gpus: float = 0.0

    def money(self, prices: Prices) -> float:
        """The price of an hour."""
        return self.cores * prices.cpu_hour + self.gpus * prices.gpu_hour


@dataclass(frozen=True)
class StageHours:
    """Hours of one stage's chunks."""

    name: str
    spent: float
    """Hours of the chunks that are done."""
    left: Estimate | None
    """Hours of the missing chunks; None if no forecast can be made."""
    share: WorkerShare


UNITS: dict[str, Callable[[WorkerShare], float]] = {
    "chunk_hours": lambda share: 1.0,
    "worker_hours": lambda share: share.workers,
    "cpu_hours": lambda share: share.cores,
    "gpu_hours": lambda share: share.gpus,
}
"""The factor of an hour of a chunk in each unit."""


@dataclass(frozen=True)
class RunCost:
    """Hours and money of a run, stage by stage; sums are made here."""

    stages: tuple[StageHours, ...]
    prices: Prices

    @property
    def priced(self) -> bool:
        """True if the run file has prices."""
        return self.prices.cpu_hour > 0 or self.prices.gpu_hour > 0

    @property
    def unknown(self) -> tuple[str, ...]:
        """Stages without a forecast yet, so that the forecast of the run is a lower bound."""
        return tuple(stage.name for stage in self.stages if stage.left is None)

    def units(self) -> dict[str, Callable[[WorkerShare], float]]:
        """All units; ``money`` only with prices."""
        return {**UNITS, "money": lambda share: share.money(self.prices)} if self.priced else UNITS

    def spent(self, unit: Callable[[WorkerShare], float]) -> float:
        """The cost of the chunks that are done."""
        return sum(stage.spent * unit(stage.share) for stage in self.stages)

    def total(self, unit: Callable[[WorkerShare], float]) -> Estimate:
        """The cost of the whole run, without the stages that are ``unknown``."""
        left = (stage.left * unit(stage.share) for stage in self.stages if stage.left is not None)
        return reduce(Estimate.__add__, left, Estimate(self.spent(unit)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: for each unit the cost so far and the forecast of the whole run."""
        result: dict[str, Any] = {"currency": self.prices.currency, "coverage": COVERAGE, "unknown": list(self.unknown)}
        for name, unit in self.units().items():
            total = self.total(unit)
            result[name] = {"spent": self.spent(unit), "total": total.value, "low": total.low, "high": total.high}
        return result


def stage_hours(stage: StageOutline, ledger: Ledger, share: WorkerShare, seconds_per_voxel: float | None) -> StageHours:
    """The hours of a stage's chunks that are done, and a forecast for those that are missing.

    seconds_per_voxel: measured by ``petaseg plan`` on a sample; used while no chunk of the stage is done.
    """
    spent = sum(float(ledger.chunk_seconds(grid).sum(dtype=np.float64)) for grid in stage.grids)
    left = _left(stage, ledger, seconds_per_voxel)
    return StageHours(stage.name, spent / 3600, None if left is None else left * (1 / 3600), share)


def _left(stage: StageOutline, ledger: Ledger, seconds_per_voxel: float | None) -> Estimate | None:
    """Seconds of the missing chunks; ``None`` if those of a level are not known."""
    total = Estimate()
    for grid, level in zip(stage.grids, levels_of(stage, ledger, seconds_per_voxel), strict=True):
        if level.done > 1:
            total += forecast(ledger.chunk_seconds(grid), level.missing)
        elif level.missing:
            if level.seconds is None:
                return None
            total += unmeasured(level.missing * level.seconds)
    return total


def levels_of(stage: StageOutline, ledger: Ledger, seconds_per_voxel: float | None) -> list[Level]:
    """The levels of a stage in the order in which they run, with the mean seconds of the chunks that are done.

    A level without a done chunk takes the mean of the level before it, and the first one the measured sample.
    """
    known, levels = sample_seconds(stage.grids, seconds_per_voxel), []
    for grid in stage.grids:
        seconds = ledger.chunk_seconds(grid)
        known = float(seconds.mean(dtype=np.float64)) if len(seconds) else known
        levels.append(Level(len(seconds), len(grid) - len(seconds), known))
    return levels


def forecast(seconds: np.ndarray, missing: int) -> Estimate:
    """The sum over ``missing`` chunks, from the seconds of those that are done, (n > 1,), in grid order."""
    if not missing:
        return Estimate()
    from scipy.special import stdtrit

    batches = [float(part.mean()) for part in np.array_split(seconds.astype(np.float64), min(BATCHES, len(seconds)))]
    of_mean = float(np.var(batches, ddof=1)) / len(batches)
    of_missing = of_mean * len(seconds) / missing
    mean = float(seconds.mean(dtype=np.float64))
    half = float(stdtrit(len(batches) - 1, (1 + COVERAGE) / 2)) * math.sqrt(of_mean + of_missing)
    return Estimate(missing * mean, (missing * half, missing * half))


def unmeasured(value: float) -> Estimate:
    """A figure that is estimated from one chunk, or from chunks of another kind."""
    return Estimate(value, common_error=(value - value / FACTOR, value * FACTOR - value))


def share_of(config: RunConfig, cluster: str | None, stage: StageOutline) -> WorkerShare:
    """The share of a chunk: its part of a cluster's worker, or, on one machine, a core and its part of the one GPU.

    On a cluster a worker's GPU is paid for as long as the worker runs, whether the stage uses it or not.
    """
    execution = config.execution
    if cluster is not None:
        shape = shape_of(config, network=stage.network)
        return WorkerShare(1 / shape.threads, shape.cpus / shape.threads, shape.gpus / shape.threads)
    engine = engine_of(execution.executor)
    return WorkerShare(1 / engine.slots_of_process(execution), 1.0, stage.gpus / engine.slots(execution))


def sample_seconds(grids: Sequence[ChunkGrid], seconds_per_voxel: float | None) -> float | None:
    """Seconds of a chunk of a stage's finest grid, as measured on a sample; nodes above it are taken to be alike."""
    grid = min(grids, key=lambda grid: grid.level)
    return None if seconds_per_voxel is None else seconds_per_voxel * grid.roi.voxels / len(grid)


def write_rates(store: ObjectStore, seconds_per_voxel: dict[str, float]) -> None:
    """Store the rates that ``petaseg plan`` measured in a run directory, by stage."""
    store.put(PLAN_KEY, json.dumps({**RATES.stamp, "seconds_per_voxel": seconds_per_voxel}, indent=1).encode())


def read_rates(store: ObjectStore) -> dict[str, float]:
    """Seconds for each voxel by stage, as measured by ``petaseg plan --keep``; empty if it was not run."""
    data = store.get_or_none(PLAN_KEY)
    if data is None:
        return {}
    place = f"{store.url}/{PLAN_KEY}"
    try:
        plain = json.loads(data)
        RATES.check(plain, place, LedgerError)
        return {name: float(seconds) for name, seconds in plain["seconds_per_voxel"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptError(f"{place} is damaged ({error}); `petaseg plan --keep` writes it anew") from error
