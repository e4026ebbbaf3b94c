"""The heads of its model that a run stores, chosen and checked before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.run_file import Inference
from pipeline.errors import ConfigError
from pipeline.models.heads import AFFINITIES, Head, chosen_heads, described, heads_of
from pipeline.runs.chain import STAGES

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard

TAKEN = frozenset(volume.name for kind in STAGES for volume in kind.volumes)
"""Names of the volumes that other stages write."""


def heads_of_run(config: Inference, card: ModelCard) -> tuple[Head, ...]:
    """The heads that are stored: those of the run file, or what the segmentation needs.

    Raises ``ConfigError`` for a head that the model lacks or that cannot be stored, and if the segmentation has none.
    """
    _refuse_without_affinities(card)
    heads = chosen_heads(card, (AFFINITIES,) if config.heads is None else config.heads)
    if AFFINITIES not in [head.name for head in heads]:
        raise ConfigError(
            f"inference.heads is {described(heads)}; the segmentation needs affinities: add them to inference.heads"
        )
    for head in heads:
        if head.name in TAKEN:
            raise ConfigError(
                f"head {head.name} of model {card.name} is called like a volume that another stage writes; give it "
                "another name in other_channels of its card"
            )
        _refuse_unknown_turns(config, head)
    return heads


def _refuse_without_affinities(card: ModelCard) -> None:
    if not card.offsets:
        raise ConfigError(
            f"model {card.name} predicts {described(heads_of(card))}; a run needs a model with affinities of the "
            "nearest neighbours: train one with such affinities among its targets, or give the run affinities that "
            "you have (input.affinities)"
        )


def _refuse_unknown_turns(config: Inference, head: Head) -> None:
    if config.augmentation != "none" and not head.turns:
        raise ConfigError(
            f"inference.augmentation is {config.augmentation}; it is not known how the {head.channels} channels of "
            f"head {head.name} change when the image is turned: choose none, or leave the head out of inference.heads"
        )
