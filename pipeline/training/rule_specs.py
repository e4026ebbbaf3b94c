"""How gradients of a recurrence are computed, as a training file says it.

    rule: {kind: truncated, window: 4}
    rule: {kind: rbp, terms: 15, penalty: {kind: column, weight: 10}}
    rule: {kind: bptt, earlier_steps: 0.5}

``pipeline.training.learning`` builds the rules of ``pipeline.training.rules`` from these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Amount, Count, CountOrZero, Positive, Share, Table


class Penalty(Table):
    """A loss on the Jacobian J of the last step, which makes the step a contraction."""

    weight: Positive = 10.0
    """The penalty is multiplied by this: 10 in the Pathfinder experiments of C-RBP, 1e-3 for sums in panoptic ones."""
    limit: Amount = 0.9
    """What lies below costs nothing (lambda)."""


class ColumnPenalty(Penalty):
    """The published one, on the sums of the columns of J; it bounds the radius only if J has no negative element."""

    kind: Literal["column"] = "column"
    reduction: Literal["mean", "sum", "norm"] = "mean"
    """Of the squares over the state; norm as in equation 6, mean and sum as in the two published codes."""
    each: bool = False
    """Sums within each tensor of the state, as published for the ConvLSTM, not over all."""
    both_signs: bool = False
    """The same once more for -J."""


class SpectralPenalty(Penalty):
    """On the largest singular value of J: sound, whatever the signs."""

    kind: Literal["spectral"] = "spectral"
    iterations: Count = 10
    """Of the power iteration; each costs two products with J."""


class FrobeniusPenalty(Penalty):
    """On an estimate of the Frobenius norm of J, which bounds both others: sound, and one product."""

    kind: Literal["frobenius"] = "frobenius"
    samples: Count = 1
    """Random vectors of the estimate."""


AnyPenalty = Annotated[ColumnPenalty | SpectralPenalty | FrobeniusPenalty, Field(discriminator="kind")]


class RuleSettings(Table):
    """What all rules have."""

    penalty: AnyPenalty | None = None
    """On the Jacobian of the last step; with kind: bptt this is the papers' C-BPTT, with rbp C-RBP."""


class Unrolled(RuleSettings):
    """Rules that have a gradient for every step's readout."""

    earlier_steps: Share = 0.0
    """The readout of step t is asked too, and weighs this to the power T - t; 0 asks the last step alone."""


class Bptt(Unrolled):
    """Back-propagation through all steps."""

    kind: Literal["bptt"] = "bptt"


class Truncated(Unrolled):
    """Back-propagation through the last steps; those before keep nothing."""

    kind: Literal["truncated"] = "truncated"
    window: Count = 4
    """How many steps gradients go back."""


class Checkpointed(Unrolled):
    """Back-propagation through all steps, each computed twice instead of kept."""

    kind: Literal["checkpointed"] = "checkpointed"


class Recurrent(RuleSettings):
    """Recurrent back-propagation (RBP; with a penalty C-RBP): the gradient of a steady state by a Neumann series."""

    kind: Literal["rbp"] = "rbp"
    terms: CountOrZero = 15
    """At most so many beside the gradient itself."""
    tolerance: Amount = 1e-6
    """A term of this size, relative to the gradient, ends the series."""
    divergence: Positive = 10.0
    """So does one of that size; then the partial sum of least residual is used."""
    reference_stopping: bool = False
    """Stop as the published code does, by absolute norms: for comparison only, it usually gives one step's gradient."""
    over: Annotated[tuple[CountOrZero, ...], Field(min_length=1)] | None = None
    """Numbers of the state's tensors that the series runs over; all if left out. The published ConvLSTM: [0], its h."""


AnyRule = Annotated[Bptt | Truncated | Checkpointed | Recurrent, Field(discriminator="kind")]
