"""Borders of supervoxels by distance and by evidence: quality on real tissue, and processor time.

    python benchmarks/borders.py [--affinities run/affinities.zarr] [--levels 0.7 0.8 0.9] [--far] [--data FOLDER]

One row for borders by distance, then one for each border level: supervoxels of the whole volume, region graph and merge
tree, the threshold chosen on z 169 to 185 where its neighbours are good too, scores on z >= 186, the best that any
threshold reaches there, and the VOI of a perfect agglomeration: each supervoxel is given to the neuron that holds most
of it, so what is left is the fault of supervoxels alone. ``--far`` adds the channels of offset 3 to the mean of a
contact; they are channels 3 to 5. The last column is the processor time of supervoxels, the best of three rounds.

Exit status 1 unless each level leaves a perfect agglomeration less to answer for than distance does, in at most 1.1
times its time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.evaluation.scores import Scores
from pipeline.experiments.whole_volume import Cutting, judge, merge_tree, supervoxels
from pipeline.geometry import Vec
from pipeline.segmentation.supervoxels import SupervoxelRules
from pipeline.volumes import open_volume

ROOT = Path(__file__).resolve().parents[1]
CHOSEN, REPORTED = slice(169, 186), slice(186, 250)
FAR = (Vec(-3, 0, 0), Vec(0, -3, 0), Vec(0, 0, -3))
ROUNDS = 3
SLOWER = 1.1


@dataclass(frozen=True)
class Row:
    """What one way to place borders comes to."""

    name: str
    perfect: float
    """VOI of a perfect agglomeration."""
    seconds: float
    """Processor time of the supervoxels."""


def main() -> int:
    """Print the table; whether the claim holds."""
    arguments = parse()
    affinities, truth = load(arguments)
    print("borders | supervoxels | threshold | VOI | adapted Rand error | best VOI | perfect agglomeration | seconds")
    distance, *levels = [
        measure(level, affinities, truth, FAR if arguments.far else ()) for level in [0.0, *arguments.levels]
    ]
    wrong = [row.name for row in levels if row.perfect >= distance.perfect or row.seconds > SLOWER * distance.seconds]
    print(f"claim: {'holds' if not wrong else 'does not hold with ' + ', '.join(wrong)}")
    return int(bool(wrong))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("PETASEG_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=folder, help="holds fib25_train2.h5 and its affinities")
    parser.add_argument("--affinities", help="a volume of the same box; those of --data if left out")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.7, 0.8, 0.9])
    parser.add_argument("--far", action="store_true", help="offset 3 in the mean of a contact")
    return parser.parse_args()


def load(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Affinities, uint8 (c, z, y, x), and the true labels, uint32 (z, y, x)."""
    url = arguments.affinities or f"{arguments.data}/fib25_train2_affinities.h5:affinities"
    volume = open_volume(url)
    affinities = volume.read(volume.spec.bounds)[: 6 if arguments.far else 3]
    with h5py.File(arguments.data / "fib25_train2.h5") as file:
        return np.ascontiguousarray(affinities), file["labels"][:].astype(np.uint32)


def measure(level: float, affinities: np.ndarray, truth: np.ndarray, far: tuple[Vec, ...]) -> Row:
    """Score borders by evidence below ``level``, by distance if it is 0, and print the row."""
    name = f"evidence {level}" if level else "distance"
    ids, seconds = timed_supervoxels(affinities[:3], Cutting(level).supervoxel_rules)
    found = judge(ids, merge_tree(ids, affinities, far), truth, CHOSEN, REPORTED)
    print(
        f"{name} | {found.supervoxels} | {found.chosen.threshold:.3f} | {described(found.scores)} | "
        f"{found.scores.adapted_rand_error:.3f} | {found.best.voi:.2f} | {described(found.perfect)} | {seconds:.2f}",
        flush=True,
    )
    return Row(name, found.perfect.voi, seconds)


def timed_supervoxels(affinities: np.ndarray, rules: SupervoxelRules) -> tuple[np.ndarray, float]:
    """Ids, uint64 (z, y, x), unchunked, and the processor time of the best round."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        ids = supervoxels(affinities, rules)
        times.append(time.process_time() - began)
    return ids, min(times)


def described(scores: Scores) -> str:
    """VOI and its parts."""
    return f"{scores.voi:.2f} ({scores.voi_split:.2f} + {scores.voi_merge:.2f})"


if __name__ == "__main__":
    sys.exit(main())
