"""Test-time augmentation that handles the directions of heads, above all the offsets of affinities.

A variant turns the image by exchanging axes and reversing some of them. The affinities of the turned image are turned
back in three steps; common code does only the first and is wrong for about four edges in ten:

1. reverse and exchange the axes back                        -> Variant.restore
2. exchange channels: the offset of each has been turned too -> Variant.sources
3. re-anchor: where a turned offset points the other way, the edge {v, v - o} that belongs to voxel v is found at v - o,
   so the channel moves by one offset and the border plane that has no partner has no value

A voxel's affinity is the mean over the variants that have a value for it, summed in the order of ``variants``.

Shape descriptors exchange their components as the axes are exchanged; where an axis is reversed, mean offsets along it
and correlations with it change sign about 0.5, so v becomes 1 - v. Heads without directions only take the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from itertools import product as cartesian

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.geometry import ZERO, Triple, Vec, as_vec
from pipeline.inference.options import AUGMENTATIONS
from pipeline.models.heads import HIGH_AT_BORDERS, LOW_AT_BORDERS, WITH_EXTREMES, Head

DESCRIPTORS_3D = 10
"""Channels of shape descriptors in volumes; those of sections have 6."""

_AXES: dict[str, list[Triple]] = {
    "none": [(0, 1, 2)],
    "flips": [(0, 1, 2)],
    "flips+transpose": [(0, 1, 2), (0, 2, 1)],
    "flips+permutations": [(a, b, c) for a, b, c in permutations((0, 1, 2))],
}


@dataclass(frozen=True)
class Variant:
    """One way to turn an image: exchange its axes, then reverse some."""

    axes: Triple
    """Axis a of the turned image is axis ``axes[a]`` of the image."""
    reverse: tuple[bool, bool, bool]
    """Whether axis a of the turned image runs backwards."""

    def turn(self, image: Tensor) -> Tensor:
        """The turned image; both (..., z, y, x), a view where torch allows it."""
        lead = image.dim() - 3
        turned = image.permute(*range(lead), *(lead + a for a in self.axes))
        return turned.flip(self._reversed(lead)) if any(self.reverse) else turned

    def restore(self, turned: Tensor) -> Tensor:
        """The inverse of ``turn`` for the positions of voxels; both (..., z, y, x)."""
        lead = turned.dim() - 3
        straight = turned.flip(self._reversed(lead)) if any(self.reverse) else turned
        return straight.permute(*range(lead), *(lead + self.axes.index(a) for a in range(3)))

    def restore_offset(self, offset: Sequence[int]) -> Vec:
        """An offset of the turned image as an offset of the image."""
        back = [0, 0, 0]
        for a, axis in enumerate(self.axes):
            back[axis] = -offset[a] if self.reverse[a] else offset[a]
        return Vec(*back)

    def sources(self, offsets: Sequence[Sequence[int]], channels: int) -> list[Source]:
        """For each of the first ``channels`` offsets, the channel and shift by which the turned affinities hold it.

        Raises ``ConfigError`` if some offset, turned, is no offset of the list in either direction.
        """
        turned = [self.restore_offset(offset) for offset in offsets]
        return [self._source(turned, as_vec(offsets[j], "offset")) for j in range(channels)]

    def _source(self, turned: list[Vec], wanted: Vec) -> Source:
        for channel, offset in enumerate(turned):
            if offset == wanted:
                return Source(channel, ZERO)
            if offset == -wanted:
                return Source(channel, wanted)
        raise ConfigError(
            f"offset {list(wanted)} has no counterpart among the network's offsets when axes are exchanged as "
            f"{list(self.axes)} and reversed as {list(self.reverse)}; predict only the nearest neighbours "
            "(channels: 3) or choose augmentation: none"
        )

    def _reversed(self, lead: int) -> list[int]:
        return [lead + a for a in range(3) if self.reverse[a]]


@dataclass(frozen=True)
class Source:
    """A channel of turned values and the shift that re-anchors it: value(v) = restored[channel](v + shift)."""

    channel: int
    shift: Vec
    mirrored: bool = False
    """Whether the value is 1 minus that of the channel, since it is a direction that was reversed."""

    def slices(self, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Indices (to, from) into (z, y, x) of the voxels that have a value."""
        stop = as_vec(shape, "shape")
        low = (-self.shift).maximum(0).minimum(stop)
        high = (stop - self.shift).minimum(stop).maximum(low)
        return tuple(map(slice, low, high)), tuple(map(slice, low + self.shift, high + self.shift))


UPRIGHT = Variant((0, 1, 2), (False, False, False))
"""The image itself."""


def variants(name: str) -> list[Variant]:
    """The variants of a named augmentation, the image itself first; ``ConfigError`` for an unknown name."""
    if name not in AUGMENTATIONS:
        raise ConfigError(f"augmentation is {name!r}; it must be one of {', '.join(AUGMENTATIONS)}")
    flips = [(False, False, False)] if name == "none" else list(cartesian((False, True), repeat=3))
    return [Variant(axes, (z, y, x)) for axes in _AXES[name] for z, y, x in flips]


def channels_used(sources: Sequence[Sequence[Source]]) -> int:
    """The number of the network's first channels from which all variants take their values."""
    return 1 + max(source.channel for each in sources for source in each)


def may_be_turned(patch_shape: Triple, turns: Sequence[Variant]) -> bool:
    """True if no variant exchanges sides of unequal length."""
    return all(tuple(patch_shape[a] for a in turn.axes) == tuple(patch_shape) for turn in turns)


def head_sources(variant: Variant, head: Head) -> list[Source]:
    """For each stored channel of a head, its source among the values of this head.

    Raises ``ConfigError`` if the variant asks for an affinity that there is not, or if it is not known how the head's
    channels turn.
    """
    if head.offsets:
        return variant.sources(head.offsets, head.stored_channels)
    if variant != UPRIGHT and not head.turns:
        raise ConfigError(
            f"it is not known how the {head.channels} channels of head {head.name} change when the image is turned; "
            "choose augmentation: none, or leave the head out of inference.heads"
        )
    if head.name == "shape_descriptors":
        return _descriptor_sources(variant, 3 if head.channels == DESCRIPTORS_3D else 2)
    return [Source(channel, ZERO) for channel in range(head.stored_channels)]


def _descriptor_sources(variant: Variant, ndim: int) -> list[Source]:
    """The sources of mean offsets, variances, correlations and size, in this order, over z, y, x or y, x.

    Raises ``ConfigError`` if the variant exchanges z with another axis and the descriptors are of sections.
    """
    first = 3 - ndim
    if variant.axes[:first] != (0, 1, 2)[:first]:
        raise ConfigError(
            "shape descriptors of sections have no direction along z, and the augmentation exchanges z, y, x as "
            f"{list(variant.axes)}: choose augmentation: flips+transpose, flips or none"
        )
    turned = [variant.axes.index(axis) - first for axis in range(first, 3)]  # where each axis of the image went
    back = [variant.reverse[axis + first] for axis in turned]
    pairs = list(combinations(range(ndim), 2))
    means = [Source(turned[i], ZERO, back[i]) for i in range(ndim)]
    variances = [Source(ndim + turned[i], ZERO) for i in range(ndim)]
    correlations = [
        Source(2 * ndim + pairs.index(_ordered(turned[i], turned[j])), ZERO, back[i] != back[j]) for i, j in pairs
    ]
    return [*means, *variances, *correlations, Source(2 * ndim + len(pairs), ZERO)]


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def values_used(turns: Sequence[Variant], head: Head) -> int:
    """The number of a head's first values from which all variants take theirs."""
    return channels_used([head_sources(variant, head) for variant in turns]) if head.offsets else head.stored_channels


def channels_needed(turns: Sequence[Variant], heads: Sequence[Head]) -> int:
    """The number of the network's first channels from which the heads are made."""
    return max(head.first + (values_used(turns, head) if head.offsets else head.channels) for head in heads)


def sources_of(turns: Sequence[Variant], heads: Sequence[Head], patch_shape: Triple) -> list[list[Source]]:
    """For each variant, the sources of all stored channels among the values of all heads.

    Raises ``ConfigError`` if a variant exchanges sides of unequal length, and as ``head_sources`` does.
    """
    for variant in turns:
        if not may_be_turned(patch_shape, [variant]):
            raise ConfigError(
                f"the augmentation exchanges the axes z, y, x as {list(variant.axes)}, and the patch is "
                f"{list(patch_shape)}; these sides must be equal: make them so, or choose augmentation: flips"
            )
    return [_one_after_the_other(variant, turns, heads) for variant in turns]


def _one_after_the_other(variant: Variant, turns: Sequence[Variant], heads: Sequence[Head]) -> list[Source]:
    found, before = [], 0
    for head in heads:
        found += [replace(each, channel=before + each.channel) for each in head_sources(variant, head)]
        before += values_used(turns, head)
    return found


START = {"sum": 0.0, "least": float("inf"), "largest": float("-inf")}
"""Combination -> what the first variant is combined with."""
CHOOSE = {"least": torch.minimum, "largest": torch.maximum}


class Augmentation:
    """The variants of one network on one patch shape, ready to be combined.

    rule: ``mean``; or ``min``, the value of the variant that sees a border, for heads that are low or high there; or
    ``mean+extremes``, the mean of all channels, then the least value of each, then the largest.
    """

    def __init__(self, name: str, heads: Sequence[Head], patch_shape: Vec, rule: str = "mean") -> None:
        self.variants = variants(name)
        sources = sources_of(self.variants, heads, patch_shape)
        rules = [combination(head, rule) for head in heads for _ in range(head.stored_channels)]
        if rule == WITH_EXTREMES:
            sources = [each * 3 for each in sources]
            rules += ["least"] * len(rules) + ["largest"] * len(rules)
        self.sources, self._rules = sources, rules
        self.values = tuple(values_used(self.variants, head) for head in heads)
        self.shape = (len(self.sources[0]), *patch_shape)
        self._counts = self._count() if len(self.variants) > 1 else None

    def empty(self, device: torch.device) -> Tensor:
        """What the first variant is added to, (channels, z, y, x)."""
        total = torch.zeros(self.shape, device=device)
        for out, rule in zip(total, self._rules, strict=True):
            out.fill_(START[rule])
        return total

    def add(self, total: Tensor, values: Tensor, which: int) -> None:
        """Turn one variant's values back and combine them with the total, where they have a value.

        ``values``: (sum of ``self.values``, z, y, x) of the turned image; ``total``: (channels, z, y, x), both float32.
        """
        for out, source, rule in zip(total, self.sources[which], self._rules, strict=True):
            to, origin = source.slices(out.shape)
            restored = self.variants[which].restore(values[source.channel])[origin]
            value = 1 - restored if source.mirrored else restored
            if rule == "sum":
                out[to] += value
            else:
                out[to] = CHOOSE[rule](out[to], value)

    def result(self, total: Tensor) -> Tensor:
        """The mean over the variants that had a value, or the value that was chosen, (channels, z, y, x)."""
        if self._counts is None:
            return total
        return total / self._counts.to(total.device)

    def _count(self) -> Tensor:
        """By what the totals are divided: the variants that have a value; 1 where one of them is chosen."""
        counts = torch.zeros(self.shape)
        for sources in self.sources:
            for out, source in zip(counts, sources, strict=True):
                out[source.slices(out.shape)[0]] += 1
        for out, rule in zip(counts, self._rules, strict=True):
            if rule != "sum":
                out.fill_(1)
        return counts


def combination(head: Head, rule: str) -> str:
    """How the variants of a head are combined: ``sum``, ``least`` or ``largest``."""
    if rule == "min" and head.name in LOW_AT_BORDERS:
        return "least"
    return "largest" if rule == "min" and head.name in HIGH_AT_BORDERS else "sum"
