"""The outline of a run: the facts that commands from outside need. The driver writes it into the run directory.

A stage's fingerprint depends on the image, the weights and the machine's arithmetic. A laptop that shows the state of a
run on a cluster has none of these, so it reads the fingerprints from ``stages.json``.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pipeline.config.reading import parse_config
from pipeline.config.run_file import RunConfig
from pipeline.config.strict_yaml import parse_yaml
from pipeline.errors import CorruptError, LedgerError
from pipeline.formats import OUTLINE, RUN_FILE
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.runs.applied import Threshold
from pipeline.stages.base import Stage
from pipeline.storage import ObjectStore

KEY = "stages.json"


@dataclass(frozen=True)
class StageOutline:
    """The facts about a stage by which its ledger is opened and its cost computed."""

    name: str
    fingerprint: str
    grids: tuple[ChunkGrid, ...]
    gpus: int
    """GPUs that a chunk uses: 0 or 1."""
    network: bool
    """True if a chunk runs the network, and so goes to the pool of workers for it."""
    volumes: tuple[str, ...] = ()
    """Names of the volumes in the run directory that the stage writes."""

    @classmethod
    def of(cls, stage: Stage) -> StageOutline:
        """The outline of a stage."""
        needs, grids = stage.needs(), tuple(stage.grids())
        return cls(stage.name, stage.fingerprint, grids, needs.gpus, needs.network, stage.volume_names())

    @property
    def total(self) -> int:
        """Chunks on all levels."""
        return sum(len(grid) for grid in self.grids)


@dataclass(frozen=True)
class RunOutline:
    """A run as seen from outside: only its run directory is read."""

    url: str
    command: str
    """The command that continues the run."""
    config: RunConfig
    stages: tuple[StageOutline, ...]
    cluster: str | None = None
    """The cluster whose workers process the chunks, if the driver uses one."""
    threshold: Threshold | None = None
    """The threshold of the labels; ``None`` in an outline of before it was noted."""
    precision: str = ""
    """The precision that was measured, in words; empty unless the run file leaves it to a measurement."""

    @property
    def volumes(self) -> set[str]:
        """Names, in the run directory, of the volumes that its stages write."""
        return {f"{name}.zarr" for stage in self.stages for name in stage.volumes}

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
        plain: dict[str, Any] = {**OUTLINE.stamp, "command": self.command, "cluster": self.cluster, "stages": stages}
        plain |= {} if self.threshold is None else {"threshold": asdict(self.threshold)}
        plain |= {"precision": self.precision} if self.precision else {}
        self.store.put(KEY, json.dumps(plain, indent=1).encode())


def read_outline(store: ObjectStore) -> RunOutline | None:
    """The outline in a run directory; ``None`` if no driver has begun there.

    Raises ``LedgerError`` if a newer petaseg has written it, and ``CorruptError`` if it is damaged.
    """
    stages, run_file = store.get_or_none(KEY), store.get_or_none("run.yaml")
    if stages is None or run_file is None:
        return None
    try:
        data, table = json.loads(stages), parse_yaml(run_file, f"{store.url}/run.yaml")
        OUTLINE.check(data, f"{store.url}/{KEY}", LedgerError)
        RUN_FILE.check(table, f"{store.url}/run.yaml", LedgerError)
        config: RunConfig = parse_config(table, source=f"{store.url}/run.yaml")
        threshold = Threshold(**data["threshold"]) if data.get("threshold") else None
        found = tuple(map(_stage, data["stages"]))
        precision = data.get("precision", "")
        return RunOutline(store.url, data["command"], config, found, data["cluster"], threshold, precision)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{store.url}/{KEY} or run.yaml beside it cannot be read ({error}); the next `petaseg run` writes both anew"
        ) from error


def refuse_newer(store: ObjectStore) -> None:
    """Raise ``LedgerError`` if a newer petaseg wrote what is to be written anew; a damaged file is no obstacle."""
    for key, kind in ((KEY, OUTLINE), ("run.yaml", RUN_FILE)):
        data = store.get_or_none(key)
        with suppress(ValueError, TypeError):
            kind.check(parse_yaml(data or b"{}", key), f"{store.url}/{key}", LedgerError)


def _stage(data: dict[str, Any]) -> StageOutline:
    grids = tuple(map(_parse_grid, data["grids"]))
    return StageOutline(data["name"], data["fingerprint"], grids, data["gpus"], data["network"], _names(data))


def _grid(grid: ChunkGrid) -> dict[str, Any]:
    """A grid as plain values, without its halo, which no record depends on."""
    boxes = {name: [box.start, box.stop] for name, box in (("bounds", grid.bounds), ("roi", grid.roi))}
    return {**boxes, "shape": grid.shape, "level": grid.level}


def _names(stage: dict[str, Any]) -> tuple[str, ...]:
    """The volumes of a stage; the next `petaseg run` writes down those that an outline of before lacks."""
    return tuple(stage.get("volumes", ()))


def _parse_grid(data: dict[str, Any]) -> ChunkGrid:
    z, y, x = data["shape"]
    return ChunkGrid(BoundingBox(*data["bounds"]), BoundingBox(*data["roi"]), Vec(z, y, x), level=data["level"])
