"""RIGNet: how often should a network run over its own input? Iterations against score on the synthetic challenge.

Karim, Islam and Bruce (WACV 2019) report for a ResNet50-FCN on PASCAL VOC a mean IoU of 59.4 without gates, and 65.2,
68.3, 68.9 with 2, 4, 6 iterations in parallel unrolling. Here a small ResNet FCN and a small U-Net are wrapped with 1
(the plain network) to 4 iterations, in parallel unrolling with basic gates, and trained on the same pictures: with as
many updates, and for as long as four iterations take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.experiments import challenge
from pipeline.experiments.base import Cell, Experiment, Report, Scale, Trials, mean_spread
from pipeline.experiments.challenge import Fit, Learner
from pipeline.models.facts import kmac_per_voxel, parameters
from pipeline.models.spec import build

ITERATIONS = (1, 2, 3, 4)
SMALL: dict[str, Any] = {
    "embedding_size": 16,
    "widths": [16, 24, 32, 48],
    "depths": [1, 1, 1, 1],
    "block": "basic",
    "finest": 8,
}
HOSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet FCN": ("resnet_fcn", SMALL),
    "U-Net": ("residual_unet", {"widths": [8, 12, 16], "dimension": 2, "norm": "instance"}),
}
FITS = {"ResNet FCN": Fit(150, patch=128, learning_rate=5e-3), "U-Net": Fit(120, patch=64, learning_rate=1e-2)}
PICTURES, TESTS = 50, 16


@dataclass(frozen=True)
class Setting:
    """What all trainings of a host have in common."""

    fit: Fit
    tests: int = TESTS


def run(scale: Scale, store: Trials) -> Report:
    """Every host, iteration and seed; at equal updates, and at equal time."""
    rows: list[list[Cell]] = []
    scores: dict[tuple[str, str], list[list[float]]] = {}
    for host in HOSTS:
        setting = setting_of(host, scale)
        pace = paces(host, setting, store)
        for iterations in ITERATIONS:
            longer = round(setting.fit.updates * pace[str(ITERATIONS[-1])] / pace[str(iterations)])
            plans = {"equal updates": setting.fit.updates, "equal time": longer}
            found = {
                name: [trial(host, iterations, updates, seed, setting, store)["ap"] for seed in scale.seeds]
                for name, updates in plans.items()
            }
            for name, values in found.items():
                scores.setdefault((host, name), []).append(values)
            cells = [mean_spread(values, 3) for values in found.values()]
            rows.append([host, iterations, *numbers(host, iterations), *cells, longer])
    columns = ["host", "iterations", "parameters", "kMAC a pixel", "AP, equal updates", "AP, equal time", "its updates"]
    return Report(columns, rows, notes(scale), lambda figure: draw(figure, scores))


def setting_of(host: str, scale: Scale) -> Setting:
    """Updates and pictures."""
    if scale.tiny:
        return Setting(replace(FITS[host], updates=3, patch=64), tests=2)
    return Setting(replace(FITS[host], updates=20_000) if scale.full else FITS[host])


def arguments(host: str, iterations: int) -> dict[str, Any]:
    """Of the RIGNet."""
    architecture, inner = HOSTS[host]
    return {"host": architecture, "host_arguments": inner, "iterations": iterations, "unrolling": "parallel"}


def learner(host: str, iterations: int, fit: Fit, seed: int) -> Learner:
    """A RIGNet before its first update; with the same seed the hosts begin with the same weights."""
    return Learner("rignet", arguments(host, iterations), challenge.pictures(PICTURES, challenge.TRAIN_SEED), fit, seed)


def paces(host: str, setting: Setting, store: Trials) -> dict[str, float]:
    """CPU seconds of an update for each number of iterations, measured in turns."""
    key = {"trial": "rignet-pace", "host": list(HOSTS[host]), "patch": setting.fit.patch}

    def compute() -> dict[str, float]:
        learners = [learner(host, iterations, setting.fit, 0) for iterations in ITERATIONS]
        return dict(zip(map(str, ITERATIONS), challenge.seconds_per_update(learners), strict=True))

    return store.get(key, compute)


def trial(host: str, iterations: int, updates: int, seed: int, setting: Setting, store: Trials) -> dict[str, float]:
    """One training and its score on pictures that were not trained on."""
    fit = replace(setting.fit, updates=updates)
    key = {"trial": "rignet", "host": list(HOSTS[host]), "iterations": iterations, "updates": updates, "seed": seed}
    key |= {"fit": asdict(fit), "pictures": PICTURES, "tests": setting.tests}

    def compute() -> dict[str, float]:
        trained = learner(host, iterations, fit, seed)
        seconds = trained.run()
        return {"seconds_per_update": seconds, **challenge.score(trained.network, challenge.pictures(setting.tests, 1))}

    return store.get(key, compute)


def numbers(host: str, iterations: int) -> tuple[int, float]:
    """Parameters that are used, and thousands of multiply-adds a pixel."""
    known = {**arguments(host, iterations), "out_channels": 1}
    used = HOSTS[host] if iterations == 1 else ("rignet", known)
    count = parameters(build(used[0], {**used[1], "out_channels": 1}))
    return count, round(kmac_per_voxel("rignet", known, (1, 128, 128)), 2)


def notes(scale: Scale) -> list[str]:
    """What must be known to read the table."""
    settings = {host: setting_of(host, scale) for host in HOSTS}
    updates = ", ".join(f"{host} {setting.fit.updates}" for host, setting in settings.items())
    tests = min(setting.tests for setting in settings.values())
    return [
        f"{PICTURES} pictures of 128 x 128 to train on, {tests} others to score on; mean ± spread over seeds.",
        f"Equal updates: {updates}. Equal time: the CPU time that {ITERATIONS[-1]} iterations take for these.",
    ]


def draw(figure: Figure, scores: dict[tuple[str, str], list[list[float]]]) -> None:
    """Average precision against iterations, a panel for each host."""
    for axes, host in zip(figure.subplots(1, len(HOSTS), squeeze=False)[0], HOSTS, strict=True):
        for colour, name in zip(("C0", "C1"), ("equal updates", "equal time"), strict=True):
            found = scores[host, name]
            axes.plot(ITERATIONS, [np.mean(values) for values in found], marker="o", color=colour, label=name)
            spread(axes, found, colour)
        axes.set(xlabel="iterations", ylabel="average precision", title=host, xticks=ITERATIONS)
        axes.legend(frameon=False)


def spread(axes: Any, found: Sequence[Sequence[float]], colour: str) -> None:
    """A dot for each seed."""
    for iterations, values in zip(ITERATIONS, found, strict=True):
        axes.plot([iterations] * len(values), values, ".", color=colour, alpha=0.4)


EXPERIMENT = Experiment(name="rignet-iterations", title="Iterations of RIGNet against score", run=run)
