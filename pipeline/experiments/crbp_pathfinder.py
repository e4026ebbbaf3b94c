"""Contractor recurrent back-propagation against back-propagation through time, on Pathfinder.

It plots the score by updates and by time, the bytes kept for the backward pass by steps, and the error of the gradient
against that of the steady state, for each number of terms and for the published stopping rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.loop import Images, iou
from pipeline.experiments.pathfinder_task import Training, gradient, images, saved_bytes, task_of, trained
from pipeline.models.hgru_contour import HGRUContour
from pipeline.training.rules import RecurrentBackpropagation

PENALTY = 10.0
"""Weight of the published penalty, for the mean of its squares."""
SHORT, LONG, WINDOW = 8, 16, 4
"""Steps of the short and the long trainings, and the steps that truncation keeps."""
MEMORY_STEPS = (2, 4, 8, 16, 32, 64)
TERMS = (0, 1, 2, 3, 5, 8, 15, 30)
EXACT_TERMS = 300
"""Terms of the series with which the others are compared; its residual is reported."""
LOUDNESS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Factors of the loss, which change the gradient under the absolute cap."""
CAPPED = ("capped", "capped_terms")
LEAST_ERROR = 1e-6
"""The smallest error that float32 resolves; smaller errors are drawn there."""


@dataclass(frozen=True, eq=False)
class Method:
    """A learning rule with its steps."""

    name: str
    rule: str
    steps: int
    penalty: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    dashes: int | None = None
    """Dashes of a target curve; those of the scale's task if left out."""

    def training(self, scale: Scale, seed: int) -> Training:
        """The training of a seed."""
        steps = min(self.steps, 4) if scale.tiny else self.steps
        return Training(task_of(scale, self.dashes), self.rule, steps, seed, self.penalty, self.options)


def compared(short: int, long: int, unrolled: int, dashes: int | None = None) -> tuple[Method, ...]:
    """All methods, for curves of as many dashes; BPTT goes through ``short`` and ``unrolled`` steps."""
    before = "" if dashes is None else f"{dashes} dashes: "

    def method(name: str, rule: str, steps: int, penalty: float = 0.0, **options: Any) -> Method:
        return Method(f"{before}{name}", rule, steps, penalty, options, dashes)

    return (
        method(f"BPTT, {short} steps", "bptt", short),
        method(f"BPTT, {unrolled} steps", "bptt", unrolled),
        method(f"last {WINDOW} of {long} steps", "truncated", long, window=WINDOW),
        method(f"RBP, {long} steps", "rbp", long),
        method(f"C-RBP, {long} steps", "rbp", long, PENALTY),
        method(f"C-RBP, absolute cap, {long} steps", "rbp", long, PENALTY, reference_stopping=True),
        method(f"C-RBP, one step's gradient, {long} steps", "rbp", long, PENALTY, terms=0),
    )


METHODS = compared(SHORT, LONG, LONG)
CONTRACTOR = 4
"""The place of C-RBP among the methods."""
FULL_SHORT, FULL_UNROLLED = 6, 20
"""Steps of BPTT in the paper, and the most that fit on a GPU."""
FULL_LONG = {14: 20, 20: 30, 25: 80}
"""Dashes -> steps of C-RBP in the published logs."""
STYLES = ("-", "--", ":")
"""Lines of the first, second and third number of dashes."""


def methods_of(scale: Scale) -> tuple[Method, ...]:
    """The methods of a scale; at full scale for each number of dashes, one after the other."""
    if not scale.full:
        return METHODS
    return tuple(m for d, long in FULL_LONG.items() for m in compared(FULL_SHORT, long, FULL_UNROLLED, d))


def run(scale: Scale, store: Trials) -> Report:
    """Train every method with every seed; measure memory and gradients."""
    methods = methods_of(scale)
    found = {m: [trained(store, m.training(scale, s), scale.device)[1] for s in scale.seeds] for m in methods}
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
    for method in methods_of(scale):
        training = method.training(scale, seed=0)

        def measure(training: Training = training) -> Result:
            return {str(t): saved_bytes(replace(training, steps=t), data) for t in asked}

        key = {"trial": "bytes", "until": list(asked), "training": training.key}
        found[method.name] = {int(t): size for t, size in store.get(key, measure).items()}
    return found


def gradient_errors(scale: Scale, store: Trials, seed: int) -> Result:
    """Relative errors of the gradient of the network that C-RBP trained, on a batch of held-out images."""
    training = methods_of(scale)[CONTRACTOR].training(scale, seed)
    asked = {"terms": list(TERMS), "loudness": list(LOUDNESS), "exact": EXACT_TERMS}
    network, _ = trained(store, training, scale.device)
    held_out = images(store, training.task, scale.device)[1]
    count = training.task.course.batch

    def measure() -> Result:
        return errors_of(network, Images(held_out.images[:count], held_out.targets[:count]))

    return store.get({"trial": "gradient", **asked, "training": training.key}, measure)


def errors_of(network: HGRUContour, batch: Images) -> Result:
    """Errors against the longest series: of the first terms, and of the absolute cap at each loudness."""
    exact, report = gradient(network, RecurrentBackpropagation(EXACT_TERMS, tolerance=1e-7), batch)

    def error(found: Tensor) -> float:
        return float((found - exact).norm() / exact.norm())

    first = [gradient(network, RecurrentBackpropagation(terms, tolerance=0.0), batch)[0] for terms in TERMS]
    capped = [gradient(network, RecurrentBackpropagation(reference_stopping=True), batch, by) for by in LOUDNESS]
    return {
        "errors": [error(each) for each in first],
        "capped": [error(each) for each, _ in capped],
        "capped_terms": [series.terms for _, series in capped],
        "residual": report.residual,
        "terms": report.terms,
    }


def row(method: Method, results: list[Result], memory: dict[int, int]) -> list[Cell]:
    """One row of the table."""
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
    """Remarks on the gradients."""
    of_terms = {k: mean_spread([e["errors"][TERMS.index(k)] for e in errors]) for k in (0, 15)}
    off, used = ([mean_spread(list(each)) for each in zip(*(e[k] for e in errors), strict=True)] for k in CAPPED)
    capped = [f"{off[i]} with {used[i]} terms (x {by:g})" for i, by in enumerate(LOUDNESS)]
    return [
        f"Where C-RBP ended, the gradient of one step is off by {of_terms[0]} of the steady state's, that of 15 terms "
        f"by {of_terms[15]}.",
        f"That of the absolute cap is off by, if the loss is multiplied: {', '.join(capped)}.",
        f"The series that they are compared with has up to {EXACT_TERMS} terms and a residual of "
        f"{max(e['residual'] for e in errors):.1g} at most.",
    ]


def draw(
    figure: Figure, found: dict[Method, list[Result]], memory: dict[str, dict[int, int]], errors: list[Result]
) -> None:
    """Four panels: score by updates, score by time, bytes by steps, error of the gradient by terms."""
    ((updates, time, size), (terms, loud, names)) = figure.subplots(2, 3)
    for number, (method, results) in enumerate(found.items()):
        looks = np.array([r["looks"] for r in results])  # (seeds, looks, 3)
        group, place = divmod(number, len(METHODS))
        look = {"color": f"C{place}", "linestyle": STYLES[group]}
        for axes, column in (updates, 0), (time, 1):
            draw_scores(axes, looks[:, :, column].mean(0), iou(looks[:, :, 2]), method.name, **look)
        steps = memory[method.name]
        size.plot(list(steps), [each / 1e6 for each in steps.values()], marker=".", **look)
    draw_errors(terms, loud, errors)
    updates.set(xlabel="updates", ylabel="IoU", title="Score by updates")
    time.set(xlabel="seconds of training", ylabel="IoU", title="Score by time")
    size.set(xscale="log", yscale="log", xlabel="steps", ylabel="MB", title="Kept for the backward pass")
    size.set_xticks(list(steps), [str(each) for each in steps])
    size.set_xticks([], minor=True)
    names.set_axis_off()
    names.legend(
        *updates.get_legend_handles_labels(),
        frameon=False,
        fontsize=9 if len(found) <= len(METHODS) else 6,
        loc="center",
    )
    for axes in updates, time, size, terms, loud:
        axes.grid(alpha=0.2)


def draw_scores(axes: Axes, x: np.ndarray, scores: np.ndarray, label: str, color: str, linestyle: str) -> None:
    """Draw the mean over seeds as a line, and lowest to highest as a band; scores (seeds, looks)."""
    axes.plot(x, scores.mean(0), color=color, linestyle=linestyle, label=label)
    axes.fill_between(x, scores.min(0), scores.max(0), color=color, alpha=0.1, linewidth=0)


def draw_errors(terms: Axes, loud: Axes, errors: list[Result]) -> None:
    """Draw errors by terms of the series, and by loudness of the loss, with one line for each seed."""
    least = min(min(e[k]) for e in errors for k in ("errors", "capped"))
    for axes in terms, loud:
        axes.set(ylim=(max(least, LEAST_ERROR) / 2, 2), ylabel="relative error of the gradient")
        axes.set(yscale="log")
    for each in errors:
        terms.plot(TERMS, np.maximum(each["errors"], LEAST_ERROR), color=f"C{CONTRACTOR}", marker=".")
        loud.plot(LOUDNESS, np.maximum(each["capped"], LEAST_ERROR), color="C5", marker=".")
    terms.set(xlabel="terms of the series", title="Gradient after C-RBP, each seed")
    loud.set(xscale="log", xlabel="loss times", title="The absolute cap, same networks")


EXPERIMENT = Experiment(
    name="crbp-pathfinder",
    title="Does C-RBP learn what BPTT learns, in constant memory?",
    run=run,
    figure_inches=(13.0, 7.5),
)
