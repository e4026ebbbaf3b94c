"""The memory that workers need, by the measurement of a sample chunk, against the memory that they have."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.config.run_file import RunConfig
from pipeline.execution import engine_of
from pipeline.runs.outline import StageOutline
from pipeline.runs.workers import shape_of

PROC = Path("/proc/self")


@dataclass(frozen=True)
class Measured:
    """The memory of a process that took a sample chunk through all stages."""

    at_rest: int
    """Bytes with the network and all libraries loaded, between two chunks."""
    growth: Mapping[str, int]
    """Bytes more while a chunk was processed, by stage; of those that were measured."""

    def of_process(self, stages: Iterable[StageOutline], chunks: int) -> int:
        """Bytes of a process that processes so many chunks of these stages at a time."""
        return self.at_rest + chunks * max((self.growth.get(stage.name, 0) for stage in stages), default=0)


@dataclass(frozen=True)
class Shortage:
    """Processes that need more memory than they have."""

    where: str
    needed: int
    present: int
    remedy: str


class PeakMemory:
    """The peak of this process's memory while something runs; where the system cannot reset it, the peak so far."""

    def __init__(self) -> None:
        self._before = 0
        self.at_rest = 0
        """The most memory before any of the measurements, in bytes."""

    def begin(self) -> None:
        """Measure from now on."""
        self._before = psutil.Process().memory_info().rss
        self.at_rest = max(self.at_rest, self._before)
        with suppress(OSError):
            (PROC / "clear_refs").write_text("5")  # resets VmHWM

    def growth(self) -> int:
        """Bytes more than at ``begin`` since then, at the peak."""
        return max(0, peak_bytes() - self._before)


def peak_bytes() -> int:
    """The peak of this process's memory, since it was reset."""
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def shortages(
    config: RunConfig, cluster: str | None, stages: Iterable[StageOutline], measured: Measured
) -> tuple[Shortage, ...]:
    """Where the memory does not suffice; nothing is known of the workers of an existing Dask scheduler."""
    found = _on_cluster(config, list(stages), measured) if cluster else _here(config, list(stages), measured)
    return tuple(shortage for shortage in found if shortage.needed > shortage.present)


def _on_cluster(config: RunConfig, stages: list[StageOutline], measured: Measured) -> Iterator[Shortage]:
    apart = config.cluster.inference_workers is not None
    for key, network in (("workers", False), ("inference_workers", True)):
        theirs = [stage for stage in stages if not apart or stage.network == network]
        if network and not apart:
            continue
        shape = shape_of(config, network=network)
        needed = measured.of_process(theirs, shape.threads)
        remedy = f"set cluster.{key}.memory_gb to at least {needed / 1e9:.2g}, or choose a smaller chunk_shape"
        yield Shortage(f"each of cluster.{key}", needed, int(shape.memory_gb * 1e9), remedy)


def _here(config: RunConfig, stages: list[StageOutline], measured: Measured) -> Iterator[Shortage]:
    from pipeline.execution.local_cluster import machine_memory  # it imports Dask

    settings, engine = config.execution, engine_of(config.execution.executor)
    if settings.scheduler is not None and "scheduler" in engine.takes:
        return
    chunks = engine.slots_of_process(settings)
    processes = engine.slots(settings) // chunks
    needed = processes * measured.of_process(stages, chunks)
    fewer = "fewer execution.workers, or " if engine.slots(settings) > 1 else ""
    yield Shortage("this machine", needed, machine_memory(), f"choose {fewer}a smaller chunk_shape")
