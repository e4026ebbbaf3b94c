"""The tilt illusion end to end: train on contours, freeze, read out orientations, and see how a surround biases them.

Linsley, Kim, Ashok and Serre 2020 (ICLR): a network that was trained on contours predicts the orientation of a grating,
and a surround biases it as it does people (O'Toole and Wenderoth 1977): away from the surround if the two orientations
are near each other (repulsion), towards it if they are far apart (attraction).

Contours are made up: a γ-Net learns membranes of the synthetic challenge, the hGRU network curves of Pathfinder. The
readout learns single gratings and never sees a surround. Two controls have the same readout: the network with its first
weights, and the drive before the recurrence. The readout normalises each channel over the whole image, and so sees the
surround in every arm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

from pipeline.evaluation.files import whole_file
from pipeline.experiments import challenge, gamma_units, pathfinder_task
from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.challenge import ChallengeConfig, Fit, Learner
from pipeline.experiments.gratings import FAR, NEAR, Gratings, read_out, towards
from pipeline.experiments.pathfinder_task import Training, fresh_network, trained
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.models.spec import build
from pipeline.models.tilt_readout import bias_curve

KINDS = ("γ-Net", "hGRU")
STATES = ("trained", "first weights", "drive of the trained")
"""What is read of a network."""
COLUMNS = (
    *("network", "read", "contours", "error alone"),
    *(f"at {NEAR:.0f} degrees", f"at {FAR:.0f} degrees", "seeds with the published signs"),
)
Trained = tuple[RecurrentNetwork, RecurrentNetwork, float]
"""The trained network, the same with its first weights, and its score on contours."""


@dataclass(frozen=True)
class Setting:
    """The sizes of a scale."""

    gratings: Gratings
    fit: Fit
    network: dict[str, Any]
    """Arguments of the γ-Net."""
    task: pathfinder_task.Task
    """Pathfinder, for the hGRU."""
    hgru_steps: int = 8
    pictures: int = 50
    config: ChallengeConfig = field(default=challenge.SMALL)


def setting_of(scale: Scale) -> Setting:
    """Images of 64 pixels; --full: 224 as published, the γ-Net of 450K, and Pathfinder with 14 dashes."""
    gamma = {**gamma_units.SMALL, "steps": 4}
    if scale.tiny:
        tiny = {**gamma, "widths": [4, 5], "horizontal": [3, 1], "steps": 2}
        task = replace(pathfinder_task.TINY, norm="instance", orientations=2)
        return Setting(Gratings(32, 12, 8, 4, updates=5), Fit(2, patch=32), tiny, task, 2, pictures=2)
    if scale.full:
        task = replace(pathfinder_task.task_of(scale), norm="instance")
        fit, config = Fit(scale.updates(20_000), patch=256, learning_rate=1e-2), ChallengeConfig(crop=320)
        train, test, check = (scale.data(number, few=16) for number in (100_000, 1000, 1000))
        gratings = Gratings(224, train, test, check, scale.updates(20_000))
        return Setting(gratings, fit, {}, task, 6, scale.data(500), config)
    task = replace(pathfinder_task.task_of(scale), norm="instance", orientations=6)
    train, test, check = (scale.data(number, few=16) for number in (600, 300, 100))
    gratings = Gratings(64, train, test, check, scale.updates(400))
    return Setting(gratings, Fit(scale.updates(200), patch=64, learning_rate=1e-2), gamma, task)


def run(scale: Scale, store: Trials) -> Report:
    """Train both networks with every seed, read them out, and fit the curves."""
    setting = setting_of(scale)
    found = {
        (kind, state): [measured(kind, state, seed, setting, scale, store) for seed in scale.seeds]
        for kind in KINDS
        for state in STATES
    }
    rows = [row(*arm, results) for arm, results in found.items()]
    return Report(COLUMNS, rows, notes(found), lambda figure: draw(figure, found))


def measured(kind: str, state: str, seed: int, setting: Setting, scale: Scale, store: Trials) -> Result:
    """Bias of one network with one seed."""
    contours = gamma_trained if kind == "γ-Net" else hgru_trained
    network, first, score = contours(seed, setting, scale, store)
    key = {"trial": "tilt", "network": kind, "read": state, "seed": seed, "device": scale.device.type}
    key |= {"gratings": asdict(setting.gratings), "trained": trained_key(kind, seed, setting)}

    def compute() -> Result:
        chosen = first if state == STATES[1] else network
        return {"score": score, **read_out(chosen, setting.gratings, seed, drive=state == STATES[2])}

    return store.get(key, compute)


def trained_key(kind: str, seed: int, setting: Setting) -> dict[str, Any]:
    """The identity of a training on contours."""
    if kind == "hGRU":
        return hgru_training(seed, setting).key
    key = {"trial": "tilt-contours", "network": setting.network, "fit": asdict(setting.fit), "seed": seed}
    return key | {"pictures": setting.pictures, "config": setting.config.model_dump(mode="json")}


def hgru_training(seed: int, setting: Setting) -> Training:
    """The training of the hGRU network."""
    return Training(setting.task, "bptt", setting.hgru_steps, seed)


def hgru_trained(seed: int, setting: Setting, scale: Scale, store: Trials) -> Trained:
    """The hGRU network after and before its training on Pathfinder, and its F1."""
    training = hgru_training(seed, setting)
    network, record = trained(store, training, scale.device)
    return network, fresh_network(training.task, training.steps, seed).to(scale.device), record["f1"]


def gamma_trained(seed: int, setting: Setting, scale: Scale, store: Trials) -> Trained:
    """The γ-Net after and before its training on the challenge, and its average precision."""
    key = trained_key("γ-Net", seed, setting)
    path = store.file(key, ".safetensors")

    def compute() -> Result:
        data = challenge.pictures(setting.pictures, challenge.TRAIN_SEED, setting.config)
        learner = Learner("gamma_net_2d", setting.network, data, setting.fit, seed, scale.device)
        first = {name: values.clone() for name, values in learner.network.state_dict().items()}
        learner.run()
        last = learner.network.state_dict()
        both = {
            f"{when}.{name}": values.cpu().contiguous()
            for when, state in (("first", first), ("last", last))
            for name, values in state.items()
        }
        with whole_file(path) as temporary:
            save_file(both, temporary)
        return challenge.score(learner.network, challenge.pictures(16, challenge.TEST_SEED, setting.config))

    score = store.get(key, compute)["ap"]
    networks = [build("gamma_net_2d", {**setting.network, "out_channels": 1}).to(scale.device) for _ in range(2)]
    tensors = load_file(path)
    for network, when in zip(networks, ("last.", "first."), strict=True):
        network.load_state_dict({name.removeprefix(when): v for name, v in tensors.items() if name.startswith(when)})
    return networks[0], networks[1], score  # type: ignore[return-value]


def curves(results: list[Result]) -> list[tuple[float, float]]:
    """Degrees towards the surround of each seed, where people see repulsion and where they see attraction."""
    given = [(np.array(result["dtheta"]), np.array(result["bias"])) for result in results]
    return [(towards(*each, NEAR), towards(*each, FAR)) for each in given]


def row(kind: str, state: str, results: list[Result]) -> list[Cell]:
    """One row of the table."""
    found = curves(results)
    as_published = sum(near < 0 < far for near, far in found)
    score = mean_spread([result["score"] for result in results]) if state == STATES[0] else ""
    error = mean_spread([result["error"] for result in results], 1)
    bias = [mean_spread(list(values), 1) for values in zip(*found, strict=True)]
    return [kind, state, score, error, *bias, f"{as_published} of {len(found)}"]


def notes(found: dict[tuple[str, str], list[Result]]) -> list[str]:
    """Remarks that explain the table, and the result in a line."""
    verdicts = []
    for kind, state in found:
        near, far = np.mean(curves(found[kind, state]), axis=0)
        words = ["repulsion" if value < 0 else "attraction" for value in (near, far)]
        verdicts.append(f"{kind}, {state}: {words[0]} at {NEAR:.0f}, {words[1]} at {FAR:.0f}")
    return [
        "Contours: average precision (γ-Net) or F1 (hGRU). Error alone: median error in degrees of single gratings. "
        "Then the fitted curve, degrees towards the surround; negative is repulsion.",
        f"Published: repulsion, then attraction. Here, by the means: {'; '.join(verdicts)}.",
    ]


def draw(figure: Figure, found: dict[tuple[str, str], list[Result]]) -> None:
    """Bias against difference of orientations: a column for each network, the fitted curve of every seed."""
    axes = figure.subplots(1, len(KINDS))
    dense = np.linspace(-90, 90, 181)
    for (kind, state), results in found.items():
        panel, colour = axes[KINDS.index(kind)], f"C{STATES.index(state)}"
        for number, result in enumerate(results):
            dtheta, bias = np.array(result["dtheta"]), np.array(result["bias"])
            label = state if number == 0 else None
            panel.plot(dense, bias_curve(dtheta, bias)(dense), color=colour, label=label)
            if state == STATES[0]:
                panel.plot(dtheta, bias, ".", color=colour, markersize=2, alpha=0.3)
        panel.set(title=kind, xlabel="surround less centre, degrees", xticks=range(-90, 91, 30), ylim=(-30, 30))
    axes[0].set_ylabel("bias, degrees")
    for panel in axes:
        panel.grid(alpha=0.2)
        panel.legend(frameon=False, fontsize=8)


EXPERIMENT = Experiment(
    name="tilt-illusion", title="The tilt illusion of networks that were trained on contours", run=run
)
