"""Suggested boxes on real tissue: are they better to label than random ones?

A network is trained on 1 % of the labels of FIB-25, the first training of the experiment on self-training. Then a few
boxes more are labelled (by the true labels), and it is trained on, from these weights, on the first box and the new
ones. The arms differ in nothing but the boxes: as ``petaseg suggest`` proposes them, the most unsure ones without
clusters, or random ones of the same lattice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline.config.run_file import Execution
from pipeline.config.strict_yaml import dump_yaml
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.experiments import fib25
from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.self_training import ARMS as TRAININGS
from pipeline.experiments.self_training import Sizes, first_config, first_key, trained, trained_on
from pipeline.experiments.self_training import trial as other_trial
from pipeline.few_labels.candidates import Candidates, boxes_of, describe
from pipeline.few_labels.choice import choose
from pipeline.geometry import BoundingBox, Vec, as_vec
from pipeline.runs.run import Run
from pipeline.stages.blend_heads import BlendHeads
from pipeline.training.config import TrainConfig

PERCENT = 1
"""Percent of the labels that the first training has."""
ARMS = ("no more labels", "random boxes", "most unsure boxes", "suggested boxes", "suggested boxes, VAE")


def boxes_wanted(scale: Scale) -> int:
    """How many boxes are labelled in addition."""
    return 2 if scale.tiny else 6


def region(scale: Scale) -> BoundingBox:
    """The tissue in which boxes may be chosen: the training part."""
    return BoundingBox.from_shape(Vec(32, 48, 48)) if scale.tiny else BoundingBox(*fib25.planes(fib25.TRAIN))


def run(scale: Scale, store: Trials) -> Report:
    """Train every arm with every seed; a seed also places the first box and draws the random ones."""
    sizes = Sizes.of(scale)
    found: dict[str, list[Result]] = {arm: [] for arm in ARMS}
    for seed in scale.seeds:
        found[ARMS[0]].append(other_trial(TRAININGS[1], PERCENT, seed, sizes, store))
        for arm in ARMS[1:]:
            found[arm].append(trial(arm, seed, sizes, scale, store))
    first = [other_trial(TRAININGS[0], PERCENT, seed, sizes, store)["ap"] for seed in scale.seeds]
    rows = [row(arm, results) for arm, results in found.items()]
    columns = ["boxes", "AP", "AP of each seed", "best F1", "unsure"]
    return Report(columns, rows, notes(scale, sizes, first, found), lambda figure: draw(figure, found))


def trial(arm: str, seed: int, sizes: Sizes, scale: Scale, store: Trials) -> Result:
    """The scores of a network that was trained on with the boxes of one arm."""
    first = first_key(PERCENT, seed, sizes)
    config = first_config(store.file(first, ""), PERCENT, seed, sizes)
    key = {**first, "trial": "suggested-boxes", "arm": arm, "boxes": boxes_wanted(scale), "region": str(region(scale))}

    def compute() -> Result:
        described = candidates(config, scale, sizes, store.file({**first, "trial": "suggested-boxes-run"}, ""))
        chosen = chosen_by(arm, described, boxes_wanted(scale), seed)
        boxes = [described.boxes[number] for number in chosen]
        more = [config.volumes[0].model_copy(update={"start": box.start, "stop": box.stop}) for box in boxes]
        given = trained_on(config, store.file(key, ""), volumes=(*config.volumes, *more))
        return {
            **trained(given, sizes),
            "chosen": [list(box.start) for box in boxes],
            "unsure": float(described.unsure[chosen].mean()),
        }

    return store.get(key, compute)


def chosen_by(arm: str, described: Candidates, wanted: int, seed: int) -> list[int]:
    """The numbers of the chosen candidates."""
    if arm == ARMS[1]:
        return np.random.default_rng([seed, 7]).choice(len(described.boxes), wanted, replace=False).tolist()
    if arm == ARMS[2]:
        return np.argsort(-described.unsure, kind="stable")[:wanted].tolist()
    seen = described if arm == ARMS[4] else replace(described, patches=None)
    return [choice.number for choice in choose(seen, wanted)]


def candidates(config: TrainConfig, scale: Scale, sizes: Sizes, folder: Path) -> Candidates:
    """All boxes of the lattice that have no label yet, described by the first network's affinities."""
    box = region(scale)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    data = {
        "run_directory": "run",
        "input": {
            "image": f"{fib25.data_file().resolve()}:raw",
            "start": list(box.start),
            "stop": list(box.stop),
        },
        "inference": {"model": str(Path(config.output) / "card.yaml")},
    }
    file.write_text(dump_yaml(data))
    run = Run.open(file)
    run.create()
    for name in (*BlendHeads.reads, BlendHeads.name):
        stage = run.stage(name)
        ledger = run.ledger(stage)
        run_stage(stage, ledger, make_executor("serial"), RunOptions.of(Execution(attempts=1), run.command))
        ledger.close()
    volume = config.volumes[0]
    assert volume.start is not None
    assert volume.stop is not None
    free = boxes_of(run, as_vec(sizes.patch), [BoundingBox(volume.start, volume.stop)])
    return describe(run, free, with_patches=True)


def row(arm: str, results: Sequence[Result]) -> list[Cell]:
    """A line of the table."""
    precisions = [result["ap"] for result in results]
    unsure = mean_spread([result["unsure"] for result in results], 2) if "unsure" in results[0] else ""
    each = ", ".join(f"{value:.3f}" for value in precisions)
    return [arm, mean_spread(precisions, 3), each, mean_spread([r["f1"] for r in results], 3), unsure]


def notes(scale: Scale, sizes: Sizes, first: list[float], found: dict[str, list[Result]]) -> list[str]:
    """Remarks that explain the table."""
    remarks = [
        f"AP: average precision of cut edges on planes 186 to 250. Before: {mean_spread(first, 3)}, after "
        f"{sizes.updates} updates on {PERCENT} % of the labels; then as many with {boxes_wanted(scale)} boxes of "
        f"{list(sizes.patch)} voxels more.",
    ]
    random = [result["ap"] for result in found[ARMS[1]]]
    for arm in ARMS[2:]:
        gains = ", ".join(f"{r['ap'] - other:+.3f}" for r, other in zip(found[arm], random, strict=True))
        remarks.append(f"{arm} less random boxes, by seed: {gains}.")
    return remarks


def draw(figure: Figure, found: dict[str, list[Result]]) -> None:
    """Average precision of each arm, a line for each seed."""
    axes = figure.subplots()
    values = np.array([[result["ap"] for result in found[arm]] for arm in ARMS])
    for seed, line in enumerate(values.T):
        axes.plot(range(len(ARMS)), line, "o-", color=f"C{seed}", alpha=0.6)
    axes.plot(range(len(ARMS)), values.mean(1), "_", color="black", markersize=28)
    axes.set(xticks=range(len(ARMS)), xticklabels=ARMS, ylabel="average precision")


EXPERIMENT = Experiment(
    name="suggested-boxes",
    title="Are suggested boxes better than random ones?",
    run=run,
    figure_inches=(7, 4),
)
