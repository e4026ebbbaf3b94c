"""Coarser levels, meshes and skeletons of all large neurons of a volume, in one command, beside igneous.

    python benchmarks/shapes_vs_igneous.py --peer PYTHON [--size 512] [--least 10000] [--data FOLDER]

1. ``petaseg run`` of a run file with given labels (``segmentation.kind: labels``) and the tables ``downsample``,
   ``meshes`` and ``skeletons``, one chunk of 256^3 at a time, in a process of its own.
2. ``benchmarks/peers/igneous_shapes.py`` with the same labels, the same blocks and the same smallest size, by PYTHON:
   the interpreter of an environment with igneous-pipeline and h5py (``pip install igneous-pipeline``; GPL-3, so it is
   no extra of petaseg). Without ``--peer`` only the first part runs.

Labels are those of a 512^3 block of mouse cortex (``connectomics_512_labels.h5``). What counts is the processor time of
the whole process. Both store the labels first: petaseg also reads its chunks again, keeps checksums of all it writes,
and counts voxels, surfaces and contacts of every neuron, which igneous does not do. Neither is asked for the same
triangles or nodes; their numbers are printed. At most 1.2 times the time of igneous. Exit status 1 if that does not
hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = "connectomics_512_labels.h5"
CHUNK = [256, 256, 256]
LIMIT = 1.2


def main() -> int:
    """Run both sides and print the ratio."""
    options = parsed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with h5py.File(options.data / FILE) as file:
            labels = file["labels"][: options.size, : options.size, : options.size]
            resolution = [float(side) for side in file.attrs["resolution_nm"]]
        ours = petaseg(folder, labels, resolution, options.least)
        print(f"petaseg           {ours:8.1f} CPU seconds, all of it, {labels.size / ours:,.0f} voxels a second")
        if options.peer is None:
            print("igneous           not run: name an interpreter that has it with --peer")
            return 0
        theirs = igneous(options.peer, folder, labels, resolution, options.least)
    print(f"igneous           {theirs:8.1f} CPU seconds, all of it")
    print(f"petaseg / igneous {ours / theirs:8.2f}   (at most {LIMIT})")
    return int(ours > LIMIT * theirs)


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Levels, meshes and skeletons beside igneous.")
    parser.add_argument("--peer", type=Path, help="Python of an environment with igneous-pipeline")
    parser.add_argument("--size", type=int, default=512, help="side of the block, in voxels")
    parser.add_argument("--least", type=int, default=10_000, help="smallest neuron, in voxels")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("PETASEG_DATA", ROOT.parent / "shared" / "data"))
    )
    return parser.parse_args()


def petaseg(folder: Path, labels: np.ndarray, resolution: list[float], least: int) -> float:
    """The processor time of ``petaseg run``, whose stages are printed."""
    np.save(folder / "labels.npy", labels)
    place = f"labels.npy#resolution={','.join(map(str, resolution))}"
    run = {
        **{"run_directory": "run", "input": {"labels": place}, "segmentation": {"kind": "labels"}},
        **{"chunk_shape": CHUNK, "downsample": {}},
        **{name: {"smallest_voxels": least} for name in ("meshes", "skeletons")},
        "execution": {"executor": "serial"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    command = [sys.executable, "-m", "workflows.cli", "run", str(folder / "run.yaml")]
    seconds = processor_time([*command, "--quiet"], {"PYTHONPATH": str(ROOT)})
    status = [sys.executable, "-m", "workflows.cli", "status", str(folder / "run"), "--json"]
    stages = json.loads(subprocess.run(status, check=True, capture_output=True, cwd=ROOT).stdout)["stages"]
    for stage in stages:
        print(f"  {stage['name']:<24}{stage['seconds']:8.1f} seconds of chunks")
    print_peak("petaseg")
    return seconds


def igneous(python: Path, folder: Path, labels: np.ndarray, resolution: list[float], least: int) -> float:
    """The processor time of the peer, whose parts are printed."""
    script = ROOT / "benchmarks" / "peers" / "igneous_shapes.py"
    nm = ",".join(map(str, reversed(resolution)))
    places = [str(folder / name) for name in ("labels.npy", "peer")]
    return processor_time([str(python), str(script), *places, nm, str(least)], {})


def processor_time(command: list[str], environment: dict[str, str]) -> float:
    """Run a command; the seconds that it and its children have computed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    subprocess.run(command, check=True, env={**os.environ, **threads, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def print_peak(name: str) -> None:
    """Print the largest memory of a process so far."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"  {name}: {peak:.2f} GB at most")


if __name__ == "__main__":
    sys.exit(main())
