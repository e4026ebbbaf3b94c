"""Small runs for tests: made in a folder, run as a user runs them, and compared byte for byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import yaml

from pipeline.geometry import BoundingBox
from pipeline.runs.report import read_merge_tree
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec
from workflows.driver import segment

VOLUMES = ("affinities", "supervoxels", "labels")


def write_volume(path: Path, array: np.ndarray, resolution_nm=(8, 8, 8), start=(0, 0, 0)) -> str:
    """Store an array (z, y, x) or (c, z, y, x) as a volume; returns its path."""
    box = BoundingBox.from_shape(array.shape[-3:], start)
    spec = VolumeSpec(box, tuple(map(float, resolution_nm)), array.dtype, len(array) if array.ndim == 4 else None)
    create_volume(str(path), spec).write(box, array)
    return str(path)


def real_affinities(shared_data: Path, shape=(48, 60, 70)) -> np.ndarray:
    """A corner of the shared FIB-25 affinities, (3, z, y, x) uint8."""
    with h5py.File(shared_data / "fib25_train2_affinities.h5") as file:
        return file["affinities"][:, 190 : 190 + shape[0], 60 : 60 + shape[1], 80 : 80 + shape[2]]


def write_run(folder: Path, **tables) -> Path:
    """A run file in ``folder``; its run directory is ``folder/run``."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"run_directory": "run", "execution": {"executor": "serial"}, **tables}
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def affinity_run(folder: Path) -> Path:
    """A run file for random affinities of 20 x 24 x 28 voxels in eight chunks."""
    affinities = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 28)).astype(np.uint8)
    given = {"affinities": write_volume(folder / "affinities.zarr", affinities)}
    shapes = {"chunk_shape": [10, 12, 14], "storage_chunk_shape": [10, 12, 14]}
    return write_run(folder, input=given, supervoxels={"threshold": 0.3, "filter_width": 1}, **shapes)


def run(file: Path, *overrides: str) -> Run:
    """Run a run file in this process, as ``petaseg run`` does, and return the run."""
    opened.forget()
    return segment(str(file), overrides).run


def petaseg(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def results(finished: Run) -> dict[str, bytes]:
    """All results that must not depend on the chunking, as bytes."""
    opened.forget()
    if finished.kind.name != "neurons":
        return {finished.kind.volume: open_volume(finished.result_url).read(finished.layout.roi).tobytes()}
    has_network = finished.inputs.network is not None
    names = VOLUMES if has_network else VOLUMES[1:]
    roi = finished.layout.roi
    found = {name: open_volume(finished.layout.volume_url(name)).read(roi).tobytes() for name in names}
    return {**found, "merge_tree": read_merge_tree(finished).tobytes()}
