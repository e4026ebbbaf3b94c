"""The peak memory of the process that a user starts: ``petaseg run`` with workers of its own on Dask.

    python benchmarks/driver_memory.py [--chunks 64 1000] [--model fib25-tiny] [--workers 2] [--folder ...]

Two made-up runs, in chunks of 8 x 8 x 8 voxels: one of given affinities, whose driver needs no network, and one of an
image, whose driver builds the network to check its weights. The chunks are small, since a driver's memory
does not depend on what is in them: it holds Python's libraries, Dask's scheduler, and a few bytes for each chunk. The
peak is VmHWM in /proc/<pid>/status, of the driver alone, without its workers. A run with more chunks shows what a chunk
costs; ``executor_overhead.py`` does so for a million.
Exit status 1 if a driver needs more than 700 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes import create_volume
from pipeline.volumes.base import VolumeSpec

LIMIT_MB = 700.0
SIDE = 8
INPUTS = {"affinities": 3, "image": None}
"""Channels of each input."""


def main() -> int:
    """Print a line for each run; 1 if a driver needs more memory than it may."""
    arguments = parse()
    peaks = []
    for kind in arguments.inputs:
        for chunks in arguments.chunks:
            with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="petaseg-driver-") as folder:
                count, seconds, peak = measure(Path(folder), kind, chunks, arguments)
            peaks.append(peak)
            print(f"{kind:<11}{count:6d} chunks a stage   {seconds:6.0f} s   driver {peak:.0f} MB", flush=True)
    print(f"limit: {LIMIT_MB:g} MB")
    return int(max(peaks) > LIMIT_MB)


def measure(folder: Path, kind: str, chunks: int, arguments: argparse.Namespace) -> tuple[int, float, float]:
    """Chunks of a stage, seconds, and the driver's peak memory in MB."""
    counts = Vec(*(round(chunks ** (1 / 3)),) * 3)
    write_input(folder / "input.zarr", counts * SIDE, INPUTS[kind])
    (folder / "run.yaml").write_text(
        f"run_directory: run\ninput: {{{kind}: input.zarr}}\n"
        f"chunk_shape: [{SIDE}, {SIDE}, {SIDE}]\nstorage_chunk_shape: [{SIDE}, {SIDE}, {SIDE}]\n"
        f"execution: {{executor: dask, workers: {arguments.workers}}}\ninference: {{model: {arguments.model}}}\n"
    )
    command = [sys.executable, "-m", "workflows.cli", "run", str(folder / "run.yaml"), "--quiet"]
    began, peak = time.perf_counter(), 0.0
    with open(folder / "output", "w") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=output)
        while driver.poll() is None:
            peak = max(peak, peak_mb(driver.pid))
            time.sleep(0.1)
    if driver.returncode:
        raise SystemExit((folder / "output").read_text())
    return counts[0] * counts[1] * counts[2], time.perf_counter() - began, peak


def peak_mb(process: int) -> float:
    """The peak memory of a process so far; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def write_input(path: Path, shape: Vec, channels: int | None) -> None:
    """A volume of random blocks."""
    box = BoundingBox.from_shape(shape)
    spec = VolumeSpec(box, (8.0, 8.0, 8.0), np.dtype(np.uint8), channels)
    coarse = np.random.default_rng(0).integers(0, 256, spec.array_shape(BoundingBox.from_shape(shape // 4)), np.uint8)
    create_volume(str(path), spec).write(box, coarse.repeat(4, -3).repeat(4, -2).repeat(4, -1))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--inputs", nargs="+", default=list(INPUTS), choices=INPUTS)
    parser.add_argument("--model", default="identity")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="on which file system")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
