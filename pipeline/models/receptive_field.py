"""The receptive field of a network, measured: the support of the gradient of its middle output voxel."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.geometry import Triple

Field = tuple[int | None, int | None, int | None]
"""Voxels along z, y, x; None where a voxel depends on its whole patch."""

LONGEST = 32
"""Multiples of a network along the line on which its receptive field is looked for."""


def receptive_field(module: nn.Module, multiple: Triple, sections_apart: bool = False) -> Field:
    """Voxels along z, y, x that the middle voxel of the output depends on.

    For each axis by itself: on a line of voxels along it, as thin as the network allows (``multiple``), the gradient of
    the middle of the output is looked at, on longer and longer lines until both ends see none. What is averaged along
    an axis, as by an instance norm, sees the whole patch. In float64, since far from the middle gradients are products
    of many small numbers. ``Passing`` and ``_without_zeros`` take care that nothing is hidden by chance. A network that
    makes a batch of the sections (``sections_apart``) sees one of them.
    """
    probe = _without_zeros(copy.deepcopy(module).cpu().double().eval())
    z, y, x = (1 if sections_apart and axis == 0 else _along(probe, axis, multiple) for axis in range(3))
    return z, y, x


def _along(module: nn.Module, axis: int, multiple: Triple) -> int | None:
    length = max(16, 4 * multiple[axis])
    while length <= max(64, LONGEST * multiple[axis]):
        try:
            seen = _support(module, axis, [length if a == axis else multiple[a] for a in range(3)])
        except AveragedError:
            return None
        if not seen or (seen[0] > 0 and seen[-1] < length - 1):
            return seen[-1] - seen[0] + 1 if seen else 0
        length *= 2
    return None


def _support(module: nn.Module, axis: int, shape: list[int]) -> list[int]:
    """Where along the axis the image has an effect on the middle of the output; ``AveragedError`` if everywhere."""
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    z, y, x = (side // 2 for side in shape)
    with Passing(axis):
        (gradient,) = torch.autograd.grad(module(image)[0, :, z, y, x].sum(), image)
    others = tuple(a for a in range(3) if a != axis)
    return torch.nonzero(gradient[0, 0].abs().amax(others))[:, 0].tolist()


class AveragedError(Exception):
    """Something is averaged along the axis, so that each voxel sees all."""


class Passing(TorchFunctionMode):
    """While it is entered, max pools are means, rectifiers let everything through, and sigmoids never saturate.

    As soon as something is averaged, or shared out by a softmax, along the axis (0, 1, 2 for z, y, x), it raises
    ``AveragedError``: the rest of the network need not run.
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace functions by their name."""
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in ("relu", "relu_", "elu", "elu_"):
            return args[0]
        if name in ("sigmoid", "tanh"):
            return F.softsign(args[0]) if name == "tanh" else (1 + F.softsign(args[0])) / 2
        if name in ("max_pool2d", "max_pool3d"):
            mean = F.avg_pool2d if name == "max_pool2d" else F.avg_pool3d
            return mean(args[0], args[1], kwargs.get("stride"), kwargs.get("padding", 0))
        if name == "softmax" and args[0].ndim == 3:  # over voxels: (b, voxels, voxels)
            raise AveragedError
        if name == "mean":
            self._note(args[0], args[1] if len(args) > 1 else kwargs.get("dim", ()))
        return func(*args, **kwargs)

    def _note(self, r: Tensor, over: int | tuple[int, ...]) -> None:
        """Of a tensor (b, c, z, y, x) or (b z, c, y, x), the axes that a mean goes over."""
        dims = {d % r.ndim for d in ((over,) if isinstance(over, int) else over)} or set(range(r.ndim))
        if r.ndim - 3 + self.axis in dims and r.ndim in (4, 5):
            raise AveragedError


def _without_zeros(module: nn.Module) -> nn.Module:
    """Parameters that begin at zero, such as the gain of a block that begins as the identity, begin with something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.1)
    return module
