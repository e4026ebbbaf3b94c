"""What a run will cost, before it runs: chunks, bytes, wasted patches, memory, and time from a measured sample.

The sample is one chunk in the middle of the region of interest, taken through the whole chain in a temporary folder.
Time grows with the voxels; the few nodes above the chunks are counted with the chunks' own time.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.run_file import Execution
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.geometry import BoundingBox
from pipeline.runs.run import Run
from pipeline.stages.predict_affinities import PredictAffinities


@dataclass(frozen=True)
class StagePlan:
    """What one stage will do."""

    name: str
    chunks: int
    done: int
    """Chunks that an earlier run has finished already."""
    bytes_uncompressed: int
    seconds_per_chunk: float
    """Measured on the sample chunk."""

    @property
    def seconds(self) -> float:
        """Worker seconds that are left."""
        return (self.chunks - self.done) * self.seconds_per_chunk


@dataclass(frozen=True)
class Plan:
    """What a run will do and cost."""

    stages: tuple[StagePlan, ...]
    voxels: int
    patches: int
    """Patches of the lattice; 0 without a network."""
    waste: float
    """Patches that will be run for each patch of the lattice: 1.0 is none wasted."""
    advice: str
    """A chunk shape that wastes fewer patches, or nothing."""
    memory_bytes: int
    """Peak memory of a process that took the sample through all stages, one chunk at a time."""
    workers: int
    sample: BoundingBox

    @property
    def seconds(self) -> float:
        """Estimated duration on all workers."""
        return sum(stage.seconds for stage in self.stages) / self.workers

    @property
    def seconds_per_voxel(self) -> dict[str, float]:
        """Measured on the sample chunk, by stage."""
        return {stage.name: stage.seconds_per_chunk / self.sample.voxels for stage in self.stages}


def make_plan(run: Run, on_stage: Callable[[str], None] = lambda _: None) -> Plan:
    """Measure a sample chunk and scale it up; the run directory is not touched."""
    sample, seconds = _measure(run, on_stage)
    settings = run.config.execution
    workers = settings.workers * (settings.threads_per_worker if settings.executor == "dask" else 1)
    patches, waste, advice = _patches(run)
    return Plan(
        stages=tuple(_plan_stage(run, name, seconds[name]) for name in seconds),
        voxels=run.layout.roi.voxels,
        patches=patches,
        waste=waste,
        advice=advice,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        workers=1 if settings.executor == "serial" else workers,
        sample=sample,
    )


def _measure(run: Run, on_stage: Callable[[str], None]) -> tuple[BoundingBox, dict[str, float]]:
    grid = run.layout.grid()
    box = grid.chunk(grid.index_of(run.layout.roi.middle)).core
    executor = make_executor("serial")
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="petaseg-plan-") as folder:
        sample = run.restricted_to(box, folder)
        for stage in sample.stages:
            on_stage(stage.name)
            ledger = sample.ledger(stage)
            summary = run_stage(stage, ledger, executor, RunOptions.of(Execution(attempts=1), run.command))
            seconds[stage.name] = summary.seconds / max(1, summary.done)
            ledger.close()
    return box, seconds


def _plan_stage(run: Run, name: str, seconds_per_chunk: float) -> StagePlan:
    stage = run.stage(name)
    return StagePlan(
        name=name,
        chunks=sum(len(grid) for grid in stage.grids()),
        done=run.ledger(stage, read_only=True).summary().done,
        bytes_uncompressed=sum(volume.bytes_per_voxel for volume in stage.volumes) * run.layout.roi.voxels,
        seconds_per_chunk=seconds_per_chunk,
    )


def _patches(run: Run) -> tuple[int, float, str]:
    stage = run.stages[0]
    if not isinstance(stage, PredictAffinities):
        return 0, 1.0, ""
    lattice, grid = stage.lattice(), run.layout.grid()
    waste = lattice.waste(grid)
    step = list(lattice.stride)
    better = [max(1, round(c / s)) * s for c, s in zip(grid.shape, step, strict=True)]
    advice = f"chunk shapes that are multiples of {step} waste least, for example {better}" if waste > 1.2 else ""
    return len(lattice), waste, advice
