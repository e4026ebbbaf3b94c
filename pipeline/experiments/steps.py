"""Steps of recurrence against score: networks are trained for T steps and read after any other number.

The network is the hGRU contour network on small Pathfinder images, trained by back-propagation through T steps with the
loss at the last of them, or at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from pipeline.experiments.base import Experiment, Report, Scale, Trials, mean_spread
from pipeline.experiments.loop import followed, iou
from pipeline.experiments.pathfinder_task import Training, images, task_of, trained


@dataclass(frozen=True)
class Arm:
    """One kind of training, done once with each seed."""

    steps: int
    """T."""
    earlier: float = 0.0
    """Weight of the loss of a step, relative to that of the next one; 0: only the last step has a loss."""

    def __str__(self) -> str:
        return f"{self.steps}" + (f", losses of all steps, {self.earlier:g}" if self.earlier else "")


TRAINED = (*map(Arm, (1, 2, 4, 8, 16)), Arm(8, 0.5), Arm(8, 1.0))
FULL_TRAINED = (*map(Arm, (1, 2, 4, 6, 8, 12, 20)), Arm(8, 0.5), Arm(8, 1.0))
BEYOND = 2
"""States are followed for this multiple of the largest T."""
Curves = dict[Arm, np.ndarray]
"""IoU (seeds, steps) of each arm."""


def run(scale: Scale, store: Trials) -> Report:
    """Train for every T and seed, and read all steps."""
    arms = (Arm(1), Arm(2), Arm(2, 0.5)) if scale.tiny else FULL_TRAINED if scale.full else TRAINED
    lengths = sorted({arm.steps for arm in arms})
    until = BEYOND * max(lengths)
    found = {arm: [measured(scale, store, arm, seed, until) for seed in scale.seeds] for arm in arms}
    curves = {arm: iou(np.array([f1 for f1, _ in results])) for arm, results in found.items()}
    seconds = {arm: float(np.mean([spent for _, spent in results])) for arm, results in found.items()}
    rows = [[*row(arm, curves[arm], lengths), f"{seconds[arm]:.0f}"] for arm in arms]
    columns = ["trained for T =", *[f"IoU after {t}" for t in lengths], f"after {until}", "best, at step", "seconds"]
    return Report(columns, rows, remarks(curves), lambda figure: draw(figure, curves))


def measured(scale: Scale, store: Trials, arm: Arm, seed: int, until: int) -> tuple[list[float], float]:
    """F1 after each step, on images that were not trained on; and the seconds of training."""
    training = Training(task_of(scale), "bptt", arm.steps, seed, earlier=arm.earlier)
    key = {"trial": "steps-read", "until": until, "training": training.key}
    network, record = trained(store, training, scale.device)
    held_out = images(store, training.task, scale.device)[1]
    return store.get(key, lambda: {"f1": followed(network, held_out, until)[0]})["f1"], record["seconds"]


def row(arm: Arm, scores: np.ndarray, lengths: Sequence[int]) -> list[str | int]:
    """A row of the table, from IoU (seeds, steps): at the trained lengths, at the end, and where the mean is best."""
    best = int(scores.mean(0).argmax())
    read = [mean_spread(scores[:, t - 1].tolist()) for t in (*lengths, scores.shape[1])]
    return [str(arm), *read, f"{scores.mean(0)[best]:.2f}, {best + 1}"]


def remarks(curves: Curves) -> list[str]:
    """Remarks that are computed from the curves."""
    at_own = {arm: scores[:, arm.steps - 1].mean() for arm, scores in curves.items()}
    best, least = max(at_own, key=lambda arm: at_own[arm]), min(at_own, key=lambda arm: arm.steps)
    change = {arm: scores[:, -1].mean() - at_own[arm] for arm, scores in curves.items()}
    return [
        f"Read at its own T, the best is T = {best} with an IoU of {at_own[best]:.2f}; T = {least} has "
        f"{at_own[least]:.2f}.",
        "From its own T to the last step that was read, the mean changes by "
        + ", ".join(f"{value:+.2f} (T = {arm})" for arm, value in change.items())
        + ".",
        "Seconds are those of the processor that one training took, without its validation.",
    ]


def draw(figure: Figure, curves: Curves) -> None:
    """Draw IoU against steps, a line with spread and a dot at T for each arm; and IoU at T against T."""
    left, right = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    for number, (arm, scores) in enumerate(curves.items()):
        steps, mean = np.arange(1, scores.shape[1] + 1), scores.mean(0)
        colour, own = f"C{number}", scores[:, arm.steps - 1]
        left.plot(steps, mean, "--" if arm.earlier else "-", color=colour, label=f"T = {arm}")
        left.fill_between(steps, scores.min(0), scores.max(0), color=colour, alpha=0.12, linewidth=0)
        left.plot(arm.steps, own.mean(), "o", color=colour)
        right.plot([arm.steps] * len(scores), own, "x" if arm.earlier else ".", color=colour)
    plain = {arm.steps: scores[:, arm.steps - 1].mean() for arm, scores in curves.items() if not arm.earlier}
    right.plot(list(plain), list(plain.values()), color="0.5", zorder=0)
    left.set(xscale="log", xlabel="steps at which it is read", ylabel="IoU", title="Read before and beyond T")
    right.set(xscale="log", xlabel="T", title="Read at its own T, each seed")
    left.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in left, right:
        axes.grid(alpha=0.2)
        ticks = 2 ** np.arange(int(np.log2(scores.shape[1])) + 1)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
    right.set_xlim(0.8, 1.25 * max(plain))


EXPERIMENT = Experiment(name="steps", title="How many steps of recurrence are worth their time?", run=run)
