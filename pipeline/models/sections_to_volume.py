"""Two networks in a row for thick sections: the first sees each section by itself, the second the stack of its maps.

    image -> sections -> sigmoid -> maps -> volume -> logits of affinities
             in 2D                 (b, 7, z, y, x)    in 3D

The first is trained on a few painted sections of the tissue at hand, the second on made-up labels alone
(``pipeline/training/made_stacks.py``). Together they are a pure function of a patch, like any other network. The maps
are those of ``pipeline/training/section_maps.py``.

Shapes: b = batch; z, y, x are those of the patch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.patch_rules import PatchRule, states_rule
from pipeline.models.spec import build

FLAT, CUBE, PLANE = (1, 3, 3), (3, 3, 3), (1, 2, 2)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "sections": "plain_unet",
        "sections_arguments": {"kernels": (FLAT,) * 4, "pools": (PLANE,) * 3, "stride": PLANE, "out_channels": 7},
        "volume": "plain_unet",
        "volume_arguments": {
            "in_channels": 7,
            "widths": (32, 64, 64),
            "kernels": (FLAT, CUBE, CUBE),
            "pools": (PLANE, PLANE),
            "stride": PLANE,
        },
    },
}
"""Arguments of named sizes: the networks that ``petaseg train --sections`` puts in a row."""


class SectionsToVolume(nn.Module):
    """The network; its arguments stand in a model card.

    sections, volume: architectures of the first and the second network, with the arguments of each.
    in_channels, out_channels: of the image, and affinities.
    """

    def __init__(
        self,
        sections: str,
        sections_arguments: Mapping[str, Any],
        volume: str,
        volume_arguments: Mapping[str, Any],
        in_channels: int = 1,
        out_channels: int = 9,
    ) -> None:
        super().__init__()
        self.sections = build(sections, {**sections_arguments, "in_channels": in_channels})
        self.volume = build(volume, {**volume_arguments, "out_channels": out_channels})
        self.out_channels, self.image_channels = out_channels, in_channels
        check_halves(self.sections, self.volume)

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x: of what either network asks."""
        one, other = (PatchRule.of(half).multiple for half in (self.sections, self.volume))
        return math.lcm(one[0], other[0]), math.lcm(one[1], other[1]), math.lcm(one[2], other[2])

    @property
    def whole_in_bfloat16(self) -> bool:
        """True if with precision bfloat16 the weights of both may be bfloat16, too."""
        return all(getattr(half, "whole_in_bfloat16", False) for half in (self.sections, self.volume))

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, c, z, y, x) -> logits (b, k, z, y, x)."""
        logits: Tensor = self.volume(torch.sigmoid(self.sections(image)))
        return logits

    def narrowed(self, channels: int) -> SectionsToVolume:
        """A copy that computes only the first affinities; the same network if its second one computes all anyway."""
        narrowed: Callable[[int], nn.Module] | None = getattr(self.volume, "narrowed", None)
        if narrowed is None:
            return self
        result = copy.copy(self)
        result._modules = {**self._modules, "volume": narrowed(channels)}
        result.out_channels = channels
        return result


def check_halves(sections: nn.Module, volume: nn.Module) -> None:
    """``ModelError`` unless the second network reads as many maps as the first finds, and both state plain rules."""
    made, read = sections.out_channels, PatchRule.of(volume).image_channels
    if made != read:
        raise ModelError(
            f"the network of sections has {made} outputs and the one of the volume reads {read} maps; they must be as "
            "many: correct out_channels in sections_arguments, or in_channels in volume_arguments"
        )
    for half in (sections, volume):
        rule = PatchRule.of(half)
        if not states_rule(half) or rule.remainders != (0,) or rule.minimum != (1, 1, 1):
            raise ModelError(
                f"{type(half).__name__} takes {rule}; here a network must state a multiple of its patches and nothing "
                "else: choose plain_unet or residual_unet"
            )
