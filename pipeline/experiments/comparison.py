"""3D gamma-Net, residual U-Net and RIGNet on real tissue at equal time, by VOI after the whole pipeline.

Each network is trained as ``petaseg train`` does, on the same data with the same patches, offsets, augmentation and
schedule, for the same CPU minutes; then ``petaseg run`` predicts, makes supervoxels, agglomerates and cuts at the
threshold that was best on the validation part. docs/choosing.md is about the result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from math import prod

import torch
from matplotlib.figure import Figure

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.equal_time import seconds_per_update
from pipeline.experiments.fib25 import (
    SIDE,
    TRAIN,
    Network,
    Pace,
    Training,
    judged,
    planes,
    train_config,
)
from pipeline.models.facts import Subject, stored_facts, subject
from pipeline.models.facts import compute as compute_facts
from pipeline.training.trainer import train

NETWORKS = (
    Network("γ-Net", "gamma_net_3d", "tiny"),
    Network("residual U-Net", "residual_unet", "tiny"),
    Network(
        "RIGNet of the U-Net",
        "rignet",
        {"host": "residual_unet", "host_arguments": "tiny", "iterations": 2, "feedback": [1, 2, 3, 5, 6, 7, 8]},
    ),
)
"""RIGNet gates every block but the lowest: there, the gate would pool three voxels to two, at which torch computes
wrong gradients in bfloat16 on a CPU."""
TINY = (
    Network(
        "γ-Net",
        "gamma_net_3d",
        {"widths": [4, 6], "horizontal": [[3, 3, 3]] * 2, "pools": [[2, 2, 2]], "stride": [2, 2, 2], "steps": 2},
    ),
    Network("residual U-Net", "residual_unet", {"widths": [4, 6], "pools": [[2, 2, 2]], "stride": [2, 2, 2]}),
)
COLUMNS = (
    *("network", "parameters", "updates", "min", "cut-edge F1", "threshold"),
    *("VOI split", "VOI merge", "VOI", "VOI of each seed", "best VOI", "ARE"),
)
VALIDATED = ("validation_f1", "threshold", "best_test_voi")
SHOWN = 3.0
"""The largest VOI, in bits, in the plot of split against merge."""
MINUTES, FULL_MINUTES = 6.0, 240.0
"""CPU minutes of a training, and minutes on a GPU with --full."""


def run(scale: Scale, store: Trials) -> Report:
    """Train, segment and score every network with every seed."""
    networks = TINY if scale.tiny else NETWORKS
    paces = measured_paces(networks, scale, store)
    found: dict[Network, list[Result]] = {network: [] for network in networks}
    for seed in scale.seeds:
        for network, results in found.items():
            results.append(trial(network, seed, paces[network.label], scale, store))
    rows = [row(network, results) for network, results in found.items()]
    return Report(COLUMNS, rows, notes(scale, paces), lambda figure: draw(figure, found))


def training_of(scale: Scale) -> Training:
    """The settings of training that all networks share."""
    return Training(patch=(16, 16, 16) if scale.tiny else (64, 64, 64) if scale.full else (48, 48, 48))


def budget(scale: Scale) -> float:
    """CPU seconds of a training."""
    minutes = FULL_MINUTES if scale.full else 0.01 if scale.tiny else MINUTES
    return 60 * (minutes if scale.minutes is None else scale.minutes)


def measured_paces(networks: Sequence[Network], scale: Scale, store: Trials) -> dict[str, float]:
    """CPU seconds of an update of each network, measured in turns."""
    key = {"trial": "comparison-pace", "networks": [asdict(n) for n in networks], **asdict(training_of(scale))}

    def compute() -> dict[str, float]:
        configs = [
            train_config(store.file(key, ""), n, training_of(scale), [planes(TRAIN)], steps=100, seed=0)
            for n in networks
        ]
        return dict(
            zip([n.label for n in networks], seconds_per_update([Pace(config) for config in configs]), strict=True)
        )

    return store.get(key, compute)


def trial(network: Network, seed: int, pace: float, scale: Scale, store: Trials) -> Result:
    """One training of as many updates as fit into the time, and the whole pipeline behind it."""
    training, steps = training_of(scale), scale.updates(max(4, round(budget(scale) / pace)))
    key = {"trial": "comparison", "network": network.label, "seed": seed, "steps": steps}
    key |= {"arguments": network.arguments, "training": asdict(training)}

    def compute() -> Result:
        folder = store.file(key, "")
        config = train_config(folder / "model", network, training, [planes(TRAIN)], steps=steps, seed=seed)
        result = train(config)
        store.say(f"{network.label}: {result}")
        side = 32 if scale.tiny else SIDE
        scores = judged(folder, folder / "model" / "card.yaml", side=side)
        return {"steps": steps, "validation_f1": result.best.score, **scores}

    return {**store.get(key, compute), "pace": pace, **facts_of(network, scale, store)}


def facts_of(network: Network, scale: Scale, store: Trials) -> Result:
    """The network's facts as ``petaseg models`` prints them, and voxels in a CPU second of one thread."""
    key = {"trial": "facts", "network": network.label, "arguments": network.arguments, "clock": "cpu"}

    def compute() -> Result:
        if isinstance(network.arguments, str):
            known = subject(f"{network.architecture}/{network.arguments}")
            stored = next((facts for facts in stored_facts() if facts.name == known.name), None)
        else:
            patch = (16, 16, 16) if scale.tiny else (64, 64, 64)
            known, stored = Subject(network.label, network.architecture, network.arguments, patch), None
        facts = stored or compute_facts(known)
        return {**asdict(facts), "voxels_per_second": voxels_per_cpu_second(known)}

    return store.get(key, compute)


def voxels_per_cpu_second(known: Subject, runs: int = 3) -> float:
    """The network's speed on its usual patch in float32, as in a run: the best of ``runs``, after a warm-up."""
    torch.set_num_threads(1)
    network, image = known.network(), torch.rand(1, 1, *known.patch_shape)
    seconds = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            began = time.process_time()
            network(image)
            seconds.append(time.process_time() - began)
    return prod(known.patch_shape) / min(seconds[1:])


def row(network: Network, results: Sequence[Result]) -> list[Cell]:
    """A line of the table: mean and spread over the seeds."""
    one, tests = results[0], [result["test"] for result in results]
    over = {name: mean_spread([test[name] for test in tests], 3) for name in tests[0]}
    others = {name: mean_spread([result[name] for result in results], 3) for name in VALIDATED}
    return [
        *(network.label, one["parameters"], one["steps"], round(one["steps"] * one["pace"] / 60, 1)),
        *(others["validation_f1"], others["threshold"], over["voi_split"], over["voi_merge"], over["voi"]),
        ", ".join(f"{test['voi']:.3f}" for test in tests),
        *(others["best_test_voi"], over["adapted_rand_error"]),
    ]


def notes(scale: Scale, paces: dict[str, float]) -> list[str]:
    """Remarks that explain the table."""
    pace = ", ".join(f"{label} {seconds:.2f} s" for label, seconds in paces.items())
    return [
        f"{budget(scale) / 60:g} CPU minutes of one thread for each training; an update took: {pace}.",
        "Threshold: the best on planes 169 to 185; scores: planes 186 to 250, VOI in bits, 0 is best.",
        "Best VOI: at the threshold that would have been best on the test part itself.",
    ]


def draw(figure: Figure, found: dict[Network, list[Result]]) -> None:
    """Draw VOI at every threshold, and split against merge, with one line for each seed."""
    total, parts = figure.subplots(1, 2)
    for number, (network, results) in enumerate(found.items()):
        for seed, result in enumerate(results):
            t, split, merge = zip(*result["sweep"], strict=True)
            style = {"color": f"C{number}", "linewidth": 1.2, "label": None if seed else network.label}
            total.plot(t, [a + b for a, b in zip(split, merge, strict=True)], **style)
            total.plot(result["threshold"], result["test"]["voi"], "o", color=style["color"])
            parts.plot(split, merge, **style)
            parts.plot(result["test"]["voi_split"], result["test"]["voi_merge"], "o", color=style["color"])
    total.set(
        xlabel="threshold", ylabel="VOI on the test part (bits)", title="dots: threshold from the validation part"
    )
    parts.set(xlabel="VOI split (bits)", ylabel="VOI merge (bits)", title="towards the corner is better")
    parts.set(xlim=(0, SHOWN), ylim=(0, SHOWN))
    total.legend(frameon=False)


EXPERIMENT = Experiment(
    name="comparison", title="Three 3D networks on real tissue at equal time", run=run, seeds=(0,), timed=True
)
