"""The heads of its model that a run stores, chosen and checked before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.run_file import Inference, RunConfig
from pipeline.errors import ConfigError
from pipeline.models.heads import Head, Source, chosen_heads, described, heads_of, source_of
from pipeline.runs.chain import STAGES

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard

TAKEN = frozenset(volume.name for kind in STAGES for volume in kind.volumes)
"""Names of the volumes that other stages write."""


def heads_of_run(config: RunConfig, card: ModelCard) -> tuple[Head, ...]:
    """The heads that are stored: those of the run file, or what the segmentation needs.

    Raises ``ConfigError`` for a head that the model lacks or that cannot be stored, and if no neurons can be made.
    """
    wanted, named = config.supervoxels.source, config.inference.heads
    heads = chosen_heads(card, (needed_head(wanted, card),) if named is None else named)
    source_of(wanted, [head.name for head in heads if head.makes_neurons])
    for head in heads:
        if head.name in TAKEN:
            raise ConfigError(
                f"head {head.name} of model {card.name} is called like a volume that another stage writes; give it "
                "another name in other_channels of its card"
            )
        _refuse_unknown_turns(config.inference, head)
    return heads


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
