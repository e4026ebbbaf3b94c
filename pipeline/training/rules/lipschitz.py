"""Penalties on the Jacobian J of the last step, so that it is a contraction and the series of C-RBP converges.

``column_penalty``: the published one, equation 6 of Linsley et al. 2020 (NeurIPS), || (1 J - lambda)+ ||, with 1 J the
sums of the columns of J: one product with a vector of ones. It bounds the spectral radius only if no element of J is
negative: J = -10 I has penalty 0 and radius 10.

``spectral_penalty``: sound. The largest singular value is never below the spectral radius, whatever the signs.

``frobenius_penalty``: an unbiased estimate of a bound above both, ||J||_F^2, for the price of one product.

All are differentiated once more by the loss, so the cell must be smooth: softplus, not ReLU. Add them to the loss with
the weight that their paper or your validation says: 10 for means (Pathfinder), 1e-3 for sums (panoptic segmentation).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.training.rule_specs import ColumnPenalty, FrobeniusPenalty, Penalty, SpectralPenalty
from pipeline.training.rules.base import Trajectory
from pipeline.training.rules.implicit import Vector

Reduction = Literal["mean", "sum", "norm"]

LIMIT = Penalty().limit
"""lambda of the papers."""
COLUMN, ITERATIONS, SAMPLES = ColumnPenalty(), SpectralPenalty().iterations, FrobeniusPenalty().samples


def column_penalty(
    path: Trajectory,
    limit: float = LIMIT,
    reduction: Reduction = COLUMN.reduction,
    each: bool = COLUMN.each,
    both_signs: bool = COLUMN.both_signs,
) -> Tensor:
    """The published penalty on the sums of the columns of J: a scalar.

    reduction: ``norm``, as in equation 6; ``mean`` or ``sum`` of the squares, as in the two published codes.
    each: sums within each tensor of the state, as published for a ConvLSTM, not over the whole state.
    both_signs: the same once more for -J, an option of the published code; sums of mixed signs still cancel.
    """
    if reduction not in ("mean", "sum", "norm"):
        raise ConfigError(f"reduction is {reduction!r}; it must be 'mean', 'sum' or 'norm'")
    columns = torch.cat([part.flatten() for part in column_sums(path, each)])
    excess = torch.relu(columns - limit).square()
    if both_signs:
        excess = excess + torch.relu(-columns - limit).square()
    if reduction == "norm":
        total = excess.sum()
        return torch.where(total > 0, total, 1.0).sqrt() * (total > 0)  # no infinite slope at 0
    return excess.mean() if reduction == "mean" else excess.sum()


def column_sums(path: Trajectory, each: bool = COLUMN.each) -> Vector:
    """1 J, in the shape of the state."""
    if not each:
        return transposed(path, tuple(torch.ones_like(part) for part in path.last))
    sums = []
    for k in range(len(path.last)):
        ones = tuple(torch.full_like(part, float(i == k)) for i, part in enumerate(path.last))
        sums.append(transposed(path, ones)[k])
    return tuple(sums)


def spectral_penalty(path: Trajectory, limit: float = LIMIT, iterations: int = ITERATIONS, seed: int = 0) -> Tensor:
    """(sigma - limit)+ squared, sigma the largest singular value of J: a scalar.

    sigma comes from power iteration on J J^T, from below; its gradient is exact for the vector that was found. J is
    that of the whole batch, whose patches do not meet in it unless a norm mixes them.
    """
    return torch.relu(spectral_norm(path, iterations, seed) - limit).square()


def spectral_norm(path: Trajectory, iterations: int = ITERATIONS, seed: int = 0) -> Tensor:
    """The largest singular value of J: a scalar that can be differentiated."""
    w = unit(signs(path.last, seed))
    probe = tuple(torch.zeros_like(part, requires_grad=True) for part in path.last)
    linear = transposed(path, probe)  # J^T probe, as a function of the probe: differentiating it gives J
    reached = [k for k, part in enumerate(linear) if part.requires_grad]
    for _ in range(iterations if reached else 0):
        v = transposed(path, w, create_graph=False)
        inputs = [linear[k] for k in reached]
        product = torch.autograd.grad(inputs, probe, [v[k] for k in reached], retain_graph=True, allow_unused=True)
        forward = tuple(torch.zeros_like(p) if q is None else q for p, q in zip(probe, product, strict=True))  # J J^T w
        if float(length(forward)) == 0:
            break
        w = unit(forward)
    return length(transposed(path, w))


def frobenius_penalty(path: Trajectory, limit: float = LIMIT, samples: int = SAMPLES, seed: int = 0) -> Tensor:
    """(||J||_F^2 - limit^2)+ over the number of voxels and channels, by Hutchinson's estimate: a scalar."""
    count = sum(part.numel() for part in path.last)
    return torch.relu(frobenius_norm_squared(path, samples, seed) - limit**2) / count


def frobenius_norm_squared(path: Trajectory, samples: int = SAMPLES, seed: int = 0) -> Tensor:
    """An unbiased estimate of ||J||_F^2, from random signs: a scalar that can be differentiated."""
    found = [length(transposed(path, signs(path.last, seed + k))).square() for k in range(samples)]
    return torch.stack(found).mean()


def transposed(path: Trajectory, v: Vector, create_graph: bool = True) -> Vector:
    """J^T v, or v J, in the shape of the state."""
    found = torch.autograd.grad(
        path.last, path.previous, v, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return tuple(torch.zeros_like(p) if t is None else t for t, p in zip(found, path.previous, strict=True))


def signs(like: Vector, seed: int) -> Vector:
    """Random +1 and -1; the same for the same seed, on any device."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (torch.randint(0, 2, part.shape, generator=generator) * 2 - 1).to(part.device, part.dtype) for part in like
    )


def length(v: Vector) -> Tensor:
    """The Euclidean norm over all tensors."""
    return torch.stack([part.square().sum() for part in v]).sum().sqrt()


def unit(v: Vector) -> Vector:
    """v over its norm, without history."""
    size = length(v)
    return tuple((part / size).detach() for part in v)
