"""Exports of a whole run: processor time and peak memory of each format, and how both grow with the volume.

    python benchmarks/handing_on.py [--affinities FILE.h5:affinities] [--chunk 128] [--tiles 1 2]

The affinities are mirrored ``tiles`` times along each axis. Each export is a process of its own, as a user starts it.
Exit status 1 if one needs more than ``LIMIT_MB``, whatever the size of the volume.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipeline.config.strict_yaml import dump_yaml
from pipeline.geometry import BoundingBox
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec
from workflows.driver import segment

LIMIT_MB = 1200.0
DATA = Path(os.environ.get("PETASEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
FORMATS = {
    "parquet": [],
    "webknossos": [],
    "pychunkedgraph": ["--graph-chunk", "128,256,256"],
    "precomputed": ["--sharded"],
}
"""What is exported, with the options of each."""
LAUNCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""A small process that starts the command, since the peak of a process counts the memory of the one that started it."""


def main() -> int:
    """Print a row for each format and size; 1 if one needs more memory than it may."""
    arguments = parse()
    peaks = []
    for tiles in arguments.tiles:
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="petaseg-handing-on-") as name:
            folder = Path(name)
            voxels = prepare(folder, arguments.affinities, tiles, arguments.chunk)
            segment(str(folder / "run.yaml"))
            for kind, options in FORMATS.items():
                seconds, peak = measure(folder, kind, options)
                peaks.append(peak)
                print(f"{kind:<15}{voxels / 1e6:7.1f} million voxels {seconds:7.1f} CPU s {peak:7.0f} MB", flush=True)
    print(f"limit: {LIMIT_MB:g} MB")
    return int(max(peaks) > LIMIT_MB)


def measure(folder: Path, kind: str, options: list[str]) -> tuple[float, float]:
    """Processor seconds and peak memory in MB of one export."""
    command = ["export", str(folder / "run"), str(folder / kind), "--to", kind, "--quiet", *options]
    call = [sys.executable, "-c", LAUNCH, sys.executable, "-m", "workflows.cli", *command]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    seconds, kilobytes = map(float, done.stdout.split())
    return seconds, kilobytes / 1024


def prepare(folder: Path, url: str, tiles: int, chunk: int) -> int:
    """Write mirrored affinities and a run file; the number of voxels."""
    source = open_volume(url)
    values = source[...]
    room = [(0, 0), *((0, (tiles - 1) * side) for side in values.shape[1:])]
    values = np.pad(values, room, mode="symmetric")
    box = BoundingBox.from_shape(values.shape[1:])
    spec = VolumeSpec(box, source.resolution_nm, values.dtype, len(values))
    create_volume(str(folder / "affinities.zarr"), spec).write(box, values)
    side, stored = [chunk] * 3, [min(chunk, 64)] * 3
    config = {"run_directory": "run", "input": {"affinities": "affinities.zarr"}, "chunk_shape": side}
    serial = {"storage_chunk_shape": stored, "execution": {"executor": "serial"}}
    (folder / "run.yaml").write_text(dump_yaml({**config, **serial}))
    return box.voxels


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Processor time and memory of exports of a whole run.")
    default = f"{DATA}/fib25_train2_affinities.h5:affinities"
    parser.add_argument("--affinities", default=default, help="a volume of affinities (default: the shared ones)")
    parser.add_argument("--chunk", type=int, default=128, help="voxels along a side of the run's chunks")
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 2], help="how often the volume is mirrored")
    parser.add_argument("--folder", help="where the runs are made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
