"""The heads of its model that a run stores, chosen and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.config.run_file import Inference, RunConfig
from pipeline.errors import ConfigError
from pipeline.models.heads import (
    NEAREST,
    Head,
    Source,
    chosen_heads,
    described,
    heads_of,
    source_of,
    storable,
    volumes_of,
)
from pipeline.runs.chain import STAGES
from pipeline.stages.valued_head import needed_heads

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard

TAKEN = frozenset(volume.name for kind in STAGES for volume in kind.volumes)
"""Names of the volumes that other stages write."""


def heads_of_run(config: RunConfig, card: ModelCard) -> tuple[Head, ...]:
    """The heads that are stored: those of the run file, or what the segmentation needs.

    Raises ``ConfigError`` for a head that the model lacks or that cannot be stored, and if no neurons can be made.
    """
    named = config.inference.heads
    chosen = chosen_heads(card, _needed(config, card) if named is None else named)
    heads = tuple(replace(head, affinities=_affinities(config, card)) if head.offsets else head for head in chosen)
    _check_result(config, [head for head in heads if head.mapping])
    for head in heads:
        if head.name in TAKEN:
            raise ConfigError(
                f"head {head.name} of model {card.name} is called like a volume that another stage writes; give it "
                "another name in other_channels of its card"
            )
        _refuse_unknown_turns(config.inference, head)
    _refuse_two_of_a_name(config.inference, heads)
    return heads


def _affinities(config: RunConfig, card: ModelCard) -> int:
    """How many affinities are stored, from the first: up to the last that counts in agglomeration.

    Raises ``ConfigError`` if the model lacks one that should count.
    """
    far = config.agglomeration.far_offsets
    if missing := [list(each) for each in far if each not in card.offsets]:
        raise ConfigError(
            f"agglomeration.far_offsets names {missing}, and model {card.name} predicts affinities of "
            f"{[list(each) for each in card.offsets]}: choose from these"
        )
    return max([NEAREST, *(card.offsets.index(each) + 1 for each in far)])


def _needed(config: RunConfig, card: ModelCard) -> tuple[str, ...]:
    """The heads that the result is made of."""
    if config.segmentation.kind == "neurons":
        return (needed_head(config.supervoxels.source, card),)
    return needed_heads(config.segmentation, [head.name for head in storable(heads_of(card))])


def _check_result(config: RunConfig, stored: Sequence[Head]) -> None:
    """``ConfigError`` if the heads that are stored lack one that the result is made of."""
    names = [head.name for head in stored]
    if config.segmentation.kind == "neurons":
        source_of(config.supervoxels.source, [head.name for head in stored if head.makes_neurons])
        return
    if missing := [name for name in needed_heads(config.segmentation, names) if name not in names]:
        raise ConfigError(
            f"inference.heads is {described(stored)}, and the result is made of {', '.join(missing)} too: add that to "
            "inference.heads, or leave inference.heads out"
        )


def needed_head(wanted: Source, card: ModelCard) -> str:
    """The head of which a run makes neurons; ``ConfigError`` if the model has none."""
    usable = [head.name for head in heads_of(card) if head.makes_neurons]
    try:
        return source_of(wanted, usable)
    except ConfigError:
        what = "affinities of the nearest neighbours or of membranes" if wanted == "auto" else wanted
        raise ConfigError(
            f"model {card.name} predicts {described(heads_of(card))}; a run makes neurons of {what}: train a model "
            "with such a target, or give the run what you have (input.affinities, input.membranes)"
        ) from None


def _refuse_unknown_turns(config: Inference, head: Head) -> None:
    if config.augmentation != "none" and not head.turns:
        raise ConfigError(
            f"inference.augmentation is {config.augmentation}; it is not known how the {head.channels} channels of "
            f"head {head.name} change when the image is turned: choose none, or leave the head out of inference.heads"
        )


def _refuse_two_of_a_name(config: Inference, heads: Sequence[Head]) -> None:
    """``ConfigError`` if a head is called like the volume of another one's least or largest values."""
    names = [name for name, _ in volumes_of(heads, config.augmentation_rule)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"inference.augmentation_rule is {config.augmentation_rule}, which stores {twice[0]}.zarr for another head "
            "than that of this name: leave one of them out of inference.heads, or rename it in other_channels of its "
            "card"
        )
