"""Changes of the axes of a patch: space becomes channels by a stride, and sections become a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.cells.blocks import as_kernel


def as_vec(values: Sequence[int]) -> Triple:
    """Three integers; cards hold lists."""
    return as_kernel(values, 3)  # type: ignore[return-value]


def total_stride(vectors: Sequence[Triple], start: Triple = (1, 1, 1)) -> Triple:
    """The product of strides and pools, axis by axis."""
    result = start
    for z, y, x in vectors:
        result = result[0] * z, result[1] * y, result[2] * x
    return result


def check_multiple(patch: Triple, multiple: Triple) -> None:
    """Refuse a patch that the levels cannot halve."""
    if any(n % m for n, m in zip(patch, multiple, strict=True)):
        raise ModelError(f"the patch is {patch}; each side must be a multiple of {multiple}, since the levels halve it")


def space_to_channels(r: Tensor, stride: Triple) -> Tensor:
    """(b, c, z sz, y sy, x sx) -> (b, c sz sy sx, z, y, x)."""
    b, c, z, y, x = r.shape
    sz, sy, sx = stride
    r = r.reshape(b, c, z // sz, sz, y // sy, sy, x // sx, sx).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return r.reshape(b, c * sz * sy * sx, z // sz, y // sy, x // sx)


def channels_to_space(r: Tensor, stride: Triple) -> Tensor:
    """(b, c sz sy sx, z, y, x) -> (b, c, z sz, y sy, x sx): the inverse of ``space_to_channels``."""
    b, c, z, y, x = r.shape
    sz, sy, sx = stride
    r = r.reshape(b, c // (sz * sy * sx), sz, sy, sx, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return r.reshape(b, c // (sz * sy * sx), z * sz, y * sy, x * sx)


def sections_apart(r: Tensor) -> Tensor:
    """(b, c, z, y, x) -> (b z, c, 1, y, x): sections that are computed independently."""
    b, c, z, y, x = r.shape
    return r.transpose(1, 2).reshape(b * z, c, 1, y, x)


def sections_together(r: Tensor, z: int) -> Tensor:
    """(b z, c, 1, y, x) -> (b, c, z, y, x): the inverse of ``sections_apart``."""
    bz, c, _, y, x = r.shape
    return r.reshape(bz // z, z, c, y, x).transpose(1, 2)


def as_dimension(image: Tensor, dimension: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """An image for a network of this dimension, and the function that gives its output the image's shape.

    The sections of a volume (b, i, z, y, x) become images (b z, i, y, x) of a batch.
    """
    if image.ndim == dimension + 2:
        return image, lambda output: output
    if dimension != 2 or image.ndim != 5:
        raise ModelError(
            f"the image has shape {tuple(image.shape)}; a network in {dimension}D takes {dimension + 2} axes, "
            "batch, channels and those of space: add or take away axes"
        )
    sections = image.shape[2]
    return sections_apart(image)[:, :, 0], lambda output: sections_together(output[:, :, None], sections)
