"""``petaseg suspects`` against three simple orders, on tissue that its model has not seen.

    python benchmarks/suspects.py --folder bench [--data ../shared/data] [--plot docs/images/suspects.png]

1. The shared FIB-25 cube is segmented from its shared affinities, whose network was trained on z < 170, and cut at
   several thresholds. The model is fitted to z < 186 of all of them, in which the sections from 169 on count five
   times: the network has not seen them, and makes more mergers there. ``--model FILE`` writes it.
2. The threshold is the best one on z 169..185. Candidates are judged on z >= 186, by labels that nothing has used.
3. gala_train, from another microscope cube and by another program's membranes, is judged with the same model.

Orders: minutes (ours), the same without ends and crossings of skeletons ("tree"), size of the smaller side, margin to
the threshold, and random (mean of five). For each: the share of the first 10, 50 and 100 places that are real errors,
VOI after an oracle has looked at so many and corrected what is wrong, and the mean VOI over 100 places, over the first
25 corrections, and over 30 minutes, in which a look takes 0.05 minutes (0.5 at a merger), and to mend an error 0.1 (1
at a merger).

Exit status 1 unless ours is below the simple orders in mean VOI over 100 places of the cube, at the best threshold
and at 0.5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.strict_yaml import dump_yaml
from pipeline.evaluation.drawing import INK, MERGE, SPLIT, TOTAL, new_figure, save_figure, tidy
from pipeline.evaluation.sweep import best, sweep
from pipeline.geometry import Vec
from pipeline.runs.report import read_merge_tree
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.suspects.calibration import fitted
from pipeline.suspects.candidates import KINDS, Candidates, find_candidates
from pipeline.suspects.costs import Costs
from pipeline.suspects.model import Model
from pipeline.suspects.oracle import Oracle, Step, correct
from pipeline.suspects.ranking import weighed
from pipeline.suspects.tables import Tables
from pipeline.suspects.truth import count_truth, open_labels
from workflows.driver import segment

TAUGHT, CHOSEN, JUDGED = (0, 169), (169, 186), (186, 250)
THRESHOLDS = (0.2, 0.25, 0.3, 0.4, 0.5)
ABOUT = (
    "FIB-25, fly medulla at 8 nm (Takemura et al. 2015 and FlyEM, CC BY): z < 186 of a cube of 250 voxels a side, "
    "with affinities of a small U-Net"
)
UNSEEN = 5.0
"""How often a candidate counts where the network was not trained."""
COSTS = Costs()
LOOK = {"split": COSTS.look, "merger": COSTS.look_merger}
MEND = {"split": COSTS.split, "merger": COSTS.merger}
SIMPLE = ("size", "margin", "random")
TREE = ("merger", "split")
"""Kinds of the merge tree."""
SHOWN = (10, 50, 100)
MARKS = (*range(5, 100, 5), *range(100, 401, 25))
CORRECTIONS, TIME = 25, 30.0
SEEDS = 5
COLOURS = {"minutes": TOTAL, "tree": "#8da0cb", "size": SPLIT, "margin": MERGE, "random": INK}


@dataclass(frozen=True, eq=False)
class Tissue:
    """A segmented volume, and labels to judge it by."""

    name: str
    run: Run
    oracle: Oracle
    found: list[Candidates]

    @cached_property
    def listed(self) -> list[Candidates]:
        """The candidates whose two supervoxels have labelled voxels."""
        return [each.chosen(np.isin(each.supervoxels, self.oracle.ids).all(axis=1)) for each in self.found]

    @property
    def known(self) -> list[Candidates]:
        """Those of the merge tree."""
        return [each for each in self.listed if each.kind in TREE]

    @property
    def voxel_um3(self) -> float:
        """The volume of a voxel."""
        return float(np.prod(self.run.layout.resolution_nm)) / 1e9

    @cached_property
    def joins(self) -> np.ndarray:
        """The edges of all segments' trees."""
        return np.concatenate([each.supervoxels for each in self.found if each.kind == "merger"])

    def joined(self, of: Callable[[Candidates], np.ndarray]) -> np.ndarray:
        """A number of all candidates."""
        return np.concatenate([of(each) for each in self.known])


def main() -> int:
    """Print the tables; see above."""
    arguments = parse()
    cube = run_file(
        arguments.folder, "fib25", {"affinities": f"{arguments.data}/fib25_train2_affinities.h5:affinities"}
    )
    truth = f"{arguments.data}/fib25_train2.h5:labels"
    found = {threshold: candidates_at(cube, threshold) for threshold in THRESHOLDS}
    taught, chosen, judged = (oracle_of(cube, truth, part) for part in (TAUGHT, CHOSEN, JUDGED))
    parts, rows = ((taught, 1.0), (chosen, UNSEEN)), [each for every in found.values() for each in every]
    model = fitted(((oracle, weight, each) for oracle, weight in parts for each in rows), ABOUT)
    if arguments.model:
        arguments.model.write_bytes(model.to_bytes())
    threshold = best(sweep(chosen.table, read_merge_tree(opened_at(cube, 0.5)), THRESHOLDS)).threshold
    tissues = [Tissue(f"FIB-25, threshold {at:g}", opened_at(cube, at), judged, found[at]) for at in (threshold, 0.5)]
    tissues.append(second_tissue(arguments.folder, arguments.data))
    curves = {tissue.name: judge(tissue, model) for tissue in tissues}
    if arguments.plot:
        draw(curves, arguments.plot)
    firsts = [curves[tissue.name] for tissue in tissues[:2]]
    return int(any(rows[order].over_places <= rows["minutes"].over_places for rows in firsts for order in SIMPLE))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", type=Path, help="write the fitted model here")
    parser.add_argument("--plot", type=Path, help="draw VOI against places here")
    return parser.parse_args()


# ---------------------------------------------------------------- runs


def run_file(folder: Path, name: str, given: dict[str, str], **tables: Any) -> Path:
    """A run file; its directory lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {key: str(Path(value).absolute()) for key, value in given.items()}
    data = {
        "run_directory": str(folder.absolute() / name),
        "input": given,
        "chunk_shape": [128, 128, 128],
        "skeletons": {},
    }
    file = folder / f"{name}.yaml"
    file.write_text(dump_yaml({**data, "execution": {"executor": "serial"}, "skeletons": {}, **tables}))
    return file


def opened_at(file: Path, threshold: float) -> Run:
    """The run, cut at a threshold."""
    return Run.open(str(file), [f"segmentation.threshold={threshold}"])


def candidates_at(file: Path, threshold: float) -> list[Candidates]:
    """Segment, and find all candidates."""
    opened.forget()
    segment(str(file), [f"segmentation.threshold={threshold}"])
    return list(find_candidates(Tables(opened_at(file, threshold))))


def oracle_of(file: Path, truth: str, part: tuple[int, int] | None = None) -> Oracle:
    """The labels of a run, or of some of its sections."""
    run = opened_at(file, 0.5)
    roi = run.layout.roi
    first, last = part or (roi.start.z, roi.stop.z)
    ends = Vec(first, *roi.start[1:]), Vec(last, *roi.stop[1:])
    return Oracle.of(count_truth(run, open_labels(run, truth, *ends)))


def second_tissue(folder: Path, data: Path) -> Tissue:
    """gala_train, at the default threshold: its membranes are those of ilastik."""
    file = run_file(folder, "gala", {"membranes": f"{data}/gala_train.h5:boundaries"})
    found = candidates_at(file, 0.5)
    return Tissue(
        "gala_train, threshold 0.5", opened_at(file, 0.5), oracle_of(file, f"{data}/gala_train.h5:labels"), found
    )


# ---------------------------------------------------------------- orders


@dataclass(frozen=True, eq=False)
class Curve:
    """One order on one tissue."""

    real: np.ndarray
    """bool (n,): which of its places are errors"""
    steps: list[Step]

    def precision(self, first: int) -> float:
        """The share of the first places that are errors."""
        return float(self.real[:first].mean())

    def voi(self, looked: int) -> float:
        """VOI after so many places."""
        return next(step.voi for step in reversed(self.steps) if step.looked <= looked)

    @property
    def over_places(self) -> float:
        """Mean VOI over the first places."""
        return self._mean([step.looked for step in self.steps], SHOWN[-1])

    @property
    def over_corrections(self) -> float:
        """Mean VOI over the first corrections."""
        return self._mean([step.corrected for step in self.steps], CORRECTIONS)

    @property
    def over_time(self) -> float:
        """Mean VOI over the first minutes."""
        return self._mean([step.minutes for step in self.steps], TIME)

    def _mean(self, at: Sequence[float], until: float) -> float:
        """The mean of VOI, linear between the steps and constant behind the last."""
        places = np.linspace(0, until, 301)
        return float(np.interp(places, at, [step.voi for step in self.steps]).mean())


def judge(tissue: Tissue, model: Model) -> dict[str, Curve]:
    """Print the table of a tissue."""
    chance = {id(each): model.probability(each) for each in tissue.listed}
    worth = {
        "size": tissue.joined(lambda each: each.sides[:, 0].astype(float)),
        "margin": tissue.joined(lambda each: -each.feature("margin")),
    }
    curves = {"minutes": ours(tissue, model, KINDS), "tree": ours(tissue, model, TREE)}
    curves |= {name: follow(tissue, values) for name, values in worth.items()}
    many = len(worth["size"])
    by_chance = [follow(tissue, np.random.default_rng(seed).random(many)) for seed in range(SEEDS)]
    curves["random"] = Curve(np.mean([c.real for c in by_chance], axis=0), mean_steps([c.steps for c in by_chance]))
    real, known = (tissue.joined(lambda each, which=which: tissue.oracle.judge(each)[which]) for which in range(2))
    expected = tissue.joined(lambda each: chance[id(each)])[known].sum()
    print(f"\n{tissue.name}: {many:,} candidates, {real.sum():,} real errors, {expected:,.0f} expected")
    show_others(tissue, chance)
    heads = [
        "order",
        *(f"of {n}" for n in SHOWN),
        *(f"VOI {n}" for n in (0, *SHOWN)),
        "places",
        "corrections",
        "minutes",
    ]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, curve in curves.items():
        shares = [f"{curve.precision(n):.0%}" for n in SHOWN]
        numbers = [*(curve.voi(n) for n in (0, *SHOWN)), curve.over_places, curve.over_corrections, curve.over_time]
        print("| " + " | ".join([name, *shares, *(f"{number:.3f}" for number in numbers)]) + " |", flush=True)
    return curves


def show_others(tissue: Tissue, chance: dict[int, np.ndarray]) -> None:
    """Print how many candidates of other kinds can be judged, how many of those are real, and how many are expected."""
    for kind in KINDS:
        mine = [(each, *tissue.oracle.judge(each)) for each in tissue.listed if each.kind == kind]
        real, known = (sum(int(each[column].sum()) for each in mine) for column in (1, 2))
        expected = sum(float(chance[id(each)][judged].sum()) for each, _, judged in mine)
        print(f"{kind}: {known:,} judged, {real:,} real, {expected:,.0f} expected")


def ours(tissue: Tissue, model: Model, kinds: Collection[str]) -> Curve:
    """The places in the order of the list, which has each correction once; candidates of some kinds alone."""
    best = weighed(Candidates.none(TREE[0]), model, COSTS, tissue.voxel_um3)
    for each in tissue.listed:
        if each.kind in kinds:
            best = best.with_rows(weighed(each, model, COSTS, tissue.voxel_um3)).best(MARKS[-1])
    real = np.zeros(len(best), bool)
    for kind in kinds:
        rows = best.kind == kind
        real[rows] = tissue.oracle.judge(replace(Candidates.none(kind), supervoxels=best.supervoxels[rows]))[0]
    errors = [KINDS[kind].error for kind in best.kind]
    return corrected(tissue, errors, best.supervoxels, real)


def follow(tissue: Tissue, worth: np.ndarray) -> Curve:
    """Look at places from the highest worth down; of equal ones at the smaller supervoxels first."""
    pairs, kinds = (
        tissue.joined(lambda each: each.supervoxels),
        tissue.joined(lambda each: np.full(len(each), each.kind)),
    )
    real = tissue.joined(lambda each: tissue.oracle.judge(each)[0])
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -worth))[: MARKS[-1]]
    return corrected(tissue, kinds[order].tolist(), pairs[order], real[order])


def corrected(tissue: Tissue, errors: Sequence[str], pairs: np.ndarray, real: np.ndarray) -> Curve:
    """The state after each place of an order."""
    places = zip(errors, pairs, real, strict=True)
    return Curve(real, correct(tissue.oracle.table, tissue.joins, places, look=LOOK, mend=MEND, marks=MARKS))


def mean_steps(curves: Sequence[Sequence[Step]]) -> list[Step]:
    """The mean of several curves with the same marks."""
    return [Step(*np.mean([astuple(step) for step in steps], axis=0)) for steps in zip(*curves, strict=True)]


def draw(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    """VOI against places, a panel for each tissue."""
    figure = new_figure((3.6 * len(curves), 2.9))
    for axes, (name, rows) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for order, curve in rows.items():
            steps = [step for step in curve.steps if step.looked <= 200]
            axes.plot([s.looked for s in steps], [s.voi for s in steps], color=COLOURS[order], label=order)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("places looked at")
        axes.set_ylabel("VOI (bits)")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    save_figure(figure, path, 110)


if __name__ == "__main__":
    sys.exit(main())
