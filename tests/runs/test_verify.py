"""Verification compares stored bytes with recorded checksums and recomputes a sample, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.run_file import Execution
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.grid import Chunk
from pipeline.ledger.ledger import Ledger
from pipeline.runs.verify import verify_stage
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage


class AskedLedger(Ledger):
    """A ledger that remembers for which chunks it was asked."""

    def __init__(self, stage: ToyStage) -> None:
        super().__init__(stage.store, stage.name, stage.fingerprint, stage.grids(), read_only=True)
        self.asked: list[Chunk] = []

    def checksum(self, chunk: Chunk) -> str:
        """See ``Ledger``."""
        self.asked.append(chunk)
        return super().checksum(chunk)


@pytest.fixture
def stage(tmp_path: Path) -> ToyStage:
    """A finished stage of two levels: 48 chunks and 8."""
    stage = ToyStage(ObjectStore(tmp_path), level_count=2)
    ledger = Ledger(stage.store, stage.name, stage.fingerprint, stage.grids())
    run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "petaseg run run.yaml"))
    ledger.close()
    return stage


@pytest.mark.parametrize(("sample", "again"), [(0, 0), (5, 5), (100, 56), (None, 56)])
def test_a_finished_stage_is_proven_and_so_many_chunks_are_computed_again(
    stage: ToyStage, sample: int | None, again: int
) -> None:
    proof = verify_stage(stage, AskedLedger(stage), sample, seed=0)
    assert proof.proven
    assert (proof.chunks, proof.done, proof.stored, proof.recomputed) == (56, 56, 56, again)


def test_memory_does_not_grow_with_the_chunks(stage: ToyStage) -> None:
    """Chunks are drawn from the ledger one at a time while they are checked, never listed at once."""
    ledger = AskedLedger(stage)
    seen: list[tuple[str, int, int]] = []

    def watch(name: str, number: int, total: int) -> None:
        assert len(ledger.asked) == number
        seen.append((name, number, total))

    verify_stage(stage, ledger, 5, 0, watch)
    assert seen == [(stage.name, number + 1, 56) for number in range(56)]


def test_changed_bytes_and_changed_arithmetic_are_told_apart(stage: ToyStage) -> None:
    """Changed bytes are reported as stored wrongly, changed arithmetic as recomputed otherwise."""
    damaged, edited = stage.chunks()[3], stage.chunks()[7]
    stage.store.put_arrays(stage.key(damaged), stage.load(edited))
    stored = verify_stage(stage, AskedLedger(stage), 0, seed=0)
    assert [(finding.chunk, finding.problem.split()[0]) for finding in stored.findings] == [(damaged, "stored")]
    other = ToyStage(stage.store, level_count=1, version=2)
    again = verify_stage(other, AskedLedger(stage), None, seed=0)
    assert {finding.chunk for finding in again.findings if finding.problem.startswith("recomputed")} == {
        *stage.chunks()
    }
    assert not again.proven


class LitteredStage(ToyStage):
    """A toy beside whose products something else is stored."""

    def strays(self) -> Iterator[str]:
        """See ``Stage``."""
        return iter(["parts/measure_distances/9_9_9"])


def test_strays_are_no_proof(stage: ToyStage) -> None:
    """A complete stage whose chunks are all right is not proven while another object is stored, which is named."""
    littered = LitteredStage(stage.store, level_count=2)
    proof = verify_stage(littered, AskedLedger(littered), 0, seed=0)
    assert (proof.done, proof.findings, proof.obstacle) == (56, (), "")
    assert proof.strays == ("parts/measure_distances/9_9_9",)
    assert not proof.proven
