"""The patch of a run, checked against its network and its options before anything is computed.

1. the rule that the network states: multiples, least sides, channels of the image      models/patch_rules.py
2. the turned copies of an augmentation: sides that are exchanged must be equal         augmentation.py
3. for a network of somebody's own that states no rule: one pass of shapes through it, without weights and voxels
"""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Vec
from pipeline.inference.augmentation import may_be_turned, sources_of, variants
from pipeline.inference.options import PredictOptions
from pipeline.models.facts import on_meta
from pipeline.models.heads import chosen_heads
from pipeline.models.patch_rules import PatchRule, states_rule
from pipeline.models.spec import LoadedModel, ModelCard

WHAT = "inference.patch_shape"


def check_patch(loaded: LoadedModel, patch_shape: Vec, options: PredictOptions) -> None:
    """Raise ``ConfigError`` or ``ModelError`` unless one forward pass of this patch (z, y, x) would work."""
    card = loaded.card
    name = f"{card.architecture} (model {card.name})"
    turns = variants(options.augmentation)
    if states_rule(loaded.module):
        rule = PatchRule.of(loaded.module)
        rule.check(patch_shape, WHAT, name, card.image_channels, also=lambda other: may_be_turned(other, turns))
    sources_of(turns, chosen_heads(card, options.heads), patch_shape)
    if not states_rule(loaded.module):
        check_shapes(card, patch_shape)


def check_shapes(card: ModelCard, patch_shape: Vec) -> None:
    """Raise an error unless the network's output has the shape that the card promises."""
    found = shape_of_output(on_meta(card.architecture, card.arguments), patch_shape, card)
    expected = (card.channels, *patch_shape)
    if found != expected:
        raise ModelError(
            f"{WHAT} is {list(patch_shape)}; model {card.name} would turn it into {list(found)} (channels, z, y, x), "
            f"and its card promises {list(expected)}: correct the card, or take its patch {list(card.patch_shape)}"
        )


def shape_of_output(network: torch.nn.Module, patch_shape: Vec, card: ModelCard) -> tuple[int, ...]:
    """The shape (c, z, y, x) of a network's output, from shapes alone; the network is on the meta device."""
    try:
        with torch.no_grad():
            return tuple(network(torch.empty((1, card.image_channels, *patch_shape), device="meta")).shape[1:])
    except (RuntimeError, ValueError, IndexError, ModelError) as error:
        raise ConfigError(
            f"{WHAT} is {list(patch_shape)}; the network of model {card.name} refuses it ({error}): take a patch that "
            f"fits, like the card's {list(card.patch_shape)}"
        ) from None
