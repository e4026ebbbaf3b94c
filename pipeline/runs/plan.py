"""The plan of a run: chunks, bytes, wasted patches, memory, money, and time estimated from a measured sample.

The sample is one chunk in the middle of the region of interest, taken through the whole chain in a temporary folder.
What a worker does once, such as loading the network, is done before and timed apart. Time grows with the voxels; a node
above the chunks is taken to need the time of a chunk. A stage takes as many waves of chunks as its workers need, level
by level: workers that a stage cannot use do not shorten it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.cluster import Prices
from pipeline.config.run_file import Execution
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.geometry import BoundingBox
from pipeline.ledger.pace import Level, in_waves
from pipeline.runs.chunk_shapes import least_waste, storage_for
from pipeline.runs.cost import WorkerShare, levels_of, share_of
from pipeline.runs.memory import Measured, PeakMemory, Shortage, shortages
from pipeline.runs.outline import StageOutline
from pipeline.runs.run import Run
from pipeline.runs.workers import slots_of
from pipeline.stages.base import Stage
from pipeline.stages.predict_heads import PredictHeads

WASTE = 1.2
"""Another chunk shape is advised if patches are computed more often than this on average."""


@dataclass(frozen=True)
class StagePlan:
    """The plan of one stage."""

    name: str
    levels: tuple[Level, ...]
    """Chunks that are done and missing, and the seconds of one, in the order in which they run."""
    slots: int | None
    """How many chunks run at a time; ``None`` for the workers of an existing Dask scheduler."""
    share: WorkerShare
    bytes_uncompressed: int

    @property
    def chunks(self) -> int:
        """Chunks on all levels."""
        return sum(level.done + level.missing for level in self.levels)

    @property
    def done(self) -> int:
        """Chunks that an earlier run has finished already."""
        return sum(level.done for level in self.levels)

    @property
    def worker_seconds(self) -> float:
        """Seconds of all chunks that are not done, one after another."""
        return sum(level.missing * (level.seconds or 0.0) for level in self.levels)

    @property
    def seconds(self) -> float | None:
        """Seconds of these chunks on the workers that the stage can use; ``None`` if that is not known."""
        return None if self.slots is None else in_waves(self.levels, self.slots)

    @property
    def measured(self) -> bool:
        """False for a stage that the sample does not have: the ground truth is not compared with it."""
        return all(level.seconds is not None for level in self.levels)


@dataclass(frozen=True)
class Sample:
    """The measurements of one chunk."""

    box: BoundingBox
    seconds: dict[str, float]
    """By stage."""
    once: float
    """Seconds of what each worker does once: loading and measuring the network, loading compiled kernels."""
    memory: Measured


@dataclass(frozen=True)
class Plan:
    """The work and the cost of a run."""

    stages: tuple[StagePlan, ...]
    voxels: int
    patches: int
    """Patches of the lattice; 0 without a network."""
    waste: float
    """Patches that are run for each needed patch of the lattice; 1.0 if none is run twice."""
    advice: str
    """The end of a sentence, which names a chunk shape with less waste, or an empty text."""
    cluster: str | None
    """The cluster whose workers are counted; ``None`` for this machine."""
    shortages: tuple[Shortage, ...]
    """Where the memory does not suffice."""
    prices: Prices
    sample: Sample

    @property
    def seconds(self) -> float | None:
        """Estimated duration of the measured stages, with what each worker does once.

        ``None`` if the number of workers is not known.
        """
        total = self.sample.once if any(stage.worker_seconds for stage in self.stages) else 0.0
        for stage in self.stages:
            if stage.measured:
                if stage.seconds is None:
                    return None
                total += stage.seconds
        return total

    @property
    def money(self) -> float | None:
        """Estimated price of the chunks that are not done; ``None`` without prices."""
        if not (self.prices.cpu_hour or self.prices.gpu_hour):
            return None
        return sum(stage.worker_seconds / 3600 * stage.share.money(self.prices) for stage in self.stages)

    @property
    def seconds_per_voxel(self) -> dict[str, float]:
        """Seconds for each voxel by stage, measured on the sample chunk."""
        return {name: seconds / self.sample.box.voxels for name, seconds in self.sample.seconds.items()}


def make_plan(run: Run, on_stage: Callable[[str], None] = lambda _: None, cluster: str | None = None) -> Plan:
    """Measure a sample chunk and scale it up; the run directory is not touched.

    cluster: the cluster whose workers process the chunks, a key of ``CLUSTERS``; ``None`` for this machine.
    """
    sample = _measure(run, on_stage)
    patches, waste, advice = _patches(run)
    return Plan(
        stages=tuple(_plan_stage(run, cluster, stage, sample) for stage in run.outline.stages),
        voxels=run.layout.roi.voxels,
        patches=patches,
        waste=waste,
        advice=advice,
        cluster=cluster,
        shortages=shortages(run.config, cluster, run.outline.stages, sample.memory),
        prices=run.config.cluster.prices,
        sample=sample,
    )


def _measure(run: Run, on_stage: Callable[[str], None]) -> Sample:
    grid = run.layout.grid()
    box = grid.chunk(grid.index_of(run.layout.roi.middle)).core
    seconds, growth, once, peak = {}, {}, 0.0, PeakMemory()
    with tempfile.TemporaryDirectory(prefix="petaseg-plan-") as folder:
        sample = run.restricted_to(box, folder)
        for stage in sample.stages:
            on_stage(stage.name)
            warm = _warm_up(stage)
            peak.begin()
            seconds[stage.name] = _seconds(sample, stage)
            growth[stage.name] = peak.growth()
            once += warm if stage.needs().network else max(0.0, warm - seconds[stage.name])
    return Sample(box, seconds, once, Measured(peak.at_rest, growth))


def _warm_up(stage: Stage) -> float:
    """Seconds to load what a stage needs: its network, or its kernels, by a chunk that is computed twice."""
    began = time.perf_counter()
    if stage.needs().network:
        stage.warm_up()
    else:
        stage.prepare()
        for grid in stage.grids():
            for chunk in grid:
                stage.run_chunk(chunk)
    return time.perf_counter() - began


def _seconds(sample: Run, stage: Stage) -> float:
    ledger = sample.ledger(stage)
    options = RunOptions.of(Execution(attempts=1), sample.command)
    summary = run_stage(stage, ledger, make_executor("serial"), options)
    ledger.close()
    return summary.seconds / max(1, summary.done)


def _plan_stage(run: Run, cluster: str | None, outline: StageOutline, sample: Sample) -> StagePlan:
    stage, seconds = run.stage(outline.name), sample.seconds.get(outline.name)
    rate = None if seconds is None else seconds / sample.box.voxels
    return StagePlan(
        name=outline.name,
        levels=tuple(levels_of(outline, run.ledger(stage, read_only=True), rate)),
        slots=slots_of(run.config, cluster, network=outline.network),
        share=share_of(run.config, cluster, outline),
        bytes_uncompressed=stage.bytes_uncompressed,
    )


def _patches(run: Run) -> tuple[int, float, str]:
    stage = run.stages[0]
    if not isinstance(stage, PredictHeads):
        return 0, 1.0, ""
    lattice, grid = stage.lattice(), run.layout.grid()
    waste = lattice.waste(grid)
    step = list(lattice.stride)
    better = least_waste(grid.shape, lattice.stride)
    if waste <= WASTE or better == grid.shape:
        return len(lattice), waste, ""
    storage = storage_for(better, run.config.storage_chunk_shape)
    advice = f". Fewest are with multiples of {step}, for example chunk_shape: {list(better)}"
    return len(lattice), waste, f"{advice} and storage_chunk_shape: {list(storage)}"
