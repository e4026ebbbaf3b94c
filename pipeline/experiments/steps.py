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
    curves = {T: np.array([curve(scale, store, T, seed, until) for seed in scale.seeds]) for T in lengths}
    rows = [row(T, curves[T], lengths) for T in lengths]
    columns = ["trained for T =", *[f"IoU after {t}" for t in lengths], f"after {until}", "best mean IoU, at step"]
    return Report(columns, rows, remarks(curves), lambda figure: draw(figure, curves))


def curve(scale: Scale, store: Trials, steps: int, seed: int, until: int) -> list[float]:
    """IoU after each step, on images that were not trained on."""
    training = Training(task_of(scale), "bptt", steps, seed)
    key = {"trial": "steps-read", "until": until, "training": training.key}
    network, _ = trained(store, training, scale.device)
    held_out = images(store, training.task, scale.device)[1]

    def read() -> dict[str, list[float]]:
        return {"f1": followed(network, held_out, until)[0]}

    return [iou(f1) for f1 in store.get(key, read)["f1"]]


def row(steps: int, scores: np.ndarray, lengths: Sequence[int]) -> list[str | int]:
    """Of the table: (seeds, steps) of IoU at the trained lengths, at the end, and where the mean is best."""
    best = int(scores.mean(0).argmax())
    read = [mean_spread(scores[:, t - 1].tolist()) for t in (*lengths, scores.shape[1])]
    return [steps, *read, f"{scores.mean(0)[best]:.2f}, {best + 1}"]


def remarks(curves: dict[int, np.ndarray]) -> list[str]:
    """What the numbers say, computed from them."""
    at_own = {T: scores[:, T - 1].mean() for T, scores in curves.items()}
    best = max(at_own, key=lambda T: at_own[T])
    lost = {T: at_own[T] - scores[:, -1].mean() for T, scores in curves.items()}
    return [
        f"Read at its own T, the best is T = {best} with an IoU of {at_own[best]:.2f}; T = {min(at_own)} has "
        f"{at_own[min(at_own)]:.2f}.",
        "From its own T to the last step that was read, each loses "
        + ", ".join(f"{value:+.2f} (T = {T})" for T, value in lost.items())
        + "; a negative number is a gain.",
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
    left.legend(frameon=False, fontsize=8)
    for axes in left, right:
        axes.grid(alpha=0.2)


EXPERIMENT = Experiment(name="steps", title="How many steps of recurrence are worth their time?", run=run)
