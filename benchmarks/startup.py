"""What the small commands cost, and what a first run compiles: processor seconds, against another checkout.

    python benchmarks/startup.py [--against ../other-checkout] [--rounds 3]

A small run is made with each checkout, and its kernels are compiled into an empty folder: ``first run``. Then the
commands that compute nothing are timed, the two checkouts in turns, and the best of all rounds counts. Everything is
user plus system time of the process, so other work on the machine matters little. Exit status 1 if a small command of
this checkout takes more than 1.5 s.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.volumes import create_volume
from pipeline.volumes.base import VolumeSpec

HERE = Path(__file__).resolve().parents[1]
LIMIT_S = 1.5
RUN_FILE = """\
run_directory: run
input: {image: image.zarr}
inference: {model: synthetic-tiny, any_resolution: true}
evaluation: {labels: truth.zarr}
execution: {executor: serial}
"""
COMMANDS = {
    "help": ["--help"],
    "status of a run": ["status", "run"],
    "status of a file": ["status", "run.yaml"],
    "dry run": ["run", "run.yaml", "--dry-run"],
    "done run": ["run", "run.yaml"],
    "relabel": ["relabel", "run.yaml", "--threshold", "0.22"],
}


def main() -> int:
    """Measure and judge."""
    arguments = parse()
    checkouts = [HERE, *([arguments.against.resolve()] if arguments.against else [])]
    with tempfile.TemporaryDirectory(prefix="petaseg-startup-") as name:
        folders = {checkout: prepare(Path(name) / str(number)) for number, checkout in enumerate(checkouts)}
        first = {checkout: seconds(["run", "run.yaml"], checkout, folder) for checkout, folder in folders.items()}
        show("first run", first)
        slow = [
            command for command, words in COMMANDS.items() if timed(command, words, folders, arguments.rounds) > LIMIT_S
        ]
    if slow:
        print(f"more than {LIMIT_S} s: {', '.join(slow)}")
    return int(bool(slow))


def timed(command: str, words: list[str], folders: dict[Path, Path], rounds: int) -> float:
    """Processor seconds of a command in this checkout; those of all are printed."""
    best = dict.fromkeys(folders, float("inf"))
    for _ in range(rounds):
        for checkout, folder in folders.items():
            best[checkout] = min(best[checkout], seconds(words, checkout, folder))
    show(command, best)
    return best[HERE]


def show(command: str, taken: dict[Path, float]) -> None:
    """One line: this checkout, the other one, and their ratio."""
    mine, *others = taken.values()
    print(f"{command:<18}{mine:6.2f} s", *(f"{other:6.2f} s   {other / mine:.1f} times faster" for other in others))


def seconds(words: list[str], checkout: Path, folder: Path) -> float:
    """User and system seconds of a command, run with a checkout in a folder; raises if it fails."""
    before = spent()
    variables = {"PYTHONPATH": str(checkout), "NUMBA_CACHE_DIR": str(folder / "numba")}
    command = [sys.executable, "-m", "workflows.cli", *words]
    subprocess.run(command, cwd=folder, env={**os.environ, **variables}, check=True, capture_output=True)
    return spent() - before


def spent() -> float:
    """User and system seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def prepare(folder: Path) -> Path:
    """A folder with an image, labels and a run file."""
    rng, box = np.random.default_rng(1), BoundingBox.from_shape((32, 64, 64))
    arrays = {"image": rng.integers(0, 256, box.shape, np.uint8), "truth": rng.integers(1, 9, box.shape, np.uint32)}
    for name, array in arrays.items():
        spec = VolumeSpec(box, (8.0, 8.0, 8.0), array.dtype)
        create_volume(str(folder / f"{name}.zarr"), spec).write(box, array)
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of petaseg")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
