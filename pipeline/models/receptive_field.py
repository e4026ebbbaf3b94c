"""The receptive field of a network, measured: the support of the gradient of its middle output voxel."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.geometry import Triple, as_vec
from pipeline.models.patch_rules import PatchRule

Field = tuple[int | None, int | None, int | None]
"""Voxels along z, y, x; None where a voxel depends on its whole patch."""

LONGEST = 32
"""The longest line on which the receptive field is measured, in units of ``multiple``; 64 voxels if that is more."""


def receptive_field(module: nn.Module, multiple: Triple, sections_apart: bool = False) -> Field:
    """Voxels along z, y, x that the middle voxel of the output depends on.

    Each axis is measured by itself: the gradient of the middle of the output is computed on a line of voxels along the
    axis, as thin as the network allows (``multiple``), and the line is made longer until the gradient is zero at both
    ends. A network that averages along an axis, as an instance norm does, sees the whole patch. It is computed in
    float64, since far from the middle gradients are products of many small numbers. ``Passing`` and ``_without_zeros``
    prevent gradients that are zero by chance. A network that makes a batch of the sections (``sections_apart``) sees
    one of them.
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
    """The places along the axis where the image has an effect on the middle of the output; ``AveragedError`` if all."""
    size, numbers = PatchRule.of(module).image_shape(as_vec(shape)), torch.Generator().manual_seed(0)
    image = torch.rand(size, generator=numbers, dtype=torch.float64).requires_grad_()
    z, y, x = (side // 2 for side in shape)
    with Passing(axis):
        (gradient,) = torch.autograd.grad(module(image)[0, :, z, y, x].sum(), image)
    others = tuple(a for a in range(3) if a != axis)
    return torch.nonzero(gradient[0].abs().amax(0).amax(others))[:, 0].tolist()


class AveragedError(Exception):
    """A layer averages along the axis, so that each voxel depends on all."""


class Passing(TorchFunctionMode):
    """A context in which max pools are means, rectifiers are the identity, and sigmoids never saturate.

    As soon as a layer takes a mean or a softmax along the axis (0, 1, 2 for z, y, x), it raises ``AveragedError``,
    since the rest of the network need not run.
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
        """Check the axes ``over`` which a tensor (b, c, z, y, x) or (b z, c, y, x) is averaged."""
        dims = {d % r.ndim for d in ((over,) if isinstance(over, int) else over)} or set(range(r.ndim))
        if r.ndim - 3 + self.axis in dims and r.ndim in (4, 5):
            raise AveragedError


def _without_zeros(module: nn.Module) -> nn.Module:
    """Give values to parameters that begin at zero, such as the gain of a block that begins as the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.1)
    return module
