"""Verification: every stored chunk is compared with its recorded checksum, and a sample of chunks is computed again.

The first check finds changes of bytes since they were written (a truncated file, a flipped bit, a deleted object). The
second finds other changes: an edited input, another library, a machine that computes differently. A third finds what
no chunk of the run has written: voxels outside of the region of interest, parts of chunks that are not in the grid. A
fourth makes the published tables again from the chunks, and finds those that are missing or hold other bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from pipeline.errors import PetasegError, WorkerEnvironmentError
from pipeline.grid import Chunk
from pipeline.ledger.ledger import Ledger
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.stages.base import Stage, checksum_of
from pipeline.storage import ObjectStore

NAMED_STRAYS = 1000
"""The number of strays of a stage that a proof names."""
Progress = Callable[[str, int, int], None]
"""Called with a stage, the number of its checked chunks, and the number of chunks to check."""


@dataclass(frozen=True)
class Finding:
    """A chunk that differs from its record in the ledger."""

    stage: str
    chunk: Chunk
    problem: str


@dataclass(frozen=True)
class StageProof:
    """The checked chunks of one stage, and the findings."""

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
    obstacle: str = ""
    """Why chunks could not be computed again on this machine: its network computes other bytes than the run's."""
    strays: tuple[str, ...] = ()
    """Stored objects, by key, that no chunk of the stage writes: results of another region; the first of very many."""

    altered: tuple[str, ...] = ()
    """Published files, by key, that are missing or differ from what the chunks give."""

    @property
    def proven(self) -> bool:
        """True if all chunks are done, none differs, those that were to be computed again could be, nothing else
        is stored, and published files are what the chunks give.
        """
        return self.done == self.chunks and not (self.findings or self.obstacle or self.strays or self.altered)


def verify_run(
    run: Run,
    sample: int | None,
    *,
    seed: int,
    stages: Sequence[str] | None = None,
    on_progress: Progress = lambda stage, number, total: None,
) -> Iterator[StageProof]:
    """Check the stages of a run one after another; ``sample`` chunks of each are recomputed, all of them if None."""
    for name in stages or [stage.name for stage in run.stages]:
        stage = run.stage(name)
        yield verify_stage(stage, run.ledger(stage, read_only=True), sample, seed, on_progress)


def verify_stage(
    stage: Stage,
    ledger: Ledger,
    sample: int | None,
    seed: int,
    on_progress: Progress = lambda stage, number, total: None,
) -> StageProof:
    """Check one stage, chunk after chunk, in bounded memory; nothing is written.

    A machine whose network computes other bytes than the run checks what is stored, and the proof names the obstacle:
    that is no finding, since nothing is wrong with the chunks.
    """
    done = ledger.summary().done
    chosen = range(done) if sample is None else set(random.Random(seed).sample(range(done), min(sample, done)))
    findings: list[Finding] = []
    recomputed, obstacle = 0, ""
    for number, chunk in enumerate(chunk for grid in stage.grids() for chunk in grid if ledger.is_done(chunk)):
        checksum = ledger.checksum(chunk)
        findings += _compare(stage, chunk, checksum, "stored", lambda c: checksum_of(stage.load(c)))
        if number in chosen and not obstacle:
            try:
                findings += _compare(stage, chunk, checksum, "recomputed", lambda c: recompute(stage, c))
                recomputed += 1
            except WorkerEnvironmentError as error:
                obstacle = str(error)
        on_progress(stage.name, number + 1, done)
    total = sum(len(grid) for grid in stage.grids())
    strays = tuple(islice(stage.strays(), NAMED_STRAYS))
    altered = tuple(stage.altered()) if done == total and not findings else ()
    return StageProof(stage.name, total, done, done, recomputed, tuple(findings), obstacle, strays, altered)


def recompute(stage: Stage, chunk: Chunk) -> str:
    """The checksum of a chunk computed again; nothing is written."""
    inputs = stage.read(chunk)
    with stage.compute_slot():
        products, _ = stage.compute(chunk, inputs)
    return checksum_of(products)


def repair(
    run: Run,
    findings: Sequence[Finding],
    stray: Collection[str] = (),
    altered: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Forget the done marks of the chunks found wrong, so that the next run computes them (and only them) again.

    stray: names of the stages whose strays are removed at once.
    altered: by stage, the keys of published files to delete; the next run writes them again.
    """
    with Lease(run.store, seconds=run.config.execution.lease_seconds) as lease:
        for name in stray:
            run.stage(name).extent.confine(lease.may_write)
        for name, keys in altered.items():
            for key in keys:
                ObjectStore(run.layout.home(name)).delete(key)
        for name in {finding.stage for finding in findings}:
            ledger = run.ledger(run.stage(name))
            for finding in findings:
                if finding.stage == name:
                    ledger.forget(finding.chunk)
            ledger.close()


def _compare(stage: Stage, chunk: Chunk, expected: str, what: str, measure: Callable[[Chunk], str]) -> list[Finding]:
    try:
        found = measure(chunk)
    except WorkerEnvironmentError:
        raise
    except (PetasegError, OSError, ValueError, KeyError) as error:
        return [Finding(stage.name, chunk, f"{what} bytes cannot be read: {type(error).__name__}: {error}")]
    if found == expected:
        return []
    return [Finding(stage.name, chunk, f"{what} bytes have checksum {found[:12]}, the ledger says {expected[:12]}")]
