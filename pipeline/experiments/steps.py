"""Steps of recurrence against score: trained for T steps, read after any other number.

The network is the hGRU contour network on small Pathfinder images, trained by back-propagation through T steps with the
loss at the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.experiments.base import Experiment, Report, Scale, Trials, mean_spread
from pipeline.experiments.loop import followed, iou
from pipeline.experiments.pathfinder_task import Training, images, task_of, trained

TRAINED = (1, 2, 4, 8, 16)
FULL_TRAINED = (1, 2, 4, 6, 8, 12, 20)
BEYOND = 2
"""States are followed for so many times the largest T."""


def run(scale: Scale, store: Trials) -> Report:
    """Train for every T and seed, and read all steps."""
    lengths = TRAINED[:2] if scale.tiny else FULL_TRAINED if scale.full else TRAINED
    until = BEYOND * max(lengths)
    found = {T: [measured(scale, store, T, seed, until) for seed in scale.seeds] for T in lengths}
    curves = {T: iou(np.array([f1 for f1, _ in results])) for T, results in found.items()}
    seconds = {T: float(np.mean([spent for _, spent in results])) for T, results in found.items()}
    rows = [[*row(T, curves[T], lengths), f"{seconds[T]:.0f}"] for T in lengths]
    columns = ["trained for T =", *[f"IoU after {t}" for t in lengths], f"after {until}", "best, at step", "seconds"]
    return Report(columns, rows, remarks(curves), lambda figure: draw(figure, curves))


def measured(scale: Scale, store: Trials, steps: int, seed: int, until: int) -> tuple[list[float], float]:
    """F1 after each step, on images that were not trained on; and the seconds of training."""
    training = Training(task_of(scale), "bptt", steps, seed)
    key = {"trial": "steps-read", "until": until, "training": training.key}
    network, record = trained(store, training, scale.device)
    held_out = images(store, training.task, scale.device)[1]
    return store.get(key, lambda: {"f1": followed(network, held_out, until)[0]})["f1"], record["seconds"]


def row(steps: int, scores: np.ndarray, lengths: Sequence[int]) -> list[str | int]:
    """Of the table: (seeds, steps) of IoU at the trained lengths, at the end, and where the mean is best."""
    best = int(scores.mean(0).argmax())
    read = [mean_spread(scores[:, t - 1].tolist()) for t in (*lengths, scores.shape[1])]
    return [steps, *read, f"{scores.mean(0)[best]:.2f}, {best + 1}"]


def remarks(curves: dict[int, np.ndarray]) -> list[str]:
    """What the numbers say, computed from them."""
    at_own = {T: scores[:, T - 1].mean() for T, scores in curves.items()}
    best = max(at_own, key=lambda T: at_own[T])
    change = {T: scores[:, -1].mean() - at_own[T] for T, scores in curves.items()}
    return [
        f"Read at its own T, the best is T = {best} with an IoU of {at_own[best]:.2f}; T = {min(at_own)} has "
        f"{at_own[min(at_own)]:.2f}.",
        "From its own T to the last step that was read, the mean changes by "
        + ", ".join(f"{value:+.2f} (T = {T})" for T, value in change.items())
        + ".",
        "Seconds are those of the processor that one training took, without its validation.",
    ]


def draw(figure: Figure, curves: dict[int, np.ndarray]) -> None:
    """IoU against steps, a line a T with its spread over seeds, a dot at T; and IoU at T against T."""
    left, right = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    for number, (T, scores) in enumerate(curves.items()):
        steps, mean = np.arange(1, scores.shape[1] + 1), scores.mean(0)
        colour = f"C{number}"
        left.plot(steps, mean, color=colour, label=f"trained for T = {T}")
        left.fill_between(steps, scores.min(0), scores.max(0), color=colour, alpha=0.15, linewidth=0)
        left.plot(T, mean[T - 1], "o", color=colour)
        right.plot([T] * len(scores), scores[:, T - 1], ".", color=colour)
    right.plot(list(curves), [scores[:, T - 1].mean() for T, scores in curves.items()], color="0.5", zorder=0)
    left.set(xscale="log", xlabel="steps at which it is read", ylabel="IoU", title="Read before and beyond T")
    right.set(xscale="log", xlabel="T", title="Read at its own T, each seed")
    left.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in left, right:
        axes.grid(alpha=0.2)
        ticks = 2 ** np.arange(int(np.log2(scores.shape[1])) + 1)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
    right.set_xlim(0.8, 1.25 * max(curves))


EXPERIMENT = Experiment(name="steps", title="How many steps of recurrence are worth their time?", run=run)
