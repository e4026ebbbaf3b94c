"""Stability: the state beyond the steps for which the network was trained.

The networks are those of ``crbp-pathfinder``. Each runs far beyond its T. Measured are the relative change of the state
at each step, ||h_t - h_t-1|| / ||h_t||, the score of the readout, and the spectral radius of the last step's Jacobian;
above 1, a steady state is unstable.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.crbp_pathfinder import Method, methods_of
from pipeline.experiments.loop import Images, followed, iou
from pipeline.experiments.pathfinder_task import images, trained
from pipeline.models.hgru_contour import HGRUContour

STEPS = 60
PRODUCTS = 40
"""Products of the power iteration for the spectral radius."""


def run(scale: Scale, store: Trials) -> Report:
    """Follow every network of every seed."""
    steps = 6 if scale.tiny else 4 * STEPS if scale.full else STEPS
    found = {m: [reach(scale, store, m, seed, steps) for seed in scale.seeds] for m in methods_of(scale)}
    columns = [
        *("rule", "moves at T", f"moves at {steps}", "spectral radius at T", f"at {steps}"),
        *("IoU at T", "best, at step", f"IoU at {steps}"),
    ]
    rows = [row(m, scale, results) for m, results in found.items()]
    return Report(columns, rows, remarks(found, scale), lambda figure: draw(figure, found, scale))


def reach(scale: Scale, store: Trials, method: Method, seed: int, steps: int) -> Result:
    """Scores and distances of each step, and spectral radii at T and at the end."""
    training = method.training(scale, seed)
    key = {"trial": "reach", "until": steps, "products": PRODUCTS, "training": training.key}
    network, _ = trained(store, training, scale.device)
    held_out = images(store, training.task, scale.device)[1]

    def measure() -> Result:
        scores, distances = followed(network, held_out, steps)
        few = Images(held_out.images[: training.task.course.batch], held_out.targets[: training.task.course.batch])
        radii = [spectral_radius(network, few, t) for t in (training.steps, steps)]
        return {"f1": scores, "distances": distances, "radii": radii}

    return store.get(key, measure)


def spectral_radius(network: HGRUContour, data: Images, steps: int, products: int = PRODUCTS) -> float:
    """The spectral radius of dh_t+1 / dh_t at t = ``steps``, by power iteration on its transpose from random signs.

    It is the mean growth over the second half of the products, so that complex pairs average out.
    """
    with torch.no_grad():
        x = network.drive(data.images)
        state = network.initial(x)
        for _ in range(steps):
            state = network.step(x, state)
    assert isinstance(state, torch.Tensor), "the hGRU has one tensor"
    before = state.requires_grad_()
    after = network.step(x, before)
    generator = torch.Generator().manual_seed(0)
    v = (torch.randint(0, 2, before.shape, generator=generator) * 2.0 - 1).to(before.device)
    growth = []
    for _ in range(products):
        (v,) = torch.autograd.grad(after, before, v, retain_graph=True)  # type: ignore[arg-type]
        growth.append(float(v.norm()))
        if not growth[-1]:
            return 0.0
        v = v / growth[-1]
    return float(np.exp(np.mean(np.log(growth[products // 2 :]))))


def row(method: Method, scale: Scale, results: list[Result]) -> list[Cell]:
    """One row of the table."""
    T = method.training(scale, 0).steps
    scores = iou(np.array([r["f1"] for r in results]))
    best = int(scores.mean(0).argmax())
    moves = np.array([r["distances"] for r in results])
    return [
        method.name,
        *(f"{np.median(moves[:, t]):.1e}" for t in (T - 1, -1)),
        *(mean_spread([r["radii"][i] for r in results]) for i in (0, 1)),
        mean_spread(scores[:, T - 1].tolist()),
        f"{scores.mean(0)[best]:.2f}, {best + 1}",
        mean_spread(scores[:, -1].tolist()),
    ]


def remarks(found: dict[Method, list[Result]], scale: Scale) -> list[str]:
    """Remarks: which methods keep their score, and which reach a steady state."""
    kept = {
        m.name: np.mean([iou(r["f1"][-1]) - iou(r["f1"][m.training(scale, 0).steps - 1]) for r in results])
        for m, results in found.items()
    }
    rest = {m.name: sum(max(r["radii"]) < 1 for r in results) for m, results in found.items()}
    return [
        "Change of IoU from T to the last step: "
        + "; ".join(f"{name} {value:+.2f}" for name, value in kept.items())
        + ".",
        "Seeds whose spectral radius is below 1 at both places: "
        + "; ".join(f"{name} {count}" for name, count in rest.items())
        + f"; of {len(scale.seeds)}.",
    ]


def draw(figure: Figure, found: dict[Method, list[Result]], scale: Scale) -> None:
    """Distance and IoU against steps: a thin line a seed, a thick one for the median or mean, a dot at T."""
    left, right = figure.subplots(1, 2)
    for number, (method, results) in enumerate(found.items()):
        T, colour = method.training(scale, 0).steps, f"C{number}"
        moves, scores = np.array([r["distances"] for r in results]), iou(np.array([r["f1"] for r in results]))
        for axes, lines, middle in (left, moves, np.median(moves, 0)), (right, scores, scores.mean(0)):
            steps = np.arange(1, lines.shape[1] + 1)
            axes.plot(steps, lines.T, color=colour, linewidth=0.5, alpha=0.4)
            axes.plot(steps, middle, color=colour, label=method.name)
            axes.plot(T, middle[T - 1], "o", color=colour)
            axes.grid(alpha=0.2)
    left.set(yscale="log", xlabel="step", ylabel="||h_t - h_t-1|| / ||h_t||", title="How far a step moves the state")
    right.set(xlabel="step", ylabel="IoU", title="What the readout is worth")
    right.legend(frameon=False, fontsize=7)


EXPERIMENT = Experiment(name="stability", title="What does the state do beyond the trained steps?", run=run)
