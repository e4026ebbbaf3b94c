"""RIGNet: the number of iterations against the score on the synthetic challenge.

Karim, Islam and Bruce (WACV 2019) report for a ResNet50-FCN on PASCAL VOC a mean IoU of 59.4 without gates, and 65.2,
68.3, 68.9 with 2, 4, 6 iterations in parallel unrolling. Here a small ResNet FCN is wrapped with 1 (the plain network)
to 4 iterations, in parallel unrolling with basic gates, and trained on the same pictures: with as many updates, and
for as long as four iterations take.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pipeline.experiments import challenge
from pipeline.experiments.base import Cell, Experiment, Key, Report, Scale, Trials, mean_spread
from pipeline.experiments.challenge import Fit, Learner
from pipeline.experiments.equal_time import seconds_per_update
from pipeline.models.facts import kmac_per_voxel, parameters
from pipeline.models.spec import build

ITERATIONS = (1, 2, 3, 4)
HOST: tuple[str, dict[str, Any]] = (
    "resnet_fcn",
    {"embedding_size": 16, "widths": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "block": "basic", "finest": 8},
)
PICTURES = 50
COLUMNS = ("iterations", "parameters", "kMAC a pixel", "AP, equal updates", "updates", "AP, equal time", "its updates")


@dataclass(frozen=True)
class Setting:
    """The settings that all trainings share."""

    fit: Fit
    tests: int = 16
    """Pictures to score on."""
    device: torch.device = challenge.CPU
    """Where networks are trained and scored."""

    @property
    def key(self) -> Key:
        """What of the device belongs to the key of a trial."""
        return {} if self.device == challenge.CPU else {"device": self.device.type}


def run(scale: Scale, store: Trials) -> Report:
    """Train with every number of iterations and every seed, at equal updates and at equal time."""
    setting = setting_of(scale)
    pace = paces(setting, store)
    rows: list[list[Cell]] = []
    scores: dict[str, list[list[float]]] = {"equal updates": [], "equal time": []}
    for iterations in ITERATIONS:
        longer = round(setting.fit.updates * pace[str(ITERATIONS[-1])] / pace[str(iterations)])
        row: list[Cell] = [iterations, *numbers(iterations)]
        for name, updates in zip(scores, (setting.fit.updates, longer), strict=True):
            found = [trial(iterations, updates, seed, setting, store)["ap"] for seed in scale.seeds]
            scores[name].append(found)
            row += [mean_spread(found, 3), updates]
        rows.append(row)
    return Report(COLUMNS, rows, notes(setting), lambda figure: draw(figure, scores))


def setting_of(scale: Scale) -> Setting:
    """The updates and pictures of a scale."""
    if scale.tiny:
        return Setting(Fit(3, patch=64), tests=2)
    updates = scale.updates(20_000 if scale.full else 150)
    return Setting(Fit(updates, patch=128, learning_rate=5e-3), scale.data(16), scale.device)


def arguments(iterations: int) -> dict[str, Any]:
    """The arguments of the RIGNet."""
    return {"host": HOST[0], "host_arguments": HOST[1], "iterations": iterations, "unrolling": "parallel"}


def learner(iterations: int, fit: Fit, seed: int, device: torch.device) -> Learner:
    """A RIGNet before its first update; with the same seed the hosts begin with the same weights."""
    data = challenge.pictures(PICTURES, challenge.TRAIN_SEED)
    return Learner("rignet", arguments(iterations), data, fit, seed, device)


def paces(setting: Setting, store: Trials) -> dict[str, float]:
    """Seconds of an update (on a CPU, of its processor) for each number of iterations, measured in turns."""
    key = {"trial": "rignet-pace", "host": list(HOST), "patch": setting.fit.patch} | setting.key

    def compute() -> dict[str, float]:
        learners = [learner(iterations, setting.fit, 0, setting.device) for iterations in ITERATIONS]
        return dict(zip(map(str, ITERATIONS), seconds_per_update(learners), strict=True))

    return store.get(key, compute)


def trial(iterations: int, updates: int, seed: int, setting: Setting, store: Trials) -> dict[str, float]:
    """One training and its score on pictures that were not trained on."""
    fit = replace(setting.fit, updates=updates)
    key = {"trial": "rignet", "host": list(HOST), "iterations": iterations, "updates": updates, "seed": seed}
    key |= {"fit": asdict(fit), "pictures": PICTURES, "tests": setting.tests} | setting.key

    def compute() -> dict[str, float]:
        trained = learner(iterations, fit, seed, setting.device)
        seconds, test = trained.run(), challenge.pictures(setting.tests, challenge.TEST_SEED)
        return {"seconds_per_update": seconds, **challenge.score(trained.network, test)}

    return store.get(key, compute)


def numbers(iterations: int) -> tuple[int, float]:
    """Parameters that are used (one iteration has no gates), and thousands of multiply-adds for each pixel."""
    known = {**arguments(iterations), "out_channels": 1}
    network = build(HOST[0], {**HOST[1], "out_channels": 1}) if iterations == 1 else build("rignet", known)
    return parameters(network), round(kmac_per_voxel("rignet", known, (1, 128, 128)), 2)


def notes(setting: Setting) -> list[str]:
    """Remarks that explain the table."""
    time = "CPU time" if setting.device == challenge.CPU else "time on the GPU"
    return [
        f"{PICTURES} pictures of 128 x 128 to train on, {setting.tests} others to score on; mean ± spread over seeds.",
        f"Equal time: the {time} that {ITERATIONS[-1]} iterations take for {setting.fit.updates} updates.",
    ]


def draw(figure: Figure, scores: dict[str, list[list[float]]]) -> None:
    """Average precision against iterations; a dot for each seed."""
    axes = figure.subplots()
    for colour, (name, found) in zip(("C0", "C1"), scores.items(), strict=True):
        axes.plot(ITERATIONS, [np.mean(values) for values in found], marker="o", color=colour, label=name)
        for iterations, values in zip(ITERATIONS, found, strict=True):
            axes.plot([iterations] * len(values), values, ".", color=colour, alpha=0.4)
    axes.set(xlabel="iterations", ylabel="average precision", xticks=ITERATIONS)
    axes.legend(frameon=False)


EXPERIMENT = Experiment(
    name="rignet-iterations", title="Iterations of RIGNet against score", run=run, figure_inches=(6.0, 4.0)
)
