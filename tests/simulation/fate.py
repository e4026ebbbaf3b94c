"""The fate that a seed decides: the settings of a run, and what goes wrong in each of its lives."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from tests.simulation.executor import Pool
from tests.simulation.stages import Setting, chunks_of, levels
from tests.simulation.world import LATEST_REQUEST

COUNTS = ((1, 1, 1), (1, 1, 5), (2, 2, 3), (1, 5, 5), (3, 3, 3), (2, 4, 5))
"""Chunks along each axis; grids of 20 and more can stop early."""
SETTINGS = (Setting(1, 1), Setting(1, 2), Setting(2, 1))
FAULTS = ("fail", "fail", "config", "memory", "more memory", "kill")
"""The faults of chunks; more memory mends "memory"."""
MOST_LIVES = 6


@dataclass(frozen=True)
class Life:
    """One ``petaseg run`` from begin to end, and what goes wrong in it; by default nothing does."""

    setting: Setting
    begins_after: float = 0.0
    """Seconds since the end of the last life."""
    host: str = "here"
    dies_at: int | None = None
    """The storage operation at which the driver dies; ``how`` is explained at ``Process``."""
    how: str = "before"
    dies_after: float = float("inf")
    """Seconds after which the driver dies in any case."""
    cut_off_at: int | None = None
    """The storage operation at which the driver stands still, while the next life runs."""
    rival_at: int | None = None
    """The storage operation at which somebody starts a second driver, although the first is well."""
    interrupted_at: int | None = None
    """The event at which somebody types Ctrl-C."""
    unreliable: float = 0.0
    """Share of the driver's requests that fail."""
    room: int | None = None
    """Bytes that still fit on the disk."""
    read_only_after: float | None = None
    faults: Mapping[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """(stage, chunk) -> what goes wrong with it, and how many times."""
    pool: Pool = field(default_factory=Pool)
    attempts: int = 3

    @property
    def store_fails(self) -> bool:
        """True if the driver may be refused by the store."""
        return self.unreliable > 0 or self.room is not None or self.read_only_after is not None

    @property
    def chunks_fail(self) -> bool:
        """True if chunks may be set aside."""
        return bool(self.faults) or self.pool.trouble > 0 or self.pool.unreliable > 0 or self.pool.bad_node is not None


@dataclass(frozen=True)
class Fate:
    """All lives of a run; in the last one nothing goes wrong."""

    file_system: bool
    grid: ChunkGrid
    lives: tuple[Life, ...]
    constants: Mapping[str, Any]
    """Constants of ``pipeline.ledger.writer``, so small that rare events happen often in a short run."""


@cache
def grid_of(counts: tuple[int, int, int]) -> ChunkGrid:
    """A grid that does not begin at the origin."""
    start = (2, -3, 4)
    shape = (2, 3, 4)
    size = tuple(n * s for n, s in zip(counts, shape, strict=True))
    bounds = BoundingBox.from_shape(size, start)  # type: ignore[arg-type]
    return ChunkGrid(bounds, bounds, shape)


def draw(dice: random.Random) -> Fate:
    """Draw everything that is decided before a run begins."""
    grid = grid_of(dice.choice(COUNTS))
    lives = []
    setting = SETTINGS[0]
    for _ in range(dice.randint(1, MOST_LIVES)):
        lives.append(draw_life(dice, grid, setting))
        leaves_something = lives[-1].cut_off_at is not None or lives[-1].how == "late"
        setting = dice.choice(SETTINGS) if dice.random() < (0.5 if leaves_something else 0.1) else setting
    calm = Life(setting, begins_after=2 * LATEST_REQUEST, pool=Pool(workers=dice.randint(1, 4)))
    constants = {
        "FLUSH_RECORDS": dice.choice([3, 10, 5000]),
        "COMPACT_RECORDS": dice.choice([4, 1000]),
        "LONG_LOG": dice.choice([7, 20, 50_000]),
        "LONG_SEGMENTS": dice.choice([2, 5, 200]),
    }
    return Fate(dice.random() < 0.5, grid, (*lives, calm), constants)


def draw_life(dice: random.Random, grid: ChunkGrid, setting: Setting) -> Life:
    """Draw one life, with a random set of faults."""

    def sometimes(share: float, value: Any, otherwise: Any) -> Any:
        return value if dice.random() < share else otherwise

    def operation() -> int:
        return dice.randint(1, dice.choice([20, len(grid) + 20, 3 * len(grid) + 30]))

    workers, seconds = dice.randint(1, 5), dice.choice([0.01, 1.0, 30.0])
    span = len(grid) * seconds / workers
    return Life(
        setting,
        begins_after=dice.expovariate(0.2),
        host=dice.choice(["here", "there"]),
        dies_at=sometimes(0.5, operation(), None),
        how=dice.choice(["before", "after", "middle", "middle", "late", "late"]),
        cut_off_at=sometimes(0.2, operation(), None),
        rival_at=sometimes(0.1, operation(), None),
        dies_after=sometimes(0.25, dice.uniform(0, 3 * span), float("inf")),
        interrupted_at=sometimes(0.05, dice.randint(1, 2 * len(grid)), None),
        unreliable=sometimes(0.2, dice.choice([0.02, 0.1, 0.3]), 0.0),
        room=sometimes(0.1, dice.randrange(200 * len(grid)), None),
        read_only_after=sometimes(0.05, dice.uniform(0, span), None),
        faults=sometimes(0.3, draw_faults(dice, grid), {}),
        pool=draw_pool(dice, workers, seconds),
        attempts=dice.randint(1, 4),
    )


def draw_pool(dice: random.Random, workers: int, seconds: float) -> Pool:
    """Draw the workers, good and bad."""
    return Pool(
        workers,
        seconds,
        trouble=dice.choice([0.0, 0.0, 0.05, 0.3]),
        unreliable=dice.choice([0.0, 0.0, 0.0, 0.05]),
        bad_node=0 if workers > 1 and dice.random() < 0.1 else None,
        outlives=dice.random() < 0.5,
    )


def draw_faults(dice: random.Random, grid: ChunkGrid) -> dict[tuple[str, str], tuple[str, int]]:
    """Draw a few chunks that fail or, rarely, most of them."""
    stage = dice.choice(["paint_voxels", "gather_totals"])
    chunks = [chunk for level in (levels(grid) if stage == "gather_totals" else [grid]) for chunk in chunks_of(level)]
    many = len(chunks) if dice.random() < 0.1 else dice.randint(1, 3)
    return {
        (stage, chunk.name): (dice.choice(FAULTS), dice.choice([1, 2, 1000]))
        for chunk in dice.sample(chunks, min(many, len(chunks)))
    }
