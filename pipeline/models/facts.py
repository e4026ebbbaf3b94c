"""What a network is in numbers: parameters, receptive field, multiply-adds a voxel, speed.

    parameters          trained numbers
    receptive field     voxels along z, y, x that the middle voxel of the output depends on: the support of its gradient
    kMAC per voxel      thousands of multiply-adds of convolutions and matrix products, for one voxel of a patch
    voxels per second   measured here and now: one patch after the other

The numbers of all named sizes and bundled models lie in ``facts.json``, so that listing them is quick; a test computes
them again. ``python -m pipeline.models.facts`` writes the file anew.
"""

from __future__ import annotations

import copy
import json
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from math import prod
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.geometry import Vec
from pipeline.models import MODELS
from pipeline.models.spec import ModelCard, build, bundled_names, load_card, load_model, named_arguments

if TYPE_CHECKING:
    from torch import nn

Field = tuple[int | None, int | None, int | None]

STORED = Path(__file__).with_name("facts.json")
LONGEST = 32
"""Multiples of a network's patch along the line on which its receptive field is looked for."""


@dataclass(frozen=True)
class Facts:
    """One network in numbers."""

    name: str
    """Name of a model, or ``architecture/size``."""
    architecture: str
    parameters: int
    receptive_field: Field
    """Voxels along z, y, x; None where a voxel depends on its whole patch."""
    patch_shape: Vec
    """Voxels of the patch that the next two are for."""
    kmac_per_voxel: float
    voxels_per_second: float | None = None
    """On the machine and with the threads of the measurement; None if not measured."""


@dataclass(frozen=True)
class Subject:
    """What facts are about: a model, or a named size with random weights."""

    name: str
    architecture: str
    arguments: dict[str, Any]
    patch_shape: Vec
    card: ModelCard | None = None

    def network(self) -> nn.Module:
        """The network, with its weights if it has some."""
        module = build(self.architecture, self.arguments) if self.card is None else load_model(self.card).module
        return module.eval()


def stored_facts() -> list[Facts]:
    """The facts of all named sizes and bundled models, without building a network."""
    return [_parsed(entry) for entry in json.loads(STORED.read_text())]


def all_subjects() -> list[Subject]:
    """All bundled models and named sizes."""
    return [subject(name) for name in (*bundled_names(), *named_sizes())]


def subject(name: str) -> Subject:
    """What a name means: ``architecture/size``, a bundled model, or the path of a card; ``ModelError`` if nothing."""
    architecture, _, size = name.partition("/")
    if architecture in MODELS and size:
        arguments = named_arguments(architecture, size)
        return Subject(name, architecture, arguments, usual_patch(architecture, arguments))
    card = load_card(name)
    return Subject(card.name, card.architecture, card.arguments, card.patch_shape, card)


def named_sizes() -> list[str]:
    """Every architecture with each of its named sizes, as ``architecture/size``."""
    modules = {architecture: import_module(path.partition(":")[0]) for architecture, path in MODELS.items()}
    return [f"{name}/{size}" for name, module in modules.items() for size in getattr(module, "SIZES", {})]


def usual_patch(architecture: str, arguments: dict[str, Any]) -> Vec:
    """Single sections for 2D networks, cubes for those that treat all axes alike, slabs for the others."""
    module = _on_meta(architecture, arguments)
    if _sectionwise(module):
        return 1, 256, 256
    multiple = getattr(module, "multiple", (1, 1, 1))
    return (64, 64, 64) if multiple[0] == multiple[1] else (16, 160, 160)


def compute(subject: Subject) -> Facts:
    """All facts but the speed; a minute for a large network, most of it for the receptive field."""
    module = subject.network()
    return Facts(
        name=subject.name,
        architecture=subject.architecture,
        parameters=parameters(module),
        receptive_field=receptive_field(module),
        patch_shape=subject.patch_shape,
        kmac_per_voxel=round(kmac_per_voxel(subject.architecture, subject.arguments, subject.patch_shape), 2),
    )


def with_speed(facts: Facts, subject: Subject) -> Facts:
    """The facts with the speed of this machine, measured on the patch."""
    return replace(facts, voxels_per_second=voxels_per_second(subject.network(), subject.patch_shape))


def parameters(module: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def kmac_per_voxel(architecture: str, arguments: dict[str, Any], patch: Vec) -> float:
    """Thousands of multiply-adds for one voxel of a patch; counted on shapes alone, nothing is computed.

    Counted are convolutions and matrix products; what goes voxel by voxel (norms, gates) is not.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = _on_meta(architecture, arguments)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(1, 1, *patch, device="meta"))
    return counter.get_total_flops() / 2 / prod(patch) / 1000


def voxels_per_second(module: nn.Module, patch: Vec, budget: float = 4.0) -> float:
    """Voxels of a patch over the median of the seconds of a run: three runs, or as many as begin within the budget (s).

    One run before them warms up.
    """
    import torch

    image = torch.rand(1, 1, *patch)
    seconds: list[float] = []
    with torch.inference_mode():
        module(image)
        while not seconds or (len(seconds) < 3 and sum(seconds) < budget):
            began = time.perf_counter()
            module(image)
            seconds.append(time.perf_counter() - began)
    return prod(patch) / median(seconds)


def receptive_field(module: nn.Module) -> Field:
    """Voxels along z, y, x that the middle voxel of the output depends on.

    For each axis by itself: on a line of voxels along it, as thin as the network allows, the gradient of the middle of
    the output is looked at, on longer and longer lines until both ends see none. For this, max pools are taken as
    means, rectifiers let everything through, gates do not saturate, and parameters that begin at zero do not: nothing
    is hidden by chance. In float64, since far from the middle gradients are products of many small numbers.
    """
    multiple = getattr(module, "multiple", (1, 1, 1))
    if _sectionwise(module):
        multiple = (1, 64, 64)
    probe = _without_zeros(copy.deepcopy(module).cpu().double().eval())
    z, y, x = (_field(probe, axis, multiple) for axis in range(3))
    return z, y, x


def _field(module: nn.Module, axis: int, multiple: Vec) -> int | None:
    length = max(16, 4 * multiple[axis])
    while length <= max(64, LONGEST * multiple[axis]):
        seen = _support(module, axis, [length if a == axis else multiple[a] for a in range(3)])
        if not seen or (seen[0] > 0 and seen[-1] < length - 1):
            return seen[-1] - seen[0] + 1 if seen else 0
        length *= 2
    return None


def _support(module: nn.Module, axis: int, shape: list[int]) -> list[int]:
    """Where along the axis the image has an effect on the middle of the output."""
    import torch

    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    with passing_everything():
        z, y, x = (side // 2 for side in shape)
        (gradient,) = torch.autograd.grad(module(image)[0, :, z, y, x].sum(), image)
    others = tuple(a for a in range(3) if a != axis)
    return torch.nonzero(gradient[0, 0].abs().amax(others))[:, 0].tolist()


def passing_everything() -> AbstractContextManager[Any]:
    """While it is entered, max pools are means, rectifiers let everything through, and sigmoids never saturate."""
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    class Passing(TorchFunctionMode):
        """Replaces functions by their name."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, kwargs = getattr(func, "__name__", ""), kwargs or {}
            if name in ("relu", "relu_", "elu", "elu_"):
                return args[0]
            if name in ("sigmoid", "tanh"):
                return F.softsign(args[0]) if name == "tanh" else (1 + F.softsign(args[0])) / 2
            if name in ("max_pool2d", "max_pool3d"):
                mean = F.avg_pool2d if name == "max_pool2d" else F.avg_pool3d
                return mean(args[0], args[1], kwargs.get("stride"), kwargs.get("padding", 0))
            return func(*args, **kwargs)

    return Passing()


def _without_zeros(module: nn.Module) -> nn.Module:
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.1)
    return module


def _sectionwise(module: nn.Module) -> bool:
    """Whether sections are computed apart."""
    return getattr(getattr(module, "network", module), "dimensions", 3) == 2


def _on_meta(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """The network without memory for its weights: shapes alone."""
    import torch

    with torch.device("meta"):
        return build(architecture, arguments).eval()


def _parsed(entry: dict[str, Any]) -> Facts:
    """Lists of a file become tuples."""
    parsed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Facts(**parsed)


def write_stored() -> None:
    """Compute the facts of all named sizes and bundled models and write them beside this file."""
    lines = ",\n".join(json.dumps(asdict(compute(each))) for each in all_subjects())
    STORED.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write_stored()
