"""The weighted sum of the losses of all targets of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.training.losses import full
from pipeline.training.target_specs import AnyTarget


@dataclass(frozen=True)
class LossParts:
    """A weighted sum of losses, and its parts."""

    total: Tensor
    """The sum, on which ``backward`` is called."""
    parts: dict[str, Tensor]
    """The losses before they were weighted, detached, by ``target/loss``; repeated names are numbered."""


def combined_loss(specs: Sequence[AnyTarget], logits: Tensor, targets: Tensor, weights: Tensor) -> LossParts:
    """The weighted sum of all losses of all targets.

    Args:
        specs: the targets, in the order of the network's channels.
        logits: (b, sum of ``channels``, ...).
        targets, weights: (b, sum of ``target_channels``, ...), from ``pipeline.training.target_specs.make_targets``.

    Raises:
        ConfigError: the network has another number of channels than the targets need.
    """
    sizes = [spec.channels for spec in specs]
    if logits.shape[1] != sum(sizes):
        raise ConfigError(f"the network has {logits.shape[1]} channels; the targets need {sizes}: {sum(sizes)} in all")
    given = [spec.target_channels for spec in specs]
    pieces = zip(logits.split(sizes, 1), targets.split(given, 1), weights.split(given, 1), strict=True)
    total = full(logits).new_zeros(())
    parts: dict[str, Tensor] = {}
    for spec, piece in zip(specs, pieces, strict=True):
        for loss in spec.losses:
            value = loss.of(*piece)
            total = total + loss.weight * value
            parts[_free(f"{spec.what}/{loss.kind}", parts)] = value.detach()
    return LossParts(total, parts)


def _free(name: str, taken: dict[str, Tensor]) -> str:
    """The name, with a number if it is taken."""
    number = 1 + sum(key == name or key.startswith(f"{name} ") for key in taken)
    return name if number == 1 else f"{name} {number}"
