"""What a chunk costs before any work is done in it: executor, runner and ledger over empty chunks.

    python benchmarks/executor_overhead.py [--chunks 10000 100000] [--executors serial threads dask] [--folder ...]

An empty stage runs as ``petaseg run`` runs a real one: ``run_stage`` with a ledger in a folder, a line for every
chunk. Each measurement is a process of its own, so that the peak memory of its driver means something; what it grows
by from the smallest to the largest number of chunks is printed. Two peers do the same chunks without a ledger that
could be trusted: a loop that writes a marker file for each (as Luigi's targets do), and Dask's own ``Client.map`` and
``gather`` with the same workers; they run the smallest number only.
Exit status 1 if a chunk costs more than 2 ms, or memory grows by more than 30 MB and 120 bytes a chunk.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.run_file import Execution
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.runs.lease import Lease
from pipeline.stages.base import ChunkReport, Products, Stage
from pipeline.storage import ObjectStore

LIMIT_MS = 2.0
LIMIT_MB = 30.0
LIMIT_BYTES = 120
"""A chunk: the ledger keeps 29, and needs about 50 more for a moment while it packs them."""
WORKERS = 2
PEERS = {"serial": "marker files", "threads": "marker files", "dask": "Client.map"}


@dataclass(frozen=True)
class EmptyStage(Stage):
    """Chunks of one voxel in which nothing happens."""

    count: int
    name: str = "do_nothing"

    @property
    def fingerprint(self) -> str:
        """Of a stage without configuration."""
        return f"{self.count:032x}"

    def grids(self) -> Sequence[ChunkGrid]:
        """A row of chunks."""
        bounds = BoundingBox.from_shape((1, 1, self.count))
        return [ChunkGrid(bounds, bounds, (1, 1, 1))]

    def read(self, chunk: Chunk) -> None:
        """Nothing."""

    def compute(self, chunk: Chunk, inputs: Any) -> tuple[Products, dict[str, float]]:
        """Nothing."""
        return {}, {}

    def write(self, chunk: Chunk, products: Mapping[str, np.ndarray]) -> None:
        """Nothing."""

    def load(self, chunk: Chunk) -> Products:
        """Nothing."""
        return {}


def main() -> int:
    """Print a line a measurement; 1 if a limit is exceeded."""
    arguments = parse()
    if arguments.measure:
        print(*measure(arguments.measure, arguments.chunks[0], arguments.folder))
        return 0
    within = [compare(name, sorted(arguments.chunks), arguments.folder) for name in arguments.executors]
    print(f"limits: {LIMIT_MS:g} ms a chunk; memory may grow by {LIMIT_MB:g} MB and {LIMIT_BYTES} bytes a chunk")
    return int(not all(within))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--executors", nargs="+", default=["serial", "threads", "dask"], choices=PEERS)
    parser.add_argument("--folder", help="where ledgers are written; default: the system's temporary folder")
    parser.add_argument("--measure", choices=[*PEERS, *PEERS.values()], help="one measurement, in this process")
    return parser.parse_args()


def compare(executor: str, counts: list[int], folder: str | None) -> bool:
    """One executor and its peer over all numbers of chunks; True if within the limits."""
    peer, fewest = PEERS[executor], counts[0]
    alone = 1000 * in_fresh_process(peer, fewest, folder)[0] / fewest
    print(f"{executor:8s} {fewest:8d} chunks   {alone:7.3f} ms a chunk   with {peer} alone", flush=True)
    costs, peaks = [], []
    for count in counts:
        seconds, peak = in_fresh_process(executor, count, folder)
        costs.append(1000 * seconds / count)
        peaks.append(peak)
        print(
            f"{executor:8s} {count:8d} chunks   {costs[-1]:7.3f} ms a chunk   {costs[-1] / alone:.2f} of {peer}   "
            f"driver {peak:.1f} MB",
            flush=True,
        )
    growth = peaks[-1] - peaks[0]
    print(f"{executor:8s} memory grows by {growth:.1f} MB from {counts[0]} to {counts[-1]} chunks", flush=True)
    return max(costs) <= LIMIT_MS and growth <= LIMIT_MB + LIMIT_BYTES * counts[-1] / 1e6


def in_fresh_process(what: str, count: int, folder: str | None) -> tuple[float, float]:
    """Seconds and the driver's peak memory in MB of one measurement."""
    command = [sys.executable, __file__, "--measure", what, "--chunks", str(count)]
    command += ["--folder", folder] if folder else []
    seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(seconds), float(peak)


def measure(what: str, count: int, folder: str | None) -> tuple[float, float]:
    """Seconds and peak memory in MB of this process; workers are started before the clock."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        stage = EmptyStage(count)
        if what == "marker files":
            seconds = mark_files(stage, Path(place))
        elif what == "Client.map":
            seconds = map_with_dask(stage)
        else:
            seconds = run_empty(what, stage, Path(place))
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_empty(executor_name: str, stage: EmptyStage, folder: Path) -> float:
    """As ``petaseg run`` does it, with its lease, opening and closing the ledger included."""
    executor = make_executor(executor_name, **({} if executor_name == "serial" else {"workers": WORKERS}))
    list(executor.map_unordered(len, ["warm up"] * WORKERS, needs=stage.needs()))
    began = time.perf_counter()
    store = ObjectStore(folder)
    with Lease(store, seconds=60) as lease:
        ledger = Ledger(store, stage.name, stage.fingerprint, stage.grids())
        summary = run_stage(
            stage,
            ledger,
            executor,
            RunOptions.of(
                Execution(), "petaseg run run.yaml", may_write=lease.may_write, worker_may_write=lease.fence.may_write
            ),
        )
        ledger.close()
    seconds = time.perf_counter() - began
    assert summary.done == stage.count
    executor.close()
    return seconds


def mark_files(stage: EmptyStage, folder: Path) -> float:
    """A loop that leaves an empty file for every chunk, and looks for it before."""
    began = time.perf_counter()
    for chunk in stage.grids()[0]:
        mark = folder / chunk.name
        if not mark.exists():
            stage.run_chunk(chunk)
            mark.touch()
    return time.perf_counter() - began


def map_with_dask(stage: EmptyStage) -> float:
    """Dask as its own manual has it: all chunks at once, then all results."""
    with cluster() as client:
        client.gather(client.map(len, ["warm up"] * WORKERS, pure=False))
        began = time.perf_counter()
        reports: list[ChunkReport] = client.gather(client.map(stage.run_chunk, list(stage.grids()[0]), pure=False))
        seconds = time.perf_counter() - began
    assert len(reports) == stage.count
    return seconds


@contextmanager
def cluster() -> Iterator[Any]:
    """The workers that the Dask executor starts, and their client."""
    executor: Any = make_executor("dask", workers=WORKERS)
    yield executor.client
    executor.close()


if __name__ == "__main__":
    sys.exit(main())
