"""Skeletons of all neurons above 10,000 voxels, beside kimimaro on the same labels, in processor time.

    python benchmarks/skeletons_vs_kimimaro.py [--labels FILE.h5:labels] [--side 512] [--chunk 256] [--peer PYTHON]

petaseg's time is that of both stages, from stored labels to stored skeletons, chunk by chunk in one process; kimimaro's
is that of one call with the whole volume in memory, with the same rule for branches. ``--peer`` names the Python of an
environment in which kimimaro is installed (it has another licence than petaseg and is no part of it). Exit status 1 if
petaseg takes more than ``LIMIT`` times as long.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.config.branches import Skeletons
from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.skeletons.rules import SkeletonRules
from pipeline.segmentation.warm_up import warm_up
from pipeline.shapes.fragments import VoxelCounts
from pipeline.shapes.measure_tables import read_table
from pipeline.stages.extract_skeletons import ExtractSkeletons, lattice_of
from pipeline.stages.layout import Layout
from pipeline.stages.write_skeletons import TABLE, WriteSkeletons
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec

LIMIT = 1.2
SMALLEST = 10_000
DATA = Path(os.environ.get("PETASEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
NM = (40.0, 32.0, 32.0)
"""Sides of a voxel of the shared labels, z, y, x."""
TABLE_OF_RUNS = Skeletons()
PEER = """
import sys, time, numpy
try:
    import kimimaro
except ImportError:
    raise SystemExit(3)
labels, wanted = numpy.load(sys.argv[1]), numpy.load(sys.argv[2])
scale, const, *nm = map(float, sys.argv[3:])
began = time.process_time()
found = kimimaro.skeletonize(
    labels, object_ids=wanted.tolist(), anisotropy=nm, dust_threshold=0, parallel=1, progress=False,
    fix_branching=True, fix_borders=True, teasar_params={"scale": scale, "const": const},
)
print(time.process_time() - began, len(found), sum(each.cable_length() for each in found.values()) / 1e6)
"""


def main() -> int:
    """Print a row for each side, and the ratio."""
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="petaseg-skeletons-") as name:
        folder, labels = Path(name), cropped(arguments)
        wanted = np.array(sorted(VoxelCounts.of(labels).at_least(SMALLEST)), np.uint64)
        mine = petaseg(folder, labels, arguments.chunk)
        theirs = kimimaro(folder, labels, wanted, arguments.peer)
    if theirs is None:
        print(f"{arguments.peer} has no kimimaro, so there is no ratio: install it there, or name a Python with --peer")
        return 0
    print(f"petaseg / kimimaro {mine / theirs:8.2f} (at most {LIMIT})")
    return int(mine > LIMIT * theirs)


def cropped(arguments: argparse.Namespace) -> np.ndarray:
    """The labels of a corner, (z, y, x)."""
    volume = open_volume(arguments.labels)
    start, side = volume.bounds.start, Vec(arguments.side, arguments.side, arguments.side)
    return volume.read(BoundingBox(start, start + side.minimum(volume.bounds.shape)))


def petaseg(folder: Path, labels: np.ndarray, chunk: int) -> float:
    """Processor seconds of both stages."""
    warm_up()
    bounds, shape = BoundingBox.from_shape(labels.shape), Vec(chunk, chunk, chunk)
    layout = Layout(str(folder), bounds, bounds, shape, Vec(64, 64, 64), NM)
    create_volume(layout.volume_url("labels"), VolumeSpec(bounds, NM, labels.dtype)).write(bounds, labels)
    lattice, steps = lattice_of(layout, TABLE_OF_RUNS.voxel_nm)
    rules = SkeletonRules(TABLE_OF_RUNS.scale, TABLE_OF_RUNS.const_nm)
    extract = ExtractSkeletons(layout, SMALLEST, lattice, steps, rules, "labels", "labels")
    write, began = WriteSkeletons(layout, extract), time.process_time()
    for stage in (extract, write):
        for each in stage.grids()[0]:
            stage.run_chunk(each)
    write.publish()
    seconds, table = time.process_time() - began, read_table((folder / TABLE).read_bytes())
    report("petaseg", seconds, len(table["id"]), table["path_length_nm"].sum() / 1e6)
    return seconds


def kimimaro(folder: Path, labels: np.ndarray, wanted: np.ndarray, python: str) -> float | None:
    """Processor seconds of the peer; ``None`` if it is not installed."""
    np.save(folder / "labels.npy", labels)
    np.save(folder / "wanted.npy", wanted)
    numbers = map(str, (TABLE_OF_RUNS.scale, TABLE_OF_RUNS.const_nm, *NM))
    command = [python, "-c", PEER, str(folder / "labels.npy"), str(folder / "wanted.npy"), *numbers]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode == 3:
        return None
    done.check_returncode()
    seconds, count, length = done.stdout.split()[-3:]
    report("kimimaro", float(seconds), int(count), float(length))
    return float(seconds)


def report(name: str, seconds: float, count: int, millimetres: float) -> None:
    """A row."""
    print(f"{name:<9} {seconds:8.1f} s   {count:6,} skeletons   {millimetres:8.3f} mm", flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = f"{DATA / 'connectomics_512_labels.h5'}:labels"
    parser.add_argument("--labels", default=default, help="labels of 40 x 32 x 32 nm (default: the shared ones)")
    parser.add_argument("--side", type=int, default=512, help="voxels along each side of the corner that is taken")
    parser.add_argument("--chunk", type=int, default=256, help="side of a chunk")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="a Python that has kimimaro")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
