"""The γ-Net's steps of recurrence, and GRU, LSTM and feedforward units in the place of its fGRU.

The host is the same in all trainings: levels, widths, sides of kernels, symmetry, norms, memories between levels, first
weights outside the units. The controls have a few more or fewer parameters, since they have as many convolutions of
each kind (``pipeline.models.cells.controls``). All are trained on the synthetic challenge with as many updates; the
feedforward network, whose updates are cheap, also for as long as the most steps take.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pipeline.experiments import challenge
from pipeline.experiments.base import Cell, Experiment, Key, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.challenge import Fit, Learner, Pictures
from pipeline.experiments.equal_time import seconds_per_update
from pipeline.models.cells.symmetry import free_parameters
from pipeline.models.facts import kmac_per_voxel
from pipeline.models.spec import build

STEPS = 8
"""T of the recurrent controls."""
PICTURES = 50
SMALL: dict[str, Any] = {
    **{"widths": [8, 12, 16, 24], "horizontal": [5, 3, 3, 1]},
    **{"local_gate": 3, "memory": "paper"},
}
SHOWN = {"fgru": "fGRU", "gru": "GRU", "lstm": "LSTM"}
COLUMNS = ("unit", "T", "free parameters", "kMAC a pixel", "updates", "AP", "best F1", "CPU s of an update")


@dataclass(frozen=True)
class Arm:
    """One network, trained once with each seed."""

    cell: str
    """The unit, a ``cell`` of ``GammaNet2D``."""
    steps: int
    """T."""
    equal_time: bool = False
    """Trained for the time that the fGRU with the most steps takes, not for as many updates."""

    def __str__(self) -> str:
        return SHOWN.get(self.cell, self.cell) + (", equal time" if self.equal_time else "")


ARMS = (
    *(Arm("fgru", steps) for steps in (1, 2, 4, STEPS)),
    *(Arm("gru", STEPS), Arm("lstm", STEPS), Arm("feedforward", 1), Arm("feedforward", 1, equal_time=True)),
)
LONGEST = Arm("fgru", STEPS)


@dataclass(frozen=True)
class Setting:
    """The settings that all trainings share."""

    fit: Fit
    network: dict[str, Any]
    """Arguments of the host."""
    config: challenge.ChallengeConfig = challenge.SMALL
    tests: int = 16
    """Pictures to score on."""
    device: torch.device = challenge.CPU

    @property
    def key(self) -> Key:
        """What belongs to the key of every trial."""
        shared = {"network": self.network, "config": self.config.model_dump(mode="json"), "pictures": PICTURES}
        return shared | ({} if self.device == challenge.CPU else {"device": self.device.type})

    def pictures(self, count: int, seed: int) -> Pictures:
        """Pictures of a seed."""
        return challenge.pictures(count, seed, self.config)


def setting_of(scale: Scale) -> Setting:
    """Small pictures and a small network; --full: pictures of 320 x 320, the network of 450K, and its rate."""
    if scale.tiny:
        return Setting(Fit(2, patch=32, learning_rate=1e-2), {**SMALL, "widths": [4, 5], "horizontal": [3, 1]}, tests=1)
    if scale.full:
        config = challenge.ChallengeConfig(crop=320)
        fit = Fit(scale.updates(20_000), patch=256, learning_rate=1e-2)
        return Setting(fit, {}, config, tests=scale.data(100), device=scale.device)
    return Setting(Fit(scale.updates(150), patch=64, learning_rate=1e-2), SMALL, tests=scale.data(16))


def run(scale: Scale, store: Trials) -> Report:
    """Train every arm with every seed."""
    setting = setting_of(scale)
    pace = paces(setting, store)
    found: dict[Arm, list[Result]] = {}
    rows: list[list[Cell]] = []
    for arm in ARMS:
        updates = round(setting.fit.updates * pace[name(LONGEST)] / pace[name(arm)]) if arm.equal_time else None
        fit = setting.fit if updates is None else replace(setting.fit, updates=updates)
        found[arm] = [trial(arm, fit, seed, setting, store) for seed in scale.seeds]
        rows.append([*numbers(arm, setting), fit.updates, *scores(found[arm]), round(pace[name(arm)], 3)])
    return Report(COLUMNS, rows, notes(setting, found), lambda figure: draw(figure, found))


def name(arm: Arm) -> str:
    """The network of an arm, whatever its updates."""
    return f"{arm.cell} {arm.steps}"


def learner(arm: Arm, fit: Fit, seed: int, setting: Setting) -> Learner:
    """A network before its first update."""
    data = setting.pictures(PICTURES, challenge.TRAIN_SEED)
    return Learner("gamma_net_2d", arguments(arm, setting), data, fit, seed, setting.device)


def arguments(arm: Arm, setting: Setting) -> dict[str, Any]:
    """The arguments of the network."""
    return {**setting.network, "cell": arm.cell, "steps": arm.steps}


def paces(setting: Setting, store: Trials) -> dict[str, float]:
    """Seconds of an update of each network (on a CPU, of its processor), measured in turns."""
    arms = {name(arm): arm for arm in ARMS}
    key = {"trial": "gamma-units-pace", "patch": setting.fit.patch, "arms": list(arms)} | setting.key

    def compute() -> dict[str, float]:
        learners = [learner(arm, setting.fit, 0, setting) for arm in arms.values()]
        return dict(zip(arms, seconds_per_update(learners), strict=True))

    return store.get(key, compute)


def trial(arm: Arm, fit: Fit, seed: int, setting: Setting, store: Trials) -> Result:
    """One training and its score on pictures that were not trained on."""
    key = {"trial": "gamma-units", "cell": arm.cell, "steps": arm.steps, "updates": fit.updates, "seed": seed}
    key |= {"fit": asdict(fit), "tests": setting.tests} | setting.key

    def compute() -> Result:
        trained = learner(arm, fit, seed, setting)
        seconds, test = trained.run(), setting.pictures(setting.tests, challenge.TEST_SEED)
        return {"seconds_per_update": seconds, **challenge.score(trained.network, test)}

    return store.get(key, compute)


def numbers(arm: Arm, setting: Setting) -> list[Cell]:
    """Unit, steps, free parameters, and thousands of multiply-adds for each pixel."""
    known = {**arguments(arm, setting), "out_channels": 1}
    free = free_parameters(build("gamma_net_2d", known))
    return [str(arm), arm.steps, free, round(kmac_per_voxel("gamma_net_2d", known, (1, 64, 64)), 1)]


def scores(results: list[Result]) -> list[str]:
    """Average precision and best F1 over the seeds."""
    return [mean_spread([result[key] for result in results], 3) for key in ("ap", "f1")]


def notes(setting: Setting, found: dict[Arm, list[Result]]) -> list[str]:
    """Remarks that explain the table, and the result in a line."""
    mean = {arm: float(np.mean([result["ap"] for result in results])) for arm, results in found.items()}
    best = max(mean, key=lambda arm: mean[arm])
    return [
        f"{PICTURES} pictures to train on, {setting.tests} others to score on; mean ± spread over seeds.",
        f"Average precision of the fGRU: {mean[Arm('fgru', 1)]:.3f} with one step, {mean[LONGEST]:.3f} with {STEPS}; "
        f"the best of all is {best} with T = {best.steps} ({mean[best]:.3f}).",
    ]


def draw(figure: Figure, found: dict[Arm, list[Result]]) -> None:
    """Left: average precision of the fGRU against T; right: every unit at its T. A dot for each seed."""
    left, right = figure.subplots(1, 2, sharey=True)
    own = [arm for arm in found if arm.cell == "fgru"]
    others = [LONGEST, *(arm for arm in found if arm.cell != "fgru")]
    for axes, arms, places in ((left, own, [arm.steps for arm in own]), (right, others, list(range(len(others))))):
        values = [[result["ap"] for result in found[arm]] for arm in arms]
        axes.plot(places, [np.mean(each) for each in values], "o-" if axes is left else "o")
        for place, each in zip(places, values, strict=True):
            axes.plot([place] * len(each), each, ".", color="C0", alpha=0.4)
        axes.grid(alpha=0.2)
    left.set(xscale="log", xlabel="T", ylabel="average precision", title="fGRU: steps")
    left.set_xticks([arm.steps for arm in own], [str(arm.steps) for arm in own])
    left.set_xticks([], minor=True)
    right.set_xticks(range(len(others)), [f"{arm}\nT = {arm.steps}".replace(", ", "\n") for arm in others])
    right.set(title="Units in its place")


EXPERIMENT = Experiment(
    name="gamma-units", title="γ-Net: steps of recurrence, and GRU, LSTM and feedforward units in its place", run=run
)
