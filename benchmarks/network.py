"""Voxels a CPU-second of the plain U-Net and of the bundled fib25-tiny, side by side in one process.

    python benchmarks/network.py [--model CARD] [--side 160] [--rounds 3] [--compile]

    bare          forward passes of patches, as inference runs them
    predictor     a volume through the predictor: patches overlap, are blended and rounded; voxels of the volume count
    convolutions  those of the plain U-Net alone in a plain loop, on inputs of the same shapes
    --compile     instead of all this: the plain U-Net bare, with torch.compile beside without, and what it costs

CPU time of one thread, in turns; the best round of each counts. Exit status 1 if the plain U-Net through the predictor,
each network in its faster precision, is less than 8 times as fast on a processor with AMX, or 2.2 times on another, or
if its bare network does less than half of the multiply-adds a second that its convolutions alone do.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.geometry import BoundingBox, Triple, as_vec
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.options import PredictOptions
from pipeline.inference.predictor import Predictor
from pipeline.inference.runtime import forward_state, processor_facts
from pipeline.models.facts import kmac_per_voxel, subject
from pipeline.models.spec import LoadedModel, ModelCard, build, load_card, load_model

WITH_AMX, WITHOUT_AMX = 8.0, 2.2
OF_CONVOLUTIONS = 0.5
PRECISIONS = ("float32", "bfloat16")
Rate = dict[str, float]
"""Precision -> units a CPU-second."""


def main() -> int:
    """Print the table, the ratios, and what the convolutions do."""
    arguments = parse()
    plain = load_model(load_card(arguments.model)) if arguments.model else random_model()
    if arguments.compile:
        return compiled(plain, arguments.rounds)
    models = {"fib25-tiny": load_model(load_card("fib25-tiny")), plain.card.name: plain}
    processor, flags = processor_facts()
    amx = "amx_bf16" in flags
    print(f"{processor}, {'AMX' if amx else 'no AMX'}; torch {torch.__version__}, one thread; voxels a CPU-second")
    bare, through = compare(models, arguments.side, arguments.rounds)
    ratio = best(through[plain.card.name]) / best(through["fib25-tiny"])
    limit = WITH_AMX if amx else WITHOUT_AMX
    print(f"each in its faster precision: bare {best(bare[plain.card.name]) / best(bare['fib25-tiny']):.2f}, predictor")
    print(f"{ratio:.2f} times fib25-tiny (limit {limit})")
    shares = [share_of_convolutions(plain, p, bare[plain.card.name][p], arguments.rounds) for p in PRECISIONS]
    return int(ratio < limit or min(shares) < OF_CONVOLUTIONS)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="card of a trained plain U-Net; default: random weights of its size tiny")
    parser.add_argument("--side", type=int, default=160, help="voxels of the volume along each axis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile alone")
    return parser.parse_args()


def random_model(name: str = "plain_unet/tiny", patch: Triple | None = None) -> LoadedModel:
    """A named size with random weights, nine affinities, and patches that overlap by a quarter; patch: (64, 64, 64)."""
    torch.manual_seed(0)
    size, shape = subject(name), as_vec(patch or (64, 64, 64))
    axes = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    card = ModelCard(
        name=name,
        architecture=size.architecture,
        arguments={**size.arguments, "out_channels": 3 * len(axes)},
        patch_shape=shape,
        overlap=shape // 4,
        offsets=tuple(as_vec(axis) * distance for distance in (1, 3, 9) for axis in axes),
        resolution_nm=(8.0, 8.0, 8.0),
    )
    return LoadedModel(card, build(card.architecture, card.arguments).eval())


def compare(models: dict[str, LoadedModel], side: int, rounds: int) -> tuple[dict[str, Rate], dict[str, Rate]]:
    """Voxels a CPU-second of each model, bare and through the predictor, printed as they are measured."""
    bare: dict[str, Rate] = {name: {} for name in models}
    through: dict[str, Rate] = {name: {} for name in models}
    for precision in PRECISIONS:
        options = PredictOptions(device="cpu", precision=precision)  # type: ignore[arg-type]
        predictors = {name: Predictor(model, options) for name, model in models.items()}
        alone = in_turns({name: forward(each) for name, each in predictors.items()}, rounds)
        whole = in_turns({name: volume(each, side) for name, each in predictors.items()}, rounds)
        for name, model in models.items():
            bare[name][precision] = prod(model.card.patch_shape) / alone[name]
            through[name][precision] = side**3 / whole[name]
            print(f"{name:20} {precision:9} bare {bare[name][precision]:10,.0f}   ", end="")
            print(f"predictor {through[name][precision]:10,.0f}", flush=True)
    return bare, through


def compiled(model: LoadedModel, rounds: int) -> int:
    """Print voxels a CPU-second with torch.compile and without, side by side, and the CPU seconds of compilation."""
    for precision in PRECISIONS:
        options = PredictOptions(device="cpu", precision=precision)  # type: ignore[arg-type]
        plain, fused = (forward(Predictor(model, replace(options, compile=each))) for each in (False, True))
        before = sum(os.times()[:4])  # with the C++ compiler, which is a process of its own
        fused()
        cost = sum(os.times()[:4]) - before
        took = in_turns({"plain": plain, "compiled": fused}, rounds)
        rates = {name: prod(model.card.patch_shape) / each for name, each in took.items()}
        print(
            f"{model.card.name} {precision:9} bare {rates['plain']:10,.0f}   compiled {rates['compiled']:10,.0f}",
            end="",
        )
        print(f" ({rates['compiled'] / rates['plain']:.2f}), after {cost:.0f} CPU-seconds of compilation", flush=True)
    return 0


def forward(predictor: Predictor) -> Callable[[], None]:
    """One batch of noise through the network, on its device."""
    noise = torch.rand(predictor.batch_size, predictor.card.image_channels, *predictor.card.patch_shape)
    batch = noise.to(predictor.device).contiguous(memory_format=predictor.memory_format)

    def run() -> None:
        with forward_state(predictor.options):
            predictor.network(batch)

    return run


def volume(predictor: Predictor, side: int) -> Callable[[], None]:
    """A cube of noise through the predictor, as one chunk."""
    bounds = BoundingBox.from_shape((side, side, side))
    image = np.random.default_rng(0).integers(0, 256, bounds.shape, dtype=np.uint8)
    lattice = PatchLattice(bounds, predictor.card.patch_shape, predictor.card.overlap)
    return lambda: void(predictor.predict(image, core=bounds, lattice=lattice))


def share_of_convolutions(model: LoadedModel, precision: str, voxels_a_second: float, rounds: int) -> float:
    """The multiply-adds a second of the bare network over those of its convolutions alone; prints both."""
    options = PredictOptions(device="cpu", precision=precision)  # type: ignore[arg-type]
    predictor, shape = Predictor(model, options), model.card.patch_shape
    macs = multiply_adds(model.card, predictor.channels, shape)
    loop = in_turns({"loop": convolutions(predictor, shape)}, rounds)["loop"]
    network, alone = macs * voxels_a_second / prod(shape) / 1e9, macs / loop / 1e9
    print(f"{precision:9} convolutions alone {alone:5.0f} GMAC a CPU-second, bare network {network:5.0f}: ", end="")
    print(f"{network / alone:.2f} (limit {OF_CONVOLUTIONS})")
    return network / alone


def multiply_adds(card: ModelCard, channels: int, shape: Triple) -> float:
    """Multiply-adds of one patch, with as many outputs as the predictor computes."""
    arguments = {**card.arguments, "out_channels": channels}
    return kmac_per_voxel(card.architecture, arguments, shape) * 1000 * prod(shape)


def convolutions(predictor: Predictor, shape: Triple) -> Callable[[], None]:
    """All convolutions of a network, one after the other, on inputs that are kept from a forward pass."""
    kept: list[tuple[nn.Module, Tensor]] = []
    layers = [each for each in predictor.network.modules() if isinstance(each, nn.Conv3d | nn.ConvTranspose3d)]
    hooks = [each.register_forward_pre_hook(lambda layer, given: kept.append((layer, given[0]))) for each in layers]
    with forward_state(predictor.options):
        predictor.network(torch.rand(1, 1, *shape))
    for hook in hooks:
        hook.remove()

    def run() -> None:
        with forward_state(predictor.options):
            for layer, given in kept:
                layer(given)

    return run


def in_turns(runs: dict[str, Callable[[], None]], rounds: int) -> Rate:
    """The least CPU seconds of each, after one run to warm up; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in (turn for _ in range(rounds + 1) for turn in runs.items()):
        seconds[name].append(cpu_seconds(run))
    return {name: min(each[1:]) for name, each in seconds.items()}


def cpu_seconds(run: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    run()
    return time.process_time() - began


def best(rate: Rate) -> float:
    """The rate of the faster precision."""
    return max(rate.values())


def void(_: object) -> None:
    """Takes a result and returns none."""


if __name__ == "__main__":
    sys.exit(main())
