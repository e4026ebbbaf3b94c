"""RIGNet's gates and their controls: how a gate squashes and pools, where it comes from, and how blocks repeat.

Karim, Islam and Bruce (WACV 2019) compare, on PASCAL VOC, products with a sigmoid (65.2) and with a tanh (65.2) and a
rectified sum (64.2) for a ResNet50-FCN of two iterations; average, maximum and no pool (68.9, 68.3, 68.3) with
ResNet101; sequential, parallel and multi-range unrolling (65.4, 65.2, 67.2). Here the same choices are made one by one
around the gate of ``rignet-iterations``, with a network-wide recurrence (one gate, from the last block to the first)
and the plain host as controls, on the same pictures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.experiments import challenge
from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.challenge import Learner
from pipeline.experiments.rignet_iterations import HOST, PICTURES, Setting, arguments, setting_of
from pipeline.models.facts import kmac_per_voxel, parameters
from pipeline.models.spec import build

ITERATIONS = 2
COLUMNS = ("gate", "parameters", "kMAC a pixel", "AP", "best F1", "gain over the plain host")


@dataclass(frozen=True)
class Arm:
    """One network: what differs from the basic gate."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


PLAIN = Arm("none (plain host)", {"iterations": 1})
ARMS = (
    PLAIN,
    Arm("sigmoid, average pool, parallel"),
    Arm("tanh", {"squash": "tanh"}),
    Arm("rectified sum", {"squash": "add"}),
    Arm("maximum pool", {"pool": "maximum"}),
    Arm("no pool", {"pool": "none"}),
    Arm("sequential", {"unrolling": "sequential"}),
    Arm("multi-range", {"gates": "multi-range"}),
    Arm("network-wide", {"gates": "network-wide"}),
)


def run(scale: Scale, store: Trials) -> Report:
    """Train every arm with every seed, all with as many updates."""
    setting = setting_of(scale)
    found = {arm.name: [trial(arm, seed, setting, store) for seed in scale.seeds] for arm in ARMS}
    plain = [result["ap"] for result in found[PLAIN.name]]
    rows = [row(arm, found[arm.name], plain) for arm in ARMS]
    return Report(COLUMNS, rows, notes(setting, found), lambda figure: draw(figure, found))


def of(arm: Arm) -> dict[str, Any]:
    """The arguments of the RIGNet."""
    return {**arguments(ITERATIONS), **arm.options}


def trial(arm: Arm, seed: int, setting: Setting, store: Trials) -> Result:
    """One training and its score on pictures that were not trained on; with a seed all hosts begin alike."""
    key = {"trial": "rignet-gates", "arm": arm.name, "seed": seed, "arguments": of(arm), "fit": asdict(setting.fit)}
    key |= {"pictures": PICTURES, "tests": setting.tests} | setting.key

    def compute() -> Result:
        data = challenge.pictures(PICTURES, challenge.TRAIN_SEED)
        learner = Learner("rignet", of(arm), data, setting.fit, seed, setting.device)
        seconds, test = learner.run(), challenge.pictures(setting.tests, challenge.TEST_SEED)
        return {"seconds_per_update": seconds, **challenge.score(learner.network, test)}

    return store.get(key, compute)


def row(arm: Arm, results: list[Result], plain: list[float]) -> list[Cell]:
    """One row of the table; the difference to the plain host is taken within each seed."""
    known = {**of(arm), "out_channels": 1}
    network = build(HOST[0], {**HOST[1], "out_channels": 1}) if arm == PLAIN else build("rignet", known)
    work = round(kmac_per_voxel("rignet", known, (1, 128, 128)), 2)
    gained = [result["ap"] - base for result, base in zip(results, plain, strict=True)]
    scores = [mean_spread([result[key] for result in results], 3) for key in ("ap", "f1")]
    return [arm.name, parameters(network), work, *scores, mean_spread(gained, 3)]


def notes(setting: Setting, found: dict[str, list[Result]]) -> list[str]:
    """Remarks that explain the table, and the result in a line."""
    mean = {name: float(np.mean([result["ap"] for result in results])) for name, results in found.items()}
    best = max(mean, key=lambda name: mean[name])
    return [
        f"{PICTURES} pictures of 128 x 128 to train on, {setting.tests} others to score on, {setting.fit.updates} "
        f"updates, {ITERATIONS} iterations; mean ± spread over seeds.",
        f"The plain host has an average precision of {mean[PLAIN.name]:.3f}; the best is {best} with {mean[best]:.3f}.",
    ]


def draw(figure: Figure, found: dict[str, list[Result]]) -> None:
    """Average precision of every arm, a dot for each seed, and a line at the plain host."""
    axes = figure.subplots()
    names = list(found)[::-1]
    for place, name in enumerate(names):
        values = [result["ap"] for result in found[name]]
        axes.plot(values, [place] * len(values), ".", color="C0", alpha=0.4)
        axes.plot(np.mean(values), place, "o", color="C0")
    axes.axvline(float(np.mean([result["ap"] for result in found[PLAIN.name]])), color="0.6", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("average precision")


EXPERIMENT = Experiment(
    name="rignet-gates",
    title="RIGNet's other gates and a network-wide recurrence",
    run=run,
    figure_inches=(7.0, 4.0),
)
