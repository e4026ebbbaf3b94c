"""What a run has cost, and will cost: hours of chunks, workers, CPU cores and GPUs, and money.

    spent      seconds of the chunks that are done, from the ledger, times the part of a worker that a chunk holds
    left       chunks that are missing, times the mean of those that are done on the same level of the same stage
    interval   90 %, from the means of runs of neighbouring chunks (which resemble each other): that much the mean of
               those that are done may be off, and that of the missing ones too

Not counted: workers that wait, attempts that failed, chunks that were computed again after a crash, the driver.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from pipeline.config.cluster import Prices
from pipeline.config.run_file import RunConfig
from pipeline.grid import ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.runs.outline import StageOutline
from pipeline.storage import ObjectStore

COVERAGE = 0.9
BATCHES = 20
"""Runs of neighbouring chunks whose means tell how well the mean of all is known."""
FACTOR = 2.0
"""A single chunk says nothing about the spread: what follows from it alone may be wrong by this factor."""
PLAN_KEY = "plan.json"


@dataclass(frozen=True)
class Estimate:
    """A figure with an interval: how far it may be off, downwards and upwards."""

    value: float = 0.0
    chance: tuple[float, float] = (0.0, 0.0)
    """By chance: in a sum, independent deviations add up as squares."""
    ignorance: tuple[float, float] = (0.0, 0.0)
    """Where hardly anything was measured: in a sum these may all go the same way."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return max(0.0, self.value - self.chance[0] - self.ignorance[0])

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.chance[1] + self.ignorance[1]

    def __add__(self, other: Estimate) -> Estimate:
        (a, b), (c, d) = self.chance, other.chance
        (e, f), (g, h) = self.ignorance, other.ignorance
        return Estimate(self.value + other.value, (math.hypot(a, c), math.hypot(b, d)), (e + g, f + h))

    def __mul__(self, factor: float) -> Estimate:
        (a, b), (e, f) = self.chance, self.ignorance
        return Estimate(self.value * factor, (a * factor, b * factor), (e * factor, f * factor))


@dataclass(frozen=True)
class WorkerShare:
    """The part of a worker that one chunk holds while it runs."""

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
    """Hours of those that are missing; None if nothing is known about them."""
    share: WorkerShare


UNITS: dict[str, Callable[[WorkerShare], float]] = {
    "chunk_hours": lambda share: 1.0,
    "worker_hours": lambda share: share.workers,
    "cpu_hours": lambda share: share.cores,
    "gpu_hours": lambda share: share.gpus,
}
"""What an hour of a chunk counts in each unit."""


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
        """Stages that no forecast can be made for yet: it is then the least that the run will cost."""
        return tuple(stage.name for stage in self.stages if stage.left is None)

    def units(self) -> dict[str, Callable[[WorkerShare], float]]:
        """Everything that can be told; ``money`` only with prices."""
        return {**UNITS, "money": lambda share: share.money(self.prices)} if self.priced else UNITS

    def spent(self, unit: Callable[[WorkerShare], float]) -> float:
        """What the chunks that are done have cost."""
        return sum(stage.spent * unit(stage.share) for stage in self.stages)

    def total(self, unit: Callable[[WorkerShare], float]) -> Estimate:
        """What the whole run will have cost, without the stages that are ``unknown``."""
        left = (stage.left * unit(stage.share) for stage in self.stages if stage.left is not None)
        return reduce(Estimate.__add__, left, Estimate(self.spent(unit)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: each unit with what is spent and the forecast of the whole run."""
        result: dict[str, Any] = {"currency": self.prices.currency, "coverage": COVERAGE, "unknown": list(self.unknown)}
        for name, unit in self.units().items():
            total = self.total(unit)
            result[name] = {"spent": self.spent(unit), "total": total.value, "low": total.low, "high": total.high}
        return result


def stage_hours(stage: StageOutline, ledger: Ledger, share: WorkerShare, seconds_per_voxel: float | None) -> StageHours:
    """What the chunks of a stage took, and what the missing ones will take.

    seconds_per_voxel: measured by ``petaseg plan`` on a sample; used while no chunk of the stage is done.
    """
    spent = sum(float(ledger.chunk_seconds(grid).sum(dtype=np.float64)) for grid in stage.grids)
    left = _left(stage, ledger, seconds_per_voxel)
    return StageHours(stage.name, spent / 3600, None if left is None else left * (1 / 3600), share)


def _left(stage: StageOutline, ledger: Ledger, seconds_per_voxel: float | None) -> Estimate | None:
    """Seconds of the missing chunks, level by level; a level without any done is judged by the one below."""
    total, below = Estimate(), sample_seconds(stage.grids[0], seconds_per_voxel)
    for grid in stage.grids:
        seconds = ledger.chunk_seconds(grid)
        missing = len(grid) - len(seconds)
        if len(seconds) > 1:
            total += forecast(seconds, missing)
        elif missing:
            one = float(seconds[0]) if len(seconds) else below
            if one is None:
                return None
            total += rough(missing * one)
        below = float(seconds.mean()) if len(seconds) else below
    return total


def forecast(seconds: np.ndarray, missing: int) -> Estimate:
    """The sum over so many missing chunks, from the seconds of those that are done, (n > 1,), in grid order."""
    if not missing:
        return Estimate()
    from scipy.special import stdtrit

    batches = [float(part.mean()) for part in np.array_split(seconds.astype(np.float64), min(BATCHES, len(seconds)))]
    of_mean = float(np.var(batches, ddof=1)) / len(batches)
    of_missing = of_mean * len(seconds) / missing
    mean = float(seconds.mean(dtype=np.float64))
    half = float(stdtrit(len(batches) - 1, (1 + COVERAGE) / 2)) * math.sqrt(of_mean + of_missing)
    return Estimate(missing * mean, (missing * half, missing * half))


def rough(value: float) -> Estimate:
    """A figure that rests on one chunk, or on chunks of another kind."""
    return Estimate(value, ignorance=(value - value / FACTOR, value * FACTOR - value))


def share_of(config: RunConfig, cluster: str | None, stage: StageOutline) -> WorkerShare:
    """What a chunk holds: its part of a cluster's worker, or, on one machine, a core and its part of the one GPU.

    On a cluster a worker's GPU is paid for as long as the worker runs, whether the stage uses it or not.
    """
    execution = config.execution
    if cluster is not None:
        shape = (stage.network and config.cluster.inference_workers) or config.cluster.workers
        return WorkerShare(1 / shape.threads, shape.cpus / shape.threads, shape.gpus / shape.threads)
    threads = {"serial": 1, "threads": execution.workers, "dask": execution.threads_per_worker}[execution.executor]
    slots = threads if execution.executor != "dask" else threads * execution.workers
    return WorkerShare(1 / threads, 1.0, stage.gpus / slots)


def sample_seconds(grid: ChunkGrid, seconds_per_voxel: float | None) -> float | None:
    """Seconds of a chunk of a grid, as measured on a sample."""
    return None if seconds_per_voxel is None else seconds_per_voxel * grid.roi.voxels / len(grid)


def write_rates(store: ObjectStore, seconds_per_voxel: dict[str, float]) -> None:
    """Keep in a run directory what ``petaseg plan`` measured, by stage."""
    store.put(PLAN_KEY, json.dumps({"seconds_per_voxel": seconds_per_voxel}, indent=1).encode())


def read_rates(store: ObjectStore) -> dict[str, float]:
    """Seconds for each voxel by stage, as measured by ``petaseg plan --keep``; empty if it was not."""
    data = store.get_or_none(PLAN_KEY)
    return {} if data is None else {name: float(s) for name, s in json.loads(data)["seconds_per_voxel"].items()}
