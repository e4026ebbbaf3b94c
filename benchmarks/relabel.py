"""Another threshold beside the whole run from affinities, in processor time of one process.

    python benchmarks/relabel.py [--affinities FILE.h5:affinities] [--chunk 64] [--tiles 1]

The affinities are mirrored ``tiles`` times along each axis. Every row is a relabel after the one before it, with the
chunks that were written; the last is a preview of all thresholds at once. Exit status 1 if the dearest relabel takes
more than ``LIMIT`` of the processor time of the run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.config.strict_yaml import dump_yaml
from pipeline.geometry import BoundingBox
from pipeline.runs.preview import preview
from pipeline.runs.run import Run
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec
from workflows.driver import segment

LIMIT = 0.4
DATA = Path(os.environ.get("PETASEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
STEPS = (
    ("0.51", "0"),
    ("0.6", "0"),
    ("0.5", "1000"),
    ("0.501", "1000"),
    ("0.505", "1000"),
)
"""Threshold and smallest size, one after the other."""


def main() -> int:
    """Print a row for the run, each relabel and the preview."""
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="petaseg-relabel-") as folder:
        file = prepare(Path(folder), arguments)
        segment(str(file), ["run_directory=warm", "input.stop=[64, 64, 64]"])  # compiles the kernels
        whole = seconds_of(lambda: segment(str(file)))
        print(f"run from affinities          {whole:7.2f} s")
        dearest = max(relabelled(file, threshold, size) for threshold, size in STEPS)
        thresholds = [0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8]
        took = seconds_of(lambda: preview(Run.open(file), thresholds))
        print(f"preview of {len(thresholds)} thresholds      {took:7.2f} s")
    print(f"dearest relabel / run        {dearest / whole:7.3f} (at most {LIMIT})")
    return int(dearest > LIMIT * whole)


def relabelled(file: Path, threshold: str, size: str) -> float:
    """Processor seconds of one relabel."""
    overrides = [f"segmentation.threshold={threshold}", f"segmentation.min_size={size}"]
    run = Run.open(file, overrides)
    (planned,) = preview(run, [float(threshold)])
    took = seconds_of(lambda: segment(str(file), overrides, only_after="tables"))
    written = f"{planned.rewritten} of {planned.chunks} chunks"
    print(f"threshold {threshold:<6} min {size:<5}  {took:7.2f} s   {written}")
    return took


def seconds_of(work: Callable[[], object]) -> float:
    """Processor seconds of all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def prepare(folder: Path, arguments: argparse.Namespace) -> Path:
    """The affinities, mirrored, and a run file."""
    source = open_volume(arguments.affinities)
    array = source.read(source.spec.bounds)
    for axis in (1, 2, 3):
        tiles = [array if n % 2 == 0 else np.flip(array, axis) for n in range(arguments.tiles)]
        array = np.concatenate(tiles, axis)
    box = BoundingBox.from_shape(array.shape[1:])
    spec = VolumeSpec(box, source.spec.resolution_nm, array.dtype, len(array))
    create_volume(str(folder / "affinities.zarr"), spec).write(box, array)
    sides = {"chunk_shape": [arguments.chunk] * 3, "storage_chunk_shape": [min(64, arguments.chunk)] * 3}
    table = {"run_directory": "run", "input": {"affinities": "affinities.zarr"}, "execution": {"executor": "serial"}}
    (folder / "run.yaml").write_text(dump_yaml({**table, **sides}))
    return folder / "run.yaml"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = f"{DATA / 'fib25_train2_affinities.h5'}:affinities"
    parser.add_argument(
        "--affinities", default=default, help="a volume of affinities (default: the shared FIB-25 ones)"
    )
    parser.add_argument("--chunk", type=int, default=64, help="side of a chunk")
    parser.add_argument("--tiles", type=int, default=1, help="copies along each axis")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
