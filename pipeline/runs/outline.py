"""The outline of a run: all that a look from outside needs, written into the run directory by whoever drives it.

A stage's fingerprint depends on the image, the weights and the machine's arithmetic. A laptop that only looks at a
run on a cluster has none of these, so it does not work them out: it reads ``stages.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import yaml

from pipeline.config.reading import parse_config
from pipeline.config.run_file import RunConfig
from pipeline.errors import CorruptError
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.needs import Needs
from pipeline.storage import ObjectStore

KEY = "stages.json"


class StageLike(Protocol):
    """What the outline of a stage is taken from."""

    @property
    def name(self) -> str:
        """verb_noun."""
        ...

    @property
    def fingerprint(self) -> str:
        """What its marks count under."""
        ...

    def grids(self) -> Sequence[ChunkGrid]:
        """Its chunks."""
        ...

    def needs(self) -> Needs:
        """What a chunk needs."""
        ...

    def volume_names(self) -> tuple[str, ...]:
        """The volumes that it writes."""
        ...


@dataclass(frozen=True)
class StageOutline:
    """A stage as its ledger knows it."""

    name: str
    fingerprint: str
    grids: tuple[ChunkGrid, ...]
    gpus: int
    """GPUs that a chunk uses: 0 or 1."""
    network: bool
    """True if a chunk runs the network, and so goes to the workers that are there for it."""
    volumes: tuple[str, ...] = ()
    """Names of the volumes in the run directory that the stage writes."""

    @classmethod
    def of(cls, stage: StageLike) -> StageOutline:
        """The outline of a stage."""
        needs, grids = stage.needs(), tuple(stage.grids())
        return cls(stage.name, stage.fingerprint, grids, needs.gpus, needs.network, stage.volume_names())

    @property
    def total(self) -> int:
        """Chunks on all levels."""
        return sum(len(grid) for grid in self.grids)


@dataclass(frozen=True)
class RunOutline:
    """A run as seen from outside: reads its run directory and nothing else."""

    url: str
    command: str
    """The command that goes on with the run."""
    config: RunConfig
    stages: tuple[StageOutline, ...]
    cluster: str | None = None
    """The cluster whose workers process the chunks, if the driver uses one."""

    @cached_property
    def store(self) -> ObjectStore:
        """The run directory."""
        return ObjectStore(self.url)

    def ledger(self, stage: StageOutline) -> Ledger:
        """The records of a stage, for reading."""
        return Ledger(self.store, stage.name, stage.fingerprint, stage.grids, read_only=True)

    def write(self) -> None:
        """Store it in the run directory, beside ``run.yaml``."""
        stages = [{**vars(stage), "grids": [_grid(grid) for grid in stage.grids]} for stage in self.stages]
        plain = {"command": self.command, "cluster": self.cluster, "stages": stages}
        self.store.put(KEY, json.dumps(plain, indent=1).encode())


def read_outline(store: ObjectStore) -> RunOutline | None:
    """The outline in a run directory; ``None`` if no driver has begun there. ``CorruptError`` if it is damaged."""
    stages, run_file = store.get_or_none(KEY), store.get_or_none("run.yaml")
    if stages is None or run_file is None:
        return None
    try:
        data = json.loads(stages)
        table = yaml.safe_load(run_file)
        outlines = tuple(
            StageOutline(**{**stage, "grids": tuple(map(_parse_grid, stage["grids"])), "volumes": _names(stage)})
            for stage in data["stages"]
        )
        config: RunConfig = parse_config(table, source=f"{store.url}/run.yaml")
        return RunOutline(store.url, data["command"], config, outlines, data["cluster"])
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CorruptError(
            f"{store.url}/{KEY} or run.yaml beside it cannot be read ({error}); the next `petaseg run` writes both anew"
        ) from error


def _grid(grid: ChunkGrid) -> dict[str, Any]:
    """A grid without its halo, which no mark depends on."""
    boxes = {name: [box.start, box.stop] for name, box in (("bounds", grid.bounds), ("roi", grid.roi))}
    return {**boxes, "shape": grid.shape, "level": grid.level}


def _names(stage: dict[str, Any]) -> tuple[str, ...]:
    """The volumes of a stage; the next `petaseg run` writes down those that an outline of before lacks."""
    return tuple(stage.get("volumes", ()))


def _parse_grid(data: dict[str, Any]) -> ChunkGrid:
    z, y, x = data["shape"]
    return ChunkGrid(BoundingBox(*data["bounds"]), BoundingBox(*data["roi"]), Vec(z, y, x), level=data["level"])
