"""The rules by which gradients of a recurrence are computed, as a training file gives them.

    rule: {kind: truncated, window: 4}
    rule: {kind: rbp, terms: 15, penalty: {kind: column, weight: 10}}
    rule: {kind: bptt, earlier_steps: 0.5}

A new rule is a file of ``pipeline/training/rules`` with a ``Rule`` and its ``RuleSettings``, and a row in ``RULES``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline.config.base import Amount, Count, Positive, Share, Table
from pipeline.config.registered import OneOf
from pipeline.registry import find, load

if TYPE_CHECKING:
    from pipeline.training.rules.base import Rule

RULES = {
    "bptt": "pipeline.training.rules.backpropagation:Bptt",
    "truncated": "pipeline.training.rules.backpropagation:Truncated",
    "checkpointed": "pipeline.training.rules.backpropagation:Checkpointed",
    "rbp": "pipeline.training.rules.implicit:Recurrent",
}
"""``kind`` of a rule -> "module:class" of its ``RuleSettings``."""


class Penalty(Table):
    """A loss on the Jacobian J of the last step, which makes the step a contraction."""

    weight: Positive = 10.0
    """The penalty is multiplied by this: 10 in the Pathfinder experiments of C-RBP, 1e-3 for sums in panoptic ones."""
    limit: Amount = 0.9
    """Values below this limit (lambda) have no penalty."""


class ColumnPenalty(Penalty):
    """The published penalty, on the sums of J's columns; it bounds the radius only if J has no negative element."""

    kind: Literal["column"] = "column"
    reduction: Literal["mean", "sum", "norm"] = "mean"
    """Reduction of the squares over the state: norm as in equation 6, mean and sum as in the two published codes."""
    each: bool = False
    """Take sums within each tensor of the state, as published for the ConvLSTM, not over all tensors."""
    both_signs: bool = False
    """Add the same penalty for -J."""


class SpectralPenalty(Penalty):
    """A penalty on the largest singular value of J, which bounds the radius whatever the signs."""

    kind: Literal["spectral"] = "spectral"
    iterations: Count = 10
    """Steps of the power iteration; each costs two products with J."""


class FrobeniusPenalty(Penalty):
    """A penalty on an estimate of the Frobenius norm of J, which bounds both others; it costs one product."""

    kind: Literal["frobenius"] = "frobenius"
    samples: Count = 1
    """Random vectors of the estimate."""


AnyPenalty = Annotated[ColumnPenalty | SpectralPenalty | FrobeniusPenalty, Field(discriminator="kind")]


class RuleSettings(Table):
    """What all rules have; a rule adds its own."""

    kind: str
    penalty: AnyPenalty | None = None
    """Penalty on the Jacobian of the last step; with kind: bptt this is the papers' C-BPTT, with rbp C-RBP."""

    def rule(self) -> Rule:
        """The rule with these settings."""
        raise NotImplementedError


class Unrolled(RuleSettings):
    """Settings of rules that give gradients to the readout of every step."""

    earlier_steps: Share = 0.0
    """The readout of step t has a loss too, weighted by this to the power T - t; with 0 only the last step has one."""


AnyRule = Annotated[RuleSettings, OneOf(RULES, "kind")]


def rule_named(kind: str, **settings: Any) -> Rule:
    """A rule by name; ``ConfigError`` if there is none of this name, ``ValueError`` for settings that it has not."""
    rule: Rule = load(find(RULES, kind, "the rule is"))(kind=kind, **settings).rule()
    return rule
