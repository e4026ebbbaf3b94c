"""Constrained recurrent back-propagation against back-propagation through time, on Pathfinder.

Score by updates and by time; bytes kept for the backward pass by steps; and how far the gradient of each number of
terms, and of the published stopping rule, is from that of the steady state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.loop import Images, iou
from pipeline.experiments.pathfinder_task import Training, gradient, images, saved_bytes, task_of, trained
from pipeline.training.rules import RecurrentBackpropagation

PENALTY = 10.0
"""Weight of the published penalty, for the mean of its squares."""
SHORT, LONG, WINDOW = 8, 16, 4
"""Steps of the short and the long trainings, and those that truncation keeps."""
MEMORY_STEPS = (2, 4, 8, 16, 32, 64)
TERMS = (0, 1, 2, 3, 5, 8, 15, 30)
EXACT_TERMS = 300
"""Of the series that the others are compared with; its residual is reported."""
LEAST_ERROR = 1e-6
"""What float32 can tell; smaller errors are drawn there."""


@dataclass(frozen=True, eq=False)
class Method:
    """A learning rule with its steps."""

    name: str
    rule: str
    steps: int
    penalty: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def training(self, scale: Scale, seed: int) -> Training:
        """The training of a seed."""
        steps = min(self.steps, 4) if scale.tiny else self.steps
        return Training(task_of(scale), self.rule, steps, seed, self.penalty, self.options)


CONSTRAINED = Method(f"C-RBP, {LONG} steps", "rbp", LONG, PENALTY)
METHODS = (
    Method(f"BPTT, {SHORT} steps", "bptt", SHORT),
    Method(f"BPTT, {LONG} steps", "bptt", LONG),
    Method(f"last {WINDOW} of {LONG} steps", "truncated", LONG, options={"window": WINDOW}),
    Method(f"RBP, {LONG} steps", "rbp", LONG),
    CONSTRAINED,
    Method(f"C-RBP with the absolute cap, {LONG} steps", "rbp", LONG, PENALTY, {"reference_stopping": True}),
)


def run(scale: Scale, store: Trials) -> Report:
    """Train every method with every seed; measure memory and gradients."""
    found = {m: [trained(store, m.training(scale, s), scale.device)[1] for s in scale.seeds] for m in METHODS}
    memory = memory_of(scale, store)
    errors = [gradient_errors(scale, store, seed) for seed in scale.seeds]
    rows = [row(m, results, memory[m.name]) for m, results in found.items()]
    columns = [
        *("rule", "IoU", "updates per second", "MB kept"),
        *("terms used", "residual", "series ended by"),
    ]
    return Report(columns, rows, remarks(errors), lambda figure: draw(figure, found, memory, errors))


def memory_of(scale: Scale, store: Trials) -> dict[str, dict[int, int]]:
    """Bytes by steps, for each method."""
    asked, found = MEMORY_STEPS[:3] if scale.tiny else MEMORY_STEPS, {}
    data = images(store, task_of(scale), scale.device)[0]
    for method in METHODS:
        training = method.training(scale, seed=0)

        def measure(training: Training = training) -> Result:
            return {str(t): saved_bytes(replace(training, steps=t), data) for t in asked}

        key = {"trial": "bytes", "until": list(asked), "training": training.key}
        found[method.name] = {int(t): size for t, size in store.get(key, measure).items()}
    return found


def gradient_errors(scale: Scale, store: Trials, seed: int) -> Result:
    """Relative errors of the gradient of the network that C-RBP trained, on a batch of held-out images."""
    training = CONSTRAINED.training(scale, seed)
    key = {"trial": "gradient", "terms": list(TERMS), "exact": EXACT_TERMS, "training": training.key}
    network, _ = trained(store, training, scale.device)
    held_out = images(store, training.task, scale.device)[1]

    def measure() -> Result:
        count = training.task.course.batch
        batch = Images(held_out.images[:count], held_out.targets[:count])
        exact, report = gradient(network, RecurrentBackpropagation(EXACT_TERMS, tolerance=1e-7), batch)

        def error(rule: RecurrentBackpropagation) -> float:
            return float((gradient(network, rule, batch)[0] - exact).norm() / exact.norm())

        capped, cap = gradient(network, RecurrentBackpropagation(reference_stopping=True), batch)
        one_step, _ = gradient(network, RecurrentBackpropagation(terms=0), batch)
        return {
            "errors": [error(RecurrentBackpropagation(terms, tolerance=0.0)) for terms in TERMS],
            "capped": float((capped - exact).norm() / exact.norm()),
            "capped_terms": cap.terms,
            "capped_is_one_step": bool((capped == one_step).all()),
            "residual": report.residual,
            "terms": report.terms,
        }

    return store.get(key, measure)


def row(method: Method, results: list[Result], memory: dict[int, int]) -> list[Cell]:
    """Of the table."""
    updates, seconds = (np.array([r["looks"][-1][i] for r in results]) for i in (0, 1))
    ends = {
        why: sum(r["stopped"].get(why, 0) for r in results)
        for why in sorted({w for r in results for w in r["stopped"]})
    }
    total = sum(ends.values())
    series = [r for r in results if r["terms"] is not None]
    near = min(memory, key=lambda t: abs(t - method.steps))
    return [
        *(method.name, mean_spread([iou(r["f1"]) for r in results])),
        *(f"{(updates / seconds).mean():.1f}", f"{memory[near] / 1e6:.1f}"),
        mean_spread([r["terms"] for r in series], 1) if series else "",
        f"{np.median([r['residual'] for r in series if r['residual'] is not None] or [np.nan]):.1g}" if series else "",
        ", ".join(f"{why} {100 * count / total:.0f} %" for why, count in ends.items() if count),
    ]


def remarks(errors: list[Result]) -> list[str]:
    """On gradients."""
    capped = [e["capped"] for e in errors]
    best = [e["errors"][TERMS.index(15)] for e in errors]
    return [
        f"Where C-RBP ended, the gradient of one step is off by {mean_spread([e['errors'][0] for e in errors])} of the "
        f"steady state's, that of 15 terms by {mean_spread(best, 3)}, that of the absolute cap by "
        f"{mean_spread(capped)}; the cap used {mean_spread([e['capped_terms'] for e in errors], 1)} terms.",
        f"The series that they are compared with has up to {EXACT_TERMS} terms and a residual of "
        f"{max(e['residual'] for e in errors):.1g} at most.",
    ]


def draw(
    figure: Figure, found: dict[Method, list[Result]], memory: dict[str, dict[int, int]], errors: list[Result]
) -> None:
    """Four panels: score by updates, score by time, bytes by steps, error of the gradient by terms."""
    ((updates, time), (size, error)) = figure.subplots(2, 2)
    for number, (method, results) in enumerate(found.items()):
        looks = np.array([r["looks"] for r in results])  # (seeds, looks, 3)
        for axes, column in (updates, 0), (time, 1):
            draw_scores(axes, looks[:, :, column].mean(0), iou(looks[:, :, 2]), f"C{number}", method.name)
        steps = memory[method.name]
        size.plot(list(steps), [each / 1e6 for each in steps.values()], color=f"C{number}", marker=".")
    draw_errors(error, errors)
    updates.set(xlabel="updates", ylabel="IoU", title="Score by updates")
    time.set(xlabel="seconds of training", ylabel="IoU", title="Score by time")
    size.set(xscale="log", yscale="log", xlabel="steps", ylabel="MB", title="Kept for the backward pass")
    updates.legend(frameon=False, fontsize=7)
    for axes in updates, time, size, error:
        axes.grid(alpha=0.2)


def draw_scores(axes: Axes, x: np.ndarray, scores: np.ndarray, colour: str, label: str) -> None:
    """Mean over seeds as a line, lowest to highest as a band; scores (seeds, looks)."""
    axes.plot(x, scores.mean(0), color=colour, label=label)
    axes.fill_between(x, scores.min(0), scores.max(0), color=colour, alpha=0.1, linewidth=0)


def draw_errors(axes: Axes, errors: list[Result]) -> None:
    """A line a seed, and the cap's."""
    axes.set(ylim=(LEAST_ERROR / 2, 10), xlabel="terms of the series", ylabel="relative error")
    axes.set(yscale="log", title="Gradient after C-RBP")
    for number, each in enumerate(errors):
        names = (None, None) if number else ("first terms, each seed", "absolute cap")
        axes.plot(TERMS, np.maximum(each["errors"], LEAST_ERROR), color="C4", marker=".", label=names[0])
        axes.axhline(max(each["capped"], LEAST_ERROR), color="C5", linestyle="--", label=names[1])
    axes.legend(frameon=False, fontsize=7)


EXPERIMENT = Experiment(
    name="crbp-pathfinder",
    title="Does C-RBP learn what BPTT learns, in constant memory?",
    run=run,
    figure_inches=(10.0, 7.5),
)
