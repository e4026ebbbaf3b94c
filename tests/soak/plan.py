"""The plan that a seed decides: the chunk shape, the executor, and the faults in each life of the run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

from tests.soak.references import FLAVOURS, SHAPE, Flavour

SIDES = [sorted({side, *(ceil(side / n) for n in (1, 2, 3)), side // 2 + 1}) for side in SHAPE]
SHAPES = [shape for shape in product(*SIDES) if 4 <= prod(map(ceil, (a / b for a, b in zip(SHAPE, shape)))) <= 12]
"""Shapes that make 4 to 12 chunks."""
MOST_LIVES = 3


@dataclass(frozen=True)
class Death:
    """The storage operation, counted from 1, at which a process kills itself."""

    operation: int
    how: str
    """"before" it, "after" it, or in the "middle": half of a line, or a file that has not got its name yet."""


@dataclass(frozen=True)
class Life:
    """One ``petaseg run`` from begin to end, with its faults."""

    overrides: tuple[str, ...] = ()
    death: Death | None = None
    """The death of the driver."""
    killed_after: float | None = None
    """Seconds after which the driver is killed from outside."""
    file_limit: int | None = None
    """The largest file that the driver may write, in bytes."""
    room: int | None = None
    """Bytes that fit on the disk besides what is there already."""
    read_only_after: float | None = None
    """Seconds after which the disk is read-only."""
    worker_deaths: tuple[Death, ...] = ()
    """The deaths of the first workers of the cluster, in turn."""
    workers_killed_after: tuple[float, ...] = ()
    """Seconds after which some worker is killed from outside."""


@dataclass(frozen=True)
class Plan:
    """All lives of a run."""

    seed: int
    flavour: Flavour
    chunk_shape: tuple[int, int, int]
    execution: dict[str, Any]
    workers: int
    """Number of workers of the forked Dask cluster; 0 without one."""
    lives: tuple[Life, ...]


def plan_of(seed: int, *, can_mount: bool) -> Plan:
    """Everything that a seed decides."""
    dice = random.Random(seed)
    flavour = dice.choice(FLAVOURS)
    kind = dice.choice(["serial", "threads", "threads", "cluster", "cluster", "own workers"])
    if kind == "own workers" and dice.random() < 0.8:  # such workers take seconds to start
        kind = "threads"
    workers = dice.randint(1, 3) if kind == "cluster" else 0
    execution: dict[str, Any] = {"attempts": 5, "backoff_seconds": 0, "max_in_flight": dice.choice([None, 1, 2, 5])}
    execution["executor"] = {"cluster": "dask", "own workers": "dask"}.get(kind, kind)
    execution["workers"] = dice.randint(2, 4) if kind == "threads" else 2
    lives = tuple(_life(dice, workers, kind, can_mount, flavour) for _ in range(dice.randint(1, MOST_LIVES)))
    return Plan(seed, flavour, dice.choice(SHAPES), execution, workers, lives)


def _life(dice: random.Random, workers: int, kind: str, can_mount: bool, flavour: Flavour) -> Life:
    slow = 6.0 if kind == "own workers" else 1.5 if kind == "cluster" else 1.0
    overrides = (flavour.other,) if dice.random() < 0.15 else ()
    trouble: dict[str, Any] = {}
    what = dice.choice(["death", "death", "kill", "kill", "kill", "limit", "full", "read-only"])
    if what in ("full", "read-only") and not can_mount:
        what = "limit"
    if what == "death":
        trouble["death"] = _death(dice, 120)
    elif what == "kill":
        trouble["killed_after"] = dice.uniform(0, slow)
    elif what == "limit":
        trouble["file_limit"] = dice.randrange(200, 12_000)
    elif what == "full":
        trouble["room"] = dice.randrange(0, 1 << 20)
    else:
        trouble["read_only_after"] = dice.uniform(0, slow)
    if workers and dice.random() < 0.7:
        trouble["worker_deaths"] = tuple(_death(dice, 60) for _ in range(dice.randint(0, 2)))
        trouble["workers_killed_after"] = tuple(dice.uniform(0, slow) for _ in range(dice.randint(0, 2)))
    return Life(overrides, **trouble)


def _death(dice: random.Random, operations: int) -> Death:
    return Death(dice.randint(1, operations), dice.choice(["before", "middle", "after"]))
