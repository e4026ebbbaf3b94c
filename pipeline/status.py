"""The state of a run as seen from outside: how much of each stage is done, and what failed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.run import Run


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
    attempts: int
    errors: tuple[str, ...]
    """Chunk and first error of each chunk that was set aside."""
    outdated: bool
    """True if what is stored was made under another configuration, and is computed again by the next run."""

    @property
    def complete(self) -> bool:
        """True if every chunk is done."""
        return self.done == self.total

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "complete": self.complete}


def read_status(run: Run) -> list[StageStatus]:
    """The state of every stage, from the ledger alone; works while another process runs, and after it died."""
    return [_read_stage(run, stage.name) for stage in run.stages]


def _read_stage(run: Run, name: str) -> StageStatus:
    stage = run.stage(name)
    ledger = run.ledger(stage, read_only=True)
    summary = ledger.summary()
    failed = ledger.quarantined()
    return StageStatus(
        name=name,
        total=sum(len(grid) for grid in stage.grids()),
        done=summary.done,
        failed=len(failed),
        seconds=summary.seconds,
        voxels=summary.voxels,
        attempts=summary.attempts,
        errors=tuple(f"{failure.chunk_name}: {failure.error}" for failure in failed),
        outdated=ledger.other_fingerprint,
    )
