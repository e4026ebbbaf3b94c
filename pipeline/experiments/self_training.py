"""Self-training on real tissue: does it help at 1 % and 10 % of the labels?

A network is trained on a box of labels of FIB-25. Then it is trained on, from these weights and for as many updates
again, in three ways: on the same labels, the control; and as ``petaseg self-train`` does, on the labels and on what it
is sure of in the unlabelled tissue around them, by its probabilities or by the agreement of flipped copies. So the arms
differ in nothing but the volumes that they see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.experiments import fib25
from pipeline.experiments.base import Cell, Experiment, Key, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.fib25 import Network, Training
from pipeline.experiments.label_efficiency import OFFSETS, part, score
from pipeline.few_labels.rounds import SelfTraining
from pipeline.few_labels.self_training import Steps, self_train
from pipeline.few_labels.sure import AGREEMENT, PROBABILITY
from pipeline.geometry import BoundingBox, Vec
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train

PERCENTS = (1, 10)
ARMS = ("first training", "on the labels alone", "self-trained", "self-trained, by agreement")
NETWORK: dict[str, Any] = {
    **{"widths": [12, 16, 24], "pools": [[2, 2, 2]] * 2, "stride": [2, 2, 2]},
    **{"first_kernel": [3, 3, 3], "embedding": [3, 3, 3]},
}
PATCH = (40, 40, 40)
SURE = 0.6
"""Probabilities above 0.8 or below 0.2."""
AGREED = 0.8
"""Copies that differ by at most 0.2."""


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is."""

    updates: int
    """Updates of the first training, and of each that follows."""
    unlabelled: Vec
    """The box of tissue without labels: it begins at the first voxel of the training part."""
    patch: tuple[int, int, int] = PATCH
    sure: float = SURE
    agreed: float = AGREED

    @classmethod
    def of(cls, scale: Scale) -> Sizes:
        """The sizes of a scale."""
        if scale.tiny:
            return cls(4, Vec(32, 48, 48), (24, 24, 24), 0.001, 0.001)
        updates = scale.updates(20_000 if scale.full else 400)
        return cls(updates, Vec(169, 250, 250) if scale.full else Vec(96, 160, 160))

    @property
    def training(self) -> Training:
        """The settings of all trainings."""
        return Training(patch=self.patch, offsets=OFFSETS, validations=1)


def run(scale: Scale, store: Trials) -> Report:
    """Train every arm at every share of the labels, with every seed; a seed also places the labelled box."""
    sizes = Sizes.of(scale)
    found: dict[tuple[int, str], list[Result]] = {(percent, arm): [] for percent in PERCENTS for arm in ARMS}
    for seed in scale.seeds:
        for percent in PERCENTS:
            for arm in ARMS:
                found[percent, arm].append(trial(arm, percent, seed, sizes, store))
    rows = [row(percent, arm, results) for (percent, arm), results in found.items()]
    columns = ["labels", "arm", "AP", "AP of each seed", "best F1", "sure voxels"]
    return Report(columns, rows, notes(sizes, found), lambda figure: draw(figure, found))


def trial(arm: str, percent: int, seed: int, sizes: Sizes, store: Trials) -> Result:
    """The scores of one arm; the first training is that of the other two."""
    first = first_key(percent, seed, sizes)
    config = first_config(store.file(first, ""), percent, seed, sizes)
    before = store.get(first, lambda: trained(config, sizes))
    if arm == ARMS[0]:
        return before
    key = {**first, "trial": "self-training", "arm": arm}
    if arm == ARMS[1]:
        return store.get(key, lambda: trained(trained_on(config, store.file(key, "")), sizes))
    by, sure = (PROBABILITY, sizes.sure) if arm == ARMS[2] else (AGREEMENT, sizes.agreed)
    key |= {"sure": sure, "unlabelled": list(sizes.unlabelled)}
    box = BoundingBox.from_shape(sizes.unlabelled)
    image, folder = f"{fib25.data_file().resolve()}:raw", store.file(key, "").resolve()
    plan = SelfTraining(config, image, folder, box, sure=sure, sure_by=by)
    return store.get(key, lambda: self_trained(plan, sizes, store))


def first_key(percent: int, seed: int, sizes: Sizes) -> Key:
    """The identity of a first training."""
    first = {"trial": "self-training-first", "percent": percent, "seed": seed, "updates": sizes.updates}
    return {**first, "network": NETWORK, "patch": sizes.patch}


def trained(config: TrainConfig, sizes: Sizes) -> Result:
    """Train, and score on the test part."""
    return score(Path(config.output), train(config).best.score, sizes.patch)


def trained_on(first: TrainConfig, folder: Path, **changes: object) -> TrainConfig:
    """The training that goes on from the weights of a first one."""
    places = {"output": str(folder.resolve()), "start_from": str(Path(first.output) / "card.yaml")}
    return first.model_copy(update={**places, **changes})


def first_config(folder: Path, percent: int, seed: int, sizes: Sizes) -> TrainConfig:
    """The first training."""
    network = Network("U-Net", "residual_unet", NETWORK)
    boxes = [part(percent, seed)]
    return fib25.train_config(folder.resolve(), network, sizes.training, boxes, steps=sizes.updates, seed=seed)


def self_trained(plan: SelfTraining, sizes: Sizes, store: Trials) -> Result:
    """The scores after one round of self-training."""
    lines = self_train(plan, Steps(train=train, run=fib25.drive, say=store.say))
    after = lines[-1]
    return {**score(Path(after["model"]), after[plan.score], sizes.patch), "sure": after["sure"]}


def row(percent: int, arm: str, results: Sequence[Result]) -> list[Cell]:
    """A line of the table."""
    precisions = [result["ap"] for result in results]
    sure = mean_spread([result["sure"] for result in results], 2) if "sure" in results[0] else ""
    each = ", ".join(f"{value:.3f}" for value in precisions)
    return [f"{percent} %", arm, mean_spread(precisions, 3), each, mean_spread([r["f1"] for r in results], 3), sure]


def notes(sizes: Sizes, found: dict[tuple[int, str], list[Result]]) -> list[str]:
    """Remarks that explain the table."""
    remarks = [
        f"AP: average precision of cut edges on planes 186 to 250; {sizes.updates} updates of the first training, and "
        f"as many again of the others; unlabelled: {list(sizes.unlabelled)} voxels of planes below 169; --sure "
        f"{sizes.sure}, by agreement {sizes.agreed}."
    ]
    for percent, arm in product(PERCENTS, ARMS[2:]):
        control, after = ([result["ap"] for result in found[percent, each]] for each in (ARMS[1], arm))
        gains = ", ".join(f"{b - a:+.3f}" for a, b in zip(control, after, strict=True))
        remarks.append(f"{percent} %: {arm}, less control, seed by seed: {gains}.")
    return remarks


def draw(figure: Figure, found: dict[tuple[int, str], list[Result]]) -> None:
    """Average precision of each arm, with a line for each seed; a panel for each share of the labels."""
    for axes, percent in zip(figure.subplots(1, len(PERCENTS), sharey=True), PERCENTS, strict=True):
        values = np.array([[result["ap"] for result in found[percent, arm]] for arm in ARMS])
        for seed, line in enumerate(values.T):
            axes.plot([0, 1], line[:2], "o-", color=f"C{seed}", alpha=0.6)
            for place, style in ((2, "o--"), (3, "o:")):
                axes.plot([0, place], line[[0, place]], style, color=f"C{seed}", alpha=0.6)
        axes.plot(range(len(ARMS)), values.mean(1), "_", color="black", markersize=24)
        names = [arm.replace(", ", ",\n") for arm in ARMS]
        axes.set(xticks=range(len(ARMS)), xticklabels=names, title=f"{percent} % of the labels")
        axes.set_ylabel("average precision")


EXPERIMENT = Experiment(
    name="self-training", title="Does self-training help at 1 and 10 % of the labels?", run=run, figure_inches=(10, 4)
)
