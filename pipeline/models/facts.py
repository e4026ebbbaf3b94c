"""A network in numbers: parameters, receptive field, multiply-adds per voxel, speed.

    parameters          trained numbers; and how many of them are free, where symmetric kernels make some equal
    receptive field     voxels along z, y, x that the middle voxel of the output depends on: the support of its gradient
    kMAC per voxel      thousands of multiply-adds of convolutions and matrix products, for one voxel of a patch
    voxels per second   measured on this machine, one patch after the other

The numbers of all named sizes and bundled models lie in ``facts.json``, so that listing them is quick; a test computes
them again. ``python -m pipeline.models.facts [NAME ...]`` adds missing entries, and computes the named ones again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models import MODELS
from pipeline.models.patch_rules import PatchRule
from pipeline.models.spec import ModelCard, build, bundled_names, load_card, load_model, named_arguments, sizes_of

if TYPE_CHECKING:
    from torch import nn


STORED = Path(__file__).with_name("facts.json")


@dataclass(frozen=True)
class Facts:
    """One network in numbers."""

    name: str
    """Name of a model, or ``architecture/size``."""
    architecture: str
    parameters: int
    free_parameters: int
    """The parameters, where those that a symmetric kernel makes equal count once."""
    receptive_field: tuple[int | None, int | None, int | None]
    """Voxels along z, y, x; None where a voxel depends on its whole patch."""
    patch_shape: Triple
    """Shape of the patch, in voxels, on which the next two fields are computed."""
    kmac_per_voxel: float
    voxels_per_second: float | None = None
    """The speed on the machine and with the threads of the measurement; None if it was not measured."""


@dataclass(frozen=True)
class Subject:
    """The network that facts describe: a model, or a named size with random weights."""

    name: str
    architecture: str
    arguments: dict[str, Any]
    patch_shape: Triple
    card: ModelCard | None = None

    def network(self) -> nn.Module:
        """The network, with the model's weights if it is a model."""
        module = build(self.architecture, self.arguments) if self.card is None else load_model(self.card).module
        return module.eval()


def stored_facts() -> list[Facts]:
    """The facts of all named sizes and bundled models, without building a network."""
    return [_parsed(entry) for entry in json.loads(STORED.read_text())]


def all_names() -> list[str]:
    """Names of all bundled models and named sizes."""
    return [*bundled_names(), *named_sizes()]


def subject(name: str) -> Subject:
    """The subject of a name: ``architecture/size``, a bundled model, or a card's path; else ``ModelError``."""
    architecture, _, size = name.partition("/")
    if architecture in MODELS and not size and architecture not in bundled_names():
        sizes = [each for each in named_sizes() if each.startswith(f"{architecture}/")]
        raise ModelError(f"{name} is an architecture; facts are those of a size: choose {', '.join(sizes)}")
    if architecture in MODELS and size:
        arguments = named_arguments(architecture, size)
        return Subject(name, architecture, arguments, usual_patch(architecture, arguments))
    card = load_card(name)
    return Subject(card.name, card.architecture, card.arguments, card.patch_shape, card)


def named_sizes() -> list[str]:
    """Every architecture with each of its named sizes, as ``architecture/size``."""
    return [f"{name}/{size}" for name, path in MODELS.items() for size in sizes_of(path)]


def usual_patch(architecture: str, arguments: dict[str, Any]) -> Triple:
    """The usual patch: a section for 2D networks, a cube for networks that treat all axes alike, a slab for others."""
    module = on_meta(architecture, arguments)
    if _sectionwise(module):
        return 1, 256, 256
    multiple = multiple_of(module)
    return (64, 64, 64) if multiple[0] == multiple[1] else (16, 160, 160)


def compute(subject: Subject) -> Facts:
    """All facts but the speed; this takes a minute for a large network, mostly for the receptive field."""
    from pipeline.models.cells.symmetry import free_parameters
    from pipeline.models.receptive_field import receptive_field

    module = subject.network()
    apart = _sectionwise(module)
    thinnest = (1, 64, 64) if apart and multiple_of(module) == (1, 1, 1) else multiple_of(module)
    return Facts(
        name=subject.name,
        architecture=subject.architecture,
        parameters=parameters(module),
        free_parameters=free_parameters(module),
        receptive_field=receptive_field(module, thinnest, apart),
        patch_shape=subject.patch_shape,
        kmac_per_voxel=round(kmac_per_voxel(subject.architecture, subject.arguments, subject.patch_shape), 2),
    )


def with_speed(facts: Facts, subject: Subject) -> Facts:
    """The facts with the speed measured on this machine."""
    return replace(facts, voxels_per_second=voxels_per_second(subject.network(), subject.patch_shape))


def parameters(module: nn.Module) -> int:
    """The number of trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def kmac_per_voxel(architecture: str, arguments: dict[str, Any], patch: Triple) -> float:
    """Thousands of multiply-adds for one voxel of a patch, counted from shapes alone.

    Convolutions and matrix products are counted; voxel by voxel operations (norms, gates) are not.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = on_meta(architecture, arguments)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(PatchRule.of(module).image_shape(patch), device="meta"))
    return counter.get_total_flops() / 2 / prod(patch) / 1000


def voxels_per_second(module: nn.Module, patch: Triple, budget: float = 4.0) -> float:
    """Voxels of a patch over the median seconds of a run; three runs, or as many as begin within ``budget`` seconds.

    One run before them warms up.
    """
    import torch

    image = torch.rand(PatchRule.of(module).image_shape(patch))
    seconds: list[float] = []
    with torch.inference_mode():
        module(image)
        while not seconds or (len(seconds) < 3 and sum(seconds) < budget):
            began = time.perf_counter()
            module(image)
            seconds.append(time.perf_counter() - began)
    return prod(patch) / median(seconds)


def multiple_of(module: nn.Module) -> Triple:
    """The numbers of which the sides of a patch must be multiples, along z, y, x."""
    return getattr(module, "multiple", (1, 1, 1))


def _sectionwise(module: nn.Module) -> bool:
    """Whether sections are computed apart."""
    return getattr(getattr(module, "network", module), "dimensions", 3) == 2


def on_meta(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """The network on the meta device: it has shapes, but no memory for its weights."""
    import torch

    with torch.device("meta"):
        return build(architecture, arguments).eval()


def _parsed(entry: dict[str, Any]) -> Facts:
    """The facts of an entry of the file, whose lists become tuples."""
    parsed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Facts(**parsed)


def write_stored(again: Sequence[str]) -> None:
    """Write the facts of all named sizes and bundled models; missing ones and those in ``again`` are computed."""
    known = {facts.name: facts for facts in stored_facts()}
    found: list[Facts] = []
    for name in all_names():
        facts = known.get(name)
        found.append(compute(subject(name)) if facts is None or name in again else facts)
    lines = ",\n".join(json.dumps(asdict(facts)) for facts in found)
    STORED.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write_stored(sys.argv[1:])
