"""Pathfinder beyond what was trained: longer curves than in training, and small kernels over many steps.

Linsley et al. 2020 (NeurIPS) test networks that were trained on curves of 14 dashes on those of 20 and 25, and follow
curves with kernels of 3 over 300 steps, which contractor recurrent back-propagation can train and BPTT cannot. The
networks with the scale's own kernel are those of ``crbp-pathfinder``, so both share their trials.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.crbp_pathfinder import PENALTY
from pipeline.experiments.loop import followed, iou
from pipeline.experiments.pathfinder_task import Task, Training, images, task_of, trained

LONGER = {False: (3, 4, 5), True: (14, 20, 25)}
"""Full scale or not -> dashes of the curves of the tests; training has the first number."""
WINDOW = 36
"""Side of the small test images, in which curves of five dashes find a way; those of training have 24 pixels."""
BEYOND = 2
"""States are read after T steps, and after this multiple of T."""


@dataclass(frozen=True)
class Arm:
    """One way to train, done once with each seed."""

    rule: str
    kernel: int
    """S."""
    steps: int
    """T."""

    def __str__(self) -> str:
        return f"{'BPTT' if self.rule == 'bptt' else 'C-RBP'}, S = {self.kernel}, T = {self.steps}"

    def training(self, scale: Scale, seed: int) -> Training:
        """The training of a seed."""
        task = task_of(scale, LONGER[True][0] if scale.full else None)
        return Training(
            *(replace(task, kernel=self.kernel), self.rule, self.steps, seed),
            penalty=PENALTY if self.rule == "rbp" else 0.0,
        )


ARMS = (
    *(Arm("bptt", 5, 8), Arm("rbp", 5, 16)),
    *(Arm("bptt", 3, 8), Arm("rbp", 3, 40)),
)
TINY_ARMS = (Arm("bptt", 3, 2), Arm("rbp", 3, 3))
FULL_ARMS = (
    *(Arm("bptt", 15, 6), Arm("rbp", 15, 20)),
    *(Arm("bptt", 9, 6), Arm("rbp", 9, 30), Arm("bptt", 5, 6), Arm("rbp", 5, 100), Arm("bptt", 3, 6)),
    Arm("rbp", 3, 300),
)
"""Kernels and steps of the published logs."""
Scores = dict[int, np.ndarray]
"""Dashes -> IoU (seeds, steps)."""


def run(scale: Scale, store: Trials) -> Report:
    """Train every arm with every seed, and read it on curves of every length."""
    dashes = LONGER[scale.full]
    found: dict[Arm, Scores] = {}
    for arm in TINY_ARMS if scale.tiny else FULL_ARMS if scale.full else ARMS:
        results = [measured(scale, store, arm, seed) for seed in scale.seeds]
        found[arm] = {number: iou(np.array([result[str(number)] for result in results])) for number in dashes}
    columns = [
        "trained by",
        *(f"{number} dashes, after {steps}" for steps in ("T", f"{BEYOND} T") for number in dashes),
    ]
    rows = [row(arm, scores) for arm, scores in found.items()]
    return Report(columns, rows, remarks(found, dashes), lambda figure: draw(figure, found))


def measured(scale: Scale, store: Trials, arm: Arm, seed: int) -> Result:
    """Dashes -> F1 after each step, on images that were not trained on."""
    training, dashes = arm.training(scale, seed), LONGER[scale.full]
    tests = {number: task_of_test(training.task, scale, number) for number in dashes}
    network, _ = trained(store, training, scale.device)
    key = {"trial": "pathfinder-reach", "beyond": BEYOND, "training": training.key}
    key |= {"tests": {str(number): [task.images, task.held_out] for number, task in tests.items()}}

    def compute() -> Result:
        held_out = {number: images(store, task, scale.device)[1] for number, task in tests.items()}
        return {str(number): followed(network, data, BEYOND * arm.steps)[0] for number, data in held_out.items()}

    return store.get(key, compute)


def task_of_test(task: Task, scale: Scale, dashes: int) -> Task:
    """The images of a test: the task's own with as many dashes, in a larger window at the small scale."""
    room = {} if scale.full else {"window": WINDOW, "size": WINDOW}
    return replace(task, images={**task.images, **room, "paddles": dashes}, count=1)


def row(arm: Arm, scores: Scores) -> list[Cell]:
    """A row of the table: IoU after T, and after twice as many steps."""
    read = [
        mean_spread(scores[number][:, t - 1].tolist()) for t in (arm.steps, BEYOND * arm.steps) for number in scores
    ]
    return [str(arm), *read]


def remarks(found: dict[Arm, Scores], dashes: tuple[int, ...]) -> list[str]:
    """What is left of the IoU on the longest curves, for every arm."""
    first, last = dashes[0], dashes[-1]
    kept = {
        arm: [float(scores[number][:, arm.steps - 1].mean()) for number in (first, last)]
        for arm, scores in found.items()
    }
    return [
        f"All are trained on curves of {first} dashes. From {first} to {last} dashes the IoU after T steps goes "
        + "; ".join(f"from {near:.2f} to {far:.2f} ({arm})" for arm, (near, far) in kept.items())
        + "."
    ]


def draw(figure: Figure, found: dict[Arm, Scores]) -> None:
    """Left: IoU by dashes after T steps; right: by steps, on the longest curves. A line for each arm."""
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (arm, scores) in enumerate(found.items()):
        own = np.array([values[:, arm.steps - 1] for values in scores.values()])  # (lengths, seeds)
        look = {"color": f"C{number}", "linestyle": "-" if arm.rule == "rbp" else "--"}
        left.plot(list(scores), own.mean(1), marker="o", label=str(arm), **look)
        left.fill_between(list(scores), own.min(1), own.max(1), color=f"C{number}", alpha=0.1, linewidth=0)
        longest = scores[max(scores)].mean(0)
        right.plot(np.arange(1, len(longest) + 1), longest, **look)
        right.plot(arm.steps, longest[arm.steps - 1], "o", color=f"C{number}")
    left.set(xlabel="dashes of the test", ylabel="IoU", title="After T steps", xticks=list(scores))
    right.set(xscale="log", xlabel="steps", title=f"Curves of {max(scores)} dashes, by steps; a dot at T")
    left.legend(frameon=False, fontsize=8)
    for axes in left, right:
        axes.grid(alpha=0.2)


EXPERIMENT = Experiment(
    name="pathfinder-reach", title="Pathfinder: curves longer than in training, small kernels over many steps", run=run
)
