"""The recurrent sibling of the plain U-Net beside it, at equal training time and at equal inference time.

    plain U-Net              the body of both
    recurrent sibling        three steps of a gamma-Net on it
    wider plain U-Net        as slow in inference as the sibling

All are trained for the same CPU minutes, with the same patches, targets and schedule. The first two answer which makes
more of a training, the last two which makes more of a run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod

import torch
from matplotlib.figure import Figure

from pipeline.experiments.base import Cell, Experiment, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.plain import BASE, Reading, Sizes, Variant, scored, trained
from pipeline.experiments.whole_volume import Cutting
from pipeline.models.folding import folded
from pipeline.models.spec import build, named_arguments

NETWORKS = (
    BASE,
    Variant("its recurrent sibling, 3 steps", {"architecture": "plain_gamma"}),
    Variant("wider plain U-Net", {"arguments": {"widths": [64, 64, 128, 128]}}),
)
COLUMNS = (
    *("network", "parameters", "updates", "million voxels a CPU-second", "cut-edge F1", "VOI split", "VOI merge"),
    *("VOI", "VOI of each seed", "best VOI", "ARE"),
)


def run(scale: Scale, store: Trials) -> Report:
    """Train, predict, cut and score every network with every seed."""
    sizes = Sizes.of(scale)
    networks = [sizes.variant(network) for network in NETWORKS]
    found: dict[str, list[Result]] = {network.label: [] for network in networks}
    for seed in scale.seeds:
        for network in networks:
            key, training = trained(network, seed, sizes, store)
            found[network.label].append({**training, **scored(key, Reading(), [Cutting()], sizes, store)[0]})
    speeds = speed(networks, scale, store)
    rows = [row(network, found[network.label], speeds[network.label]) for network in networks]
    return Report(COLUMNS, rows, notes(sizes), lambda figure: draw(figure, found))


def speed(networks: Sequence[Variant], scale: Scale, store: Trials) -> dict[str, Result]:
    """Parameters, and voxels a CPU-second of one thread in bfloat16 as in a run; the best of three rounds, in turns."""
    side = 24 if scale.tiny else 128
    key = {"trial": "plain-speed", "side": side, "networks": [network.settings for network in networks]}
    return store.get(key, lambda: measured_speed(networks, side))


def measured_speed(networks: Sequence[Variant], side: int, rounds: int = 3) -> dict[str, Result]:
    """See ``speed``."""
    torch.set_num_threads(1)
    image = torch.rand(1, 1, side, side, side).bfloat16()
    built = {network.label: network_of(network) for network in networks}
    seconds: dict[str, list[float]] = {label: [] for label in built}
    with torch.inference_mode():
        for _ in range(rounds):
            for label, network in built.items():
                began = time.process_time()
                network(image)
                seconds[label].append(time.process_time() - began)
    parameters = {label: sum(p.numel() for p in network.parameters()) for label, network in built.items()}
    return {
        label: {"parameters": parameters[label], "voxels_per_second": prod(image.shape) / min(times)}
        for label, times in seconds.items()
    }


def network_of(variant: Variant) -> torch.nn.Module:
    """The network as it is in a run: norms folded, all of it in bfloat16."""
    architecture, arguments = variant.settings["architecture"], variant.settings["arguments"]
    network = build(architecture, named_arguments(architecture, arguments))
    return folded(network.eval()).to(torch.bfloat16)


def row(network: Variant, results: Sequence[Result], speed: Result) -> list[Cell]:
    """A line of the table: mean and spread over the seeds."""
    names = ("score", "voi_split", "voi_merge", "voi", "best_voi", "adapted_rand_error")
    over = {name: mean_spread([result[name] for result in results], 3) for name in names}
    return [
        *(network.label, speed["parameters"], results[0]["steps"], round(speed["voxels_per_second"] / 1e6, 2)),
        *(over["score"], over["voi_split"], over["voi_merge"], over["voi"]),
        ", ".join(f"{result['voi']:.3f}" for result in results),
        *(over["best_voi"], over["adapted_rand_error"]),
    ]


def notes(sizes: Sizes) -> list[str]:
    """Remarks that explain the table."""
    return [
        f"{sizes.seconds / 60:g} CPU minutes of one thread for each training, bfloat16.",
        "Threshold: chosen on planes 169 to 184; scores: planes 186 to 249, VOI in bits, 0 is best.",
        "Best VOI: at the threshold that would have been best on those planes themselves.",
    ]


def draw(figure: Figure, found: dict[str, list[Result]]) -> None:
    """Draw VOI at every threshold, one line for each seed; a dot is the threshold that was chosen."""
    axes = figure.subplots()
    for number, (label, results) in enumerate(found.items()):
        for seed, result in enumerate(results):
            at, split, merge = zip(*result["sweep"], strict=True)
            axes.plot(
                *(at, [a + b for a, b in zip(split, merge, strict=True)]),
                color=f"C{number}",
                linewidth=1.2,
                label=None if seed else label,
            )
            axes.plot(result["threshold"], result["voi"], "o", color=f"C{number}")
    axes.set(xlabel="threshold", ylabel="VOI on planes 186 to 249 (bits)", ylim=(0, None))
    axes.legend(frameon=False)


EXPERIMENT = Experiment(
    name="recurrence", title="The plain U-Net and its recurrent sibling at equal time", run=run, timed=True
)
