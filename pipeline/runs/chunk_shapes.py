"""Chunk shapes in which few patches are computed twice: proposed by `petaseg init`, advised by `petaseg plan`."""

from __future__ import annotations

from pipeline.geometry import Vec


def least_waste(chunk_shape: Vec, stride: Vec) -> Vec:
    """The chunk shape near this one whose sides are multiples of the lattice's stride: neighbouring chunks then share
    the fewest patches.
    """
    return Vec(*(max(1, round(side / step)) * step for side, step in zip(chunk_shape, stride, strict=True)))


def storage_for(chunk_shape: Vec, near: Vec) -> Vec:
    """The shape of stored objects near another one of which this chunk shape is a multiple."""
    return Vec(*(_divisor(side, wanted) for side, wanted in zip(chunk_shape, near, strict=True)))


def _divisor(side: int, wanted: int) -> int:
    """The divisor of a side that is nearest to a number, by their ratio; of two equally near ones the larger."""
    divisors = (d for d in range(side, 0, -1) if side % d == 0)
    return min(divisors, key=lambda d: max(d, wanted) / min(d, wanted))
