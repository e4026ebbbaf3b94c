"""The progress of a run as its driver draws it: within chunks, and the time left."""

from io import StringIO

import pytest
from rich.console import Console

from pipeline.execution.runner import ChunkDone, ChunkFailed, StageStarted
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.stages.base import ChunkReport
from pipeline.stages.within import within
from workflows.terminal.progress import ChunkProgress, StageProgress

BOUNDS = BoundingBox.from_shape((2, 2, 2))
CHUNKS = list(ChunkGrid(BOUNDS, BOUNDS, (1, 1, 1)))
STAGE = "predict_heads"


def done(number: int, seconds: float = 100.0) -> ChunkDone:
    chunk = CHUNKS[number]
    return ChunkDone(STAGE, ChunkReport(0, chunk.index, "00" * 16, seconds, 10, 1), chunk)


def started(missing: int = 8, slots: int | None = 2) -> StageStarted:
    return StageStarted(STAGE, 8, 8 - missing, ((0, missing),), slots)


def test_patches_within_the_first_chunks_give_the_time_left() -> None:
    """Before any chunk is done, the patches done within the running ones tell how long a chunk takes."""
    stage = StageProgress(started(), 1000)
    assert stage.seconds_left(1000) is None
    for chunk in CHUNKS[:2]:
        stage.within(chunk, 0, 50, 1000)
    assert stage.patches == "0/100 patches"
    assert stage.seconds_left(1001) is None
    for chunk in CHUNKS[:2]:
        stage.within(chunk, 5, 50, 1010)
    assert stage.seconds_left(1010) == pytest.approx(390)
    assert stage.completed == pytest.approx(0.2, abs=0.01)


def test_two_chunks_that_ended_together_leave_three_waves() -> None:
    """The bar has the arithmetic of ``petaseg status``."""
    stage = StageProgress(started(), 1000)
    for number in (0, 1):
        stage.within(CHUNKS[number], 0, 50, 1000)
        stage.chunk_done(done(number), 1100)
    assert stage.seconds_left(1100) == 300
    assert stage.patches == ""
    assert stage.completed == 2
    assert stage.speed == "0 voxels/s"


def test_a_resumed_stage_counts_only_what_this_driver_has_done() -> None:
    """Chunks of an earlier driver are done, and tell nothing about the workers of this one."""
    stage = StageProgress(started(missing=4), 1000)
    stage.chunk_done(done(4), 1100)
    assert stage.done == 5
    assert stage.seconds_left(1100) == pytest.approx(100)


def test_a_chunk_that_failed_no_longer_runs() -> None:
    stage = StageProgress(started(), 1000)
    stage.within(CHUNKS[0], 10, 50, 1000)
    stage.chunk_failed(ChunkFailed(STAGE, CHUNKS[0], "OSError", 1, final=False))
    assert (stage.completed, stage.patches, len(stage.failed)) == (0, "", 1)


def test_patches_of_a_running_chunk_are_drawn() -> None:
    """A listener of the run hears of patches in this process, also from other threads, until it ends."""
    seen = StringIO()
    with ChunkProgress(Console(file=seen, width=120, force_terminal=True), clock=lambda: 1000.0) as progress:
        progress(started())
        within(STAGE, CHUNKS[0], 12, 50)
        within("another_stage", CHUNKS[0], 1, 2)
    assert "12/50 patches" in seen.getvalue()
    assert "0/8" in seen.getvalue()
    written = seen.getvalue()
    within(STAGE, CHUNKS[0], 13, 50)
    assert seen.getvalue() == written
