"""What makes neurons right: trainings and runs of the plain U-Net on real tissue, with one thing changed in each row.

Trainings differ in their loss, targets, patches, augmentation or weights, and have the same CPU minutes. Below them the
network of the first row, trained but once, is used in other ways: other patches, augmented copies, other supervoxels.
The last rows have all changes that helped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.plain import BASE, OFFSETS, Reading, Sizes, Variant, affinities, scored, trained
from pipeline.experiments.whole_volume import LARGEST, Cutting

COLUMNS = (
    *("changed", "updates", "cut-edge F1", "threshold", "VOI split", "VOI merge", "VOI", "less the first row"),
    *("best VOI", "perfect agglomeration", "ARE"),
)


READING, CUTTING = Reading(), Cutting()
"""How networks predict and affinities are cut, unless a row says otherwise."""


@dataclass(frozen=True)
class Row:
    """One thing that is changed."""

    label: str
    variant: Variant = BASE
    reading: Reading = READING
    cutting: Cutting = CUTTING


def target(label: str, *others: dict[str, Any], **changes: Any) -> Row:
    """A row whose affinities are trained in another way, or beside other targets."""
    return Row(label, Variant(label, {"targets": [affinities(**changes), *others]}))


def training(label: str, **changes: Any) -> Row:
    """A row whose training file has other keys."""
    return Row(label, Variant(label, changes))


FIRST = Row("nothing")
TRAININGS = (
    target("loss: classes balanced in each channel", losses=[{"kind": "balanced_bce"}]),
    target("loss: classes balanced over all channels", weights="ratio"),
    target("loss: thin parts weigh more", weights="calibre"),
    target("erosion 0", erosion="none"),
    target("erosion 2", label_erosion=2),
    target("offsets 1", offsets=OFFSETS[:3]),
    target("offsets 1, 3, 9, 18", offsets=[*OFFSETS, *([2 * n for n in offset] for offset in OFFSETS[6:])]),
    target("shape descriptors beside them", {"what": "shape_descriptors"}),
    training("patches of 96", patch_shape=[96] * 3),
    training("augmentation: flips", augmentation="flips"),
    training("augmentation: elastic, half of the patches", augmentation={"elastic": 0.5}),
    training("augmentation: elastic, twice as far", augmentation={"elastic": 0.5, "elastic_voxels": 8.0}),
    training("augmentation: pytc", augmentation="pytc"),
)
READINGS = (
    Row("the last weights, not their mean", reading=Reading(averaged=False)),
    Row("run: patches of 64, overlap 16", reading=Reading(64, 16)),
    Row("run: patches of 96, overlap 24", reading=Reading(96, 24)),
    Row("run: patches of 128, overlap 16", reading=Reading(128, 16)),
    Row("run: patches of 128, overlap 48", reading=Reading(128, 48)),
    Row("run: mean of 8 flipped copies", reading=Reading(augmentation="flips")),
    Row("run: least of 8 flipped copies", reading=Reading(augmentation="flips", augmentation_rule="min")),
)
CUTTINGS = (
    Row("contact: offset 3 counts too", cutting=Cutting(far=(3, 4, 5))),
    Row("contact: offset 9 counts too", cutting=Cutting(far=(6, 7, 8))),
    Row("supervoxels: borders by evidence below 0.8", cutting=Cutting(0.8)),
    Row("supervoxels: borders by evidence below 0.9", cutting=Cutting(0.9)),
    Row("supervoxels: inside above a half", cutting=Cutting(rules={"threshold": LARGEST // 2})),
    Row("supervoxels: no filter", cutting=Cutting(rules={"filter_width": 1})),
    Row("supervoxels: filter of 5", cutting=Cutting(rules={"filter_width": 5})),
    Row("supervoxels: distances up to 120 nm", cutting=Cutting(rules={"max_distance_nm": 120})),
)
ROWS = (FIRST, *TRAININGS, *READINGS, *CUTTINGS)
OF_TINY = (FIRST, TRAININGS[0], TRAININGS[7], READINGS[0], READINGS[5], CUTTINGS[0], CUTTINGS[2])


def run(scale: Scale, store: Trials) -> Report:
    """Train, predict, cut and score every row with every seed."""
    sizes, rows = Sizes.of(scale), OF_TINY if scale.tiny else ROWS
    found: dict[str, list[Result]] = {row.label: [] for row in rows}
    for seed in scale.seeds:
        for row in rows:
            found[row.label].append(result(row, rows, seed, sizes, store))
    table = [line(label, results, found[FIRST.label]) for label, results in found.items()]
    return Report(COLUMNS, table, notes(sizes), lambda figure: draw(figure, found))


def result(row: Row, rows: Sequence[Row], seed: int, sizes: Sizes, store: Trials) -> Result:
    """The scores of one row; its affinities are predicted once for all rows that differ from it only behind them."""
    key, facts = trained(sizes.variant(row.variant), seed, sizes, store)
    cuttings = [other.cutting for other in rows if (other.variant, other.reading) == (row.variant, row.reading)]
    return {**facts, **scored(key, row.reading, cuttings, sizes, store)[cuttings.index(row.cutting)]}


def line(label: str, results: Sequence[Result], first: Sequence[Result]) -> list[Cell]:
    """A line of the table: mean and spread over the seeds, and what each seed differs from the first row."""
    names = ("score", "threshold", "voi_split", "voi_merge", "voi", "best_voi", "perfect_voi", "adapted_rand_error")
    over = {name: mean_spread([result[name] for result in results]) for name in names}
    return [
        *(label, results[0]["steps"], mean_spread([result["score"] for result in results], 3), over["threshold"]),
        *(over["voi_split"], over["voi_merge"], over["voi"], differences(results, first)),
        *(over["best_voi"], over["perfect_voi"]),
        mean_spread([result["adapted_rand_error"] for result in results], 3),
    ]


def differences(results: Sequence[Result], first: Sequence[Result]) -> str:
    """VOI of each seed less that of the first row with the same seed; nothing for that row."""
    if results is first:
        return ""
    return ", ".join(f"{here['voi'] - there['voi']:+.2f}" for here, there in zip(results, first, strict=True))


def notes(sizes: Sizes) -> list[str]:
    """Remarks that explain the table."""
    return [
        f"{sizes.seconds / 60:g} CPU minutes of one thread for each training, bfloat16.",
        "Threshold: chosen on planes 169 to 184; scores: planes 186 to 249, VOI in bits, 0 is best.",
        "Best VOI: at the threshold that would have been best there; perfect agglomeration: each supervoxel is given "
        "to the neuron that holds most of it.",
    ]


def draw(figure: Figure, found: dict[str, list[Result]]) -> None:
    """Draw how far each row's VOI lies from the first row's, with the same seed; left is better."""
    axes = figure.subplots()
    first, labels = found[FIRST.label], [label for label in found if label != FIRST.label]
    for height, label in enumerate(reversed(labels)):
        pairs = list(zip(found[label], first, strict=True))
        for name, mark in (("voi", "o"), ("best_voi", "|")):
            apart = [here[name] - there[name] for here, there in pairs]
            axes.plot(apart, [height] * len(apart), mark, color="C0" if mark == "o" else "0.5", markersize=6)
    axes.axvline(0, color="0.7", linewidth=1)
    axes.set_yticks(range(len(labels)), list(reversed(labels)))
    axes.set(xlabel="VOI less that of the first row with the same seed (bits); grey: at the best threshold")


EXPERIMENT = Experiment(
    name="ablation",
    title="What makes neurons right: one thing changed at a time",
    run=run,
    figure_inches=(10.0, 8.0),
    timed=True,
    seeds=(0, 1),
)
