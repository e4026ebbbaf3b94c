"""Label efficiency: gamma-Net against the residual U-Net on 1, 10 and 100 % of the labels.

The claim of Linsley, Kim, Ashok and Serre 2020: a recurrent network learns contours from fewer labels. Tried on the
synthetic challenge (2D, membranes) and on real tissue (3D, affinities of FIB-25), with as many parameters on both
sides. The U-Net is cheaper, so it is trained twice: with as many updates as the gamma-Net, and for as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pipeline.experiments import challenge, fib25
from pipeline.experiments.base import Cell, Experiment, Report, Scale, Trials, mean_spread
from pipeline.experiments.equal_time import seconds_per_update
from pipeline.experiments.fib25 import Network, Training
from pipeline.geometry import Triple, Vec
from pipeline.models.facts import parameters
from pipeline.models.spec import build, load_card, load_model
from pipeline.training.config import TrainConfig
from pipeline.training.data import ValidationPatches
from pipeline.training.sources import open_sources
from pipeline.training.trainer import train

PERCENTS = (1, 10, 100)
OFFSETS: tuple[Triple, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, -3, 0), (0, 0, -3))
IN_PLANE = {
    "γ-Net": (
        "gamma_net_2d",
        {"widths": [8, 12, 16, 24], "horizontal": [5, 3, 3, 1], "steps": 4, "local_gate": 3, "memory": "paper"},
    ),
    "U-Net": ("residual_unet", {"widths": [8, 12, 16, 24], "dimensions": 2, "norm": "instance"}),
}
"""The 2D networks; both normalise each picture by itself."""
SOLID: dict[str, Any] = {"widths": [16, 24, 32], "pools": [[2, 2, 2]] * 2, "stride": [2, 2, 2]}
IN_SPACE = {
    "γ-Net": ("gamma_net_3d", {**SOLID, "horizontal": [[3, 3, 3]] * 3, "steps": 3}),
    "U-Net": ("residual_unet", {**SOLID, "first_kernel": [3, 3, 3], "embedding": [3, 3, 3]}),
}
BOXES = {1: Vec(48, 47, 47), 10: Vec(102, 102, 102), 100: Vec(169, 250, 250)}
"""Percent of the 169 x 250 x 250 training voxels -> a box with this share of them."""
ARMS = {
    "γ-Net": ("γ-Net", False),
    "U-Net, equal updates": ("U-Net", False),
    "U-Net, equal time": ("U-Net", True),
}
"""Compared training -> its network, and whether it has the gamma-Net's time instead of its updates."""


@dataclass(frozen=True)
class Data:
    """One kind of data: how networks are trained on a part of it and scored."""

    name: str
    networks: dict[str, tuple[str, dict[str, Any]]]
    updates: int
    """Updates of the gamma-Net."""
    outputs: int
    settings: dict[str, Any]
    """The other settings on which a trial depends."""
    paces: Callable[[], list[float]]
    """CPU seconds of an update of each network."""
    trial: Callable[[str, int, int, int, Path], dict[str, float]]
    """(network, percent, updates, seed, a folder for files) -> scores, ``ap`` among them."""


def run(scale: Scale, store: Trials) -> Report:
    """Run all trainings; with each seed, the 1 and 10 % are other parts of the real volume."""
    kinds = [pictures_of(scale), tissue_of(scale, store)]
    results = {(kind.name, arm): trials(kind, arm, scale, store) for kind in kinds for arm in ARMS}
    rows: list[list[Cell]] = []
    for kind in kinds:
        for arm, (network, _) in ARMS.items():
            updates, scores = results[kind.name, arm]
            cells = [mean_spread(scores[percent], 3) for percent in PERCENTS]
            rows.append([kind.name, arm, size(kind, network), updates, *cells])
    columns = ["data", "network", "parameters", "updates", *(f"AP at {percent} %" for percent in PERCENTS)]
    precisions = {key: value for key, (_, value) in results.items()}
    return Report(columns, rows, notes(kinds, store), lambda figure: draw(figure, precisions))


def trials(kind: Data, arm: str, scale: Scale, store: Trials) -> tuple[int, dict[int, list[float]]]:
    """Updates of an arm, and its average precision for each percentage and seed."""
    network, equal_time = ARMS[arm]
    pace = paces(kind, store)
    updates = round(kind.updates * pace["γ-Net"] / pace[network]) if equal_time else kind.updates
    scores: dict[int, list[float]] = {percent: [] for percent in PERCENTS}
    for percent in PERCENTS:
        for seed in scale.seeds:
            key = {"trial": f"label-efficiency-{kind.name}", "network": network, "percent": percent, "seed": seed}
            key |= {"updates": updates, "arguments": list(kind.networks[network]), "settings": kind.settings}
            given = network, percent, updates, seed, store.file(key, "")
            scores[percent].append(store.get(key, lambda given=given: kind.trial(*given))["ap"])  # type: ignore[misc]
    return updates, scores


def paces(kind: Data, store: Trials) -> dict[str, float]:
    """CPU seconds of an update of each network, measured once."""
    key = {"trial": f"label-efficiency-pace-{kind.name}", "networks": kind.networks, "settings": kind.settings}
    return store.get(key, lambda: dict(zip(kind.networks, kind.paces(), strict=True)))


def size(kind: Data, network: str) -> int:
    """Parameters of a network."""
    architecture, arguments = kind.networks[network]
    return parameters(build(architecture, {**arguments, "out_channels": kind.outputs}))


# -- the synthetic challenge, 2D ------------------------------------------------------------------------------------


def pictures_of(scale: Scale) -> Data:
    """100 pictures to train on (1 % is one of them), 16 to score on; --full: 320 x 320 pixels, many more updates."""
    updates = scale.updates(20_000 if scale.full else 4 if scale.tiny else 120)
    fit = challenge.Fit(updates=updates, learning_rate=1e-2)
    networks, config, tests = IN_PLANE, challenge.SMALL, scale.data(16)
    if scale.full:
        networks = {"γ-Net": ("gamma_net_2d", {}), "U-Net": ("residual_unet", {"dimensions": 2, "norm": "instance"})}
        fit, config = replace(fit, patch=256), challenge.ChallengeConfig(crop=320)
    if scale.tiny:
        fit, tests = replace(fit, patch=32), 2
    data, test = (
        challenge.pictures(100, challenge.TRAIN_SEED, config),
        challenge.pictures(tests, challenge.TEST_SEED, config),
    )

    def learner(network: str, percent: int, fit: challenge.Fit, seed: int) -> challenge.Learner:
        return challenge.Learner(*networks[network], data.first(percent), fit, seed, scale.device)

    def trial(network: str, percent: int, updates: int, seed: int, _folder: Path) -> dict[str, float]:
        trained = learner(network, percent, replace(fit, updates=updates), seed)
        return {"seconds_per_update": trained.run(), **challenge.score(trained.network, test)}

    def measure() -> list[float]:
        return seconds_per_update([learner(network, 100, fit, 0) for network in networks])

    settings = {"fit": asdict(replace(fit, updates=0)), "pictures": config.model_dump(mode="json"), "tests": tests}
    return Data("challenge", networks, fit.updates, 1, settings, measure, trial)


# -- real tissue, 3D ------------------------------------------------------------------------------------------------


def tissue_of(scale: Scale, store: Trials) -> Data:
    """Boxes of FIB-25 to train on, by ``petaseg train``; scored on planes that no choice was made on."""
    training = Training(patch=(40, 40, 40), offsets=OFFSETS, validations=1)
    if scale.tiny:
        training = replace(training, patch=(24, 24, 24))
    updates = scale.updates(20_000 if scale.full else 4 if scale.tiny else 100)

    def config(network: str, percent: int, updates: int, seed: int, folder: Path) -> TrainConfig:
        named = Network(network, *IN_SPACE[network])
        return fib25.train_config(folder, named, training, [part(percent, seed)], steps=updates, seed=seed)

    def trial(network: str, percent: int, updates: int, seed: int, folder: Path) -> dict[str, float]:
        result = train(config(network, percent, updates, seed, folder))
        return score(folder, result.best.score, training.patch)

    def measure() -> list[float]:
        folder = store.folder / "pace"
        return seconds_per_update([fib25.Pace(config(network, 100, updates, 0, folder)) for network in IN_SPACE])

    return Data("tissue", IN_SPACE, updates, len(OFFSETS), asdict(training), measure, trial)


def part(percent: int, seed: int) -> tuple[Vec, Vec]:
    """A random box with ``percent`` of the training voxels."""
    rng = np.random.default_rng([seed, percent])
    start = Vec(*(int(rng.integers(room + 1)) for room in BOXES[100] - BOXES[percent]))
    return start, start + BOXES[percent]


def score(folder: Path, validation_f1: float, patch: Triple) -> dict[str, float]:
    """Average precision and best F1 of the cut edges between nearest neighbours, on twelve patches of the test part."""
    card = load_card(folder / "card.yaml")
    network = load_model(card).module
    test = fib25.labelled(*fib25.planes(fib25.TEST))
    network_box = {"output": ".", "name": "", "volumes": [test], "validation": test, "patch_shape": patch}
    config = fib25.parse_config({**network_box, "offsets": card.offsets}, TrainConfig)
    said, true = [], []
    for image, targets, mask in _patches(config):
        with torch.inference_mode():
            logits = network(torch.from_numpy(image)[None])[0].numpy()
        asked = mask[:3] > 0
        said.append(-logits[:3][asked])
        true.append(targets[:3][asked] < 0.5)
    average, best = challenge.precision(np.concatenate(said), np.concatenate(true))
    return {"ap": average, "f1": best, "validation_f1": validation_f1}


def _patches(config: TrainConfig) -> Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    patches = ValidationPatches(open_sources(config)[1], config)
    return [patches[number] for number in range(len(patches))]


# -- the report -----------------------------------------------------------------------------------------------------


def notes(kinds: Sequence[Data], store: Trials) -> list[str]:
    """Remarks that explain the table."""
    remarks = [
        "AP: average precision of membrane pixels (challenge) or of cut edges (tissue); mean ± spread over seeds."
    ]
    for kind in kinds:
        pace = ", ".join(f"{network} {seconds:.3f} s" for network, seconds in paces(kind, store).items())
        remarks.append(f"{kind.name}: CPU time of an update: {pace}.")
    return remarks


def draw(figure: Figure, scores: dict[tuple[str, str], dict[int, list[float]]]) -> None:
    """Average precision against labels, a panel for each kind of data."""
    names = list(dict.fromkeys(kind for kind, _ in scores))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for colour, (arm, shift) in enumerate(zip(ARMS, (0.94, 1.0, 1.06), strict=True)):
            found = [scores[name, arm][percent] for percent in PERCENTS]
            places = [percent * shift for percent in PERCENTS]
            axes.plot(places, [np.mean(values) for values in found], marker="o", label=arm, color=f"C{colour}")
            for place, values in zip(places, found, strict=True):
                axes.plot([place] * len(values), values, ".", color=f"C{colour}", alpha=0.4)
        axes.set(xscale="log", xticks=PERCENTS, xticklabels=[f"{p} %" for p in PERCENTS], xlabel="labels", title=name)
        axes.set_ylabel("average precision")
        axes.legend(frameon=False)


EXPERIMENT = Experiment(name="label-efficiency", title="γ-Net and U-Net on 1, 10 and 100 % of the labels", run=run)
