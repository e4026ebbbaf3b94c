"""Proof: every stored chunk against its recorded checksum, and a sample of chunks computed again from their inputs.

The first finds what happened to the bytes since they were written (a truncated file, a flipped bit, a deleted object).
The second finds what happened to anything else: an edited input, another library, a machine that computes differently.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import PetasegError
from pipeline.grid import Chunk
from pipeline.lease import Lease
from pipeline.ledger import Ledger
from pipeline.run import Run
from pipeline.stages.base import Stage, checksum_of


@dataclass(frozen=True)
class Finding:
    """One chunk that is not what the ledger says."""

    stage: str
    chunk: Chunk
    problem: str


@dataclass(frozen=True)
class StageProof:
    """What was checked of one stage, and what was found."""

    stage: str
    chunks: int
    """Chunks of the stage."""
    done: int
    """Chunks recorded as done."""
    stored: int
    """Stored chunks whose checksum was compared."""
    recomputed: int
    """Chunks that were computed again and compared."""
    findings: tuple[Finding, ...]

    @property
    def proven(self) -> bool:
        """True if all chunks are done and none differs."""
        return self.done == self.chunks and not self.findings


def verify_run(
    run: Run,
    sample: int | None = 5,
    *,
    stages: Sequence[str] | None = None,
    seed: int = 0,
    on_chunk: Callable[[str], None] | None = None,
) -> Iterator[StageProof]:
    """Check the stages of a run one after another; ``sample`` chunks of each are recomputed, all of them if None."""
    names = stages or [stage.name for stage in run.stages]
    for name in names:
        stage = run.stage(name)
        ledger = run.ledger(stage, read_only=True)
        yield verify_stage(stage, ledger, sample, seed, on_chunk or (lambda _: None))


def verify_stage(
    stage: Stage, ledger: Ledger, sample: int | None, seed: int, on_chunk: Callable[[str], None]
) -> StageProof:
    """Check one stage; nothing is written."""
    done = [(chunk, ledger.checksum(chunk)) for grid in stage.grids() for chunk in grid if ledger.is_done(chunk)]
    chosen = done if sample is None else random.Random(seed).sample(done, min(sample, len(done)))
    findings = []
    for chunk, checksum in done:
        findings += _compare(stage, chunk, checksum, "stored", lambda c: checksum_of(stage.load(c)))
        on_chunk(stage.name)
    for chunk, checksum in chosen:
        findings += _compare(stage, chunk, checksum, "recomputed", lambda c: recompute(stage, c))
        on_chunk(stage.name)
    total = sum(len(grid) for grid in stage.grids())
    return StageProof(stage.name, total, len(done), len(done), len(chosen), tuple(findings))


def recompute(stage: Stage, chunk: Chunk) -> str:
    """The checksum of a chunk computed again; nothing is written."""
    inputs = stage.read(chunk)
    with stage.compute_slot():
        products, _ = stage.compute(chunk, inputs)
    return checksum_of(products)


def repair(run: Run, findings: Sequence[Finding]) -> None:
    """Forget the done marks of the chunks found wrong, so that the next run computes them (and only them) again."""
    with Lease(run.store, seconds=run.config.execution.lease_seconds):
        for name in {finding.stage for finding in findings}:
            ledger = run.ledger(run.stage(name))
            for finding in findings:
                if finding.stage == name:
                    ledger.forget(finding.chunk)
            ledger.close()


def _compare(stage: Stage, chunk: Chunk, expected: str, what: str, measure: Callable[[Chunk], str]) -> list[Finding]:
    try:
        found = measure(chunk)
    except (PetasegError, OSError, ValueError, KeyError) as error:
        return [Finding(stage.name, chunk, f"{what} bytes cannot be read: {type(error).__name__}: {error}")]
    if found == expected:
        return []
    return [Finding(stage.name, chunk, f"{what} bytes have checksum {found[:12]}, the ledger says {expected[:12]}")]
