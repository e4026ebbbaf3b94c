"""The rules by which gradients of a recurrence are computed, as a training file gives them.

    rule: {kind: truncated, window: 4}
    rule: {kind: rbp, terms: 15, penalty: {kind: column, weight: 10}}
    rule: {kind: bptt, earlier_steps: 0.5}

``pipeline.training.learning`` builds the rules of ``pipeline.training.rules`` from these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.run_file import Table

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Penalty(Table):
    """A loss on the Jacobian J of the last step, which makes the step a contraction."""

    weight: Positive = 10.0
    """The penalty is multiplied by this: 10 in the Pathfinder experiments of C-RBP, 1e-3 for sums in panoptic ones."""
    limit: Annotated[float, Field(ge=0)] = 0.9
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
    """The settings that all rules have."""

    penalty: AnyPenalty | None = None
    """Penalty on the Jacobian of the last step; with kind: bptt this is the papers' C-BPTT, with rbp C-RBP."""


class Unrolled(RuleSettings):
    """Settings of rules that give gradients to the readout of every step."""

    earlier_steps: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The readout of step t has a loss too, weighted by this to the power T - t; with 0 only the last step has one."""


class Bptt(Unrolled):
    """Back-propagation through all steps."""

    kind: Literal["bptt"] = "bptt"


class Truncated(Unrolled):
    """Back-propagation through the last steps; nothing is kept of the steps before."""

    kind: Literal["truncated"] = "truncated"
    window: Count = 4
    """The number of steps through which gradients go back."""


class Checkpointed(Unrolled):
    """Back-propagation through all steps, each computed twice instead of kept."""

    kind: Literal["checkpointed"] = "checkpointed"


class Recurrent(RuleSettings):
    """Recurrent back-propagation (RBP; with a penalty C-RBP): the gradient of a steady state by a Neumann series."""

    kind: Literal["rbp"] = "rbp"
    terms: Annotated[int, Field(ge=0)] = 15
    """The most terms of the series beside the gradient itself."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-6
    """A term of this size, relative to the gradient, ends the series."""
    divergence: Positive = 10.0
    """A term of this size ends the series too; then the partial sum of least residual is used."""
    reference_stopping: bool = False
    """Stop by absolute norms as the published code, for comparison only: it usually gives one step's gradient.
    """
    over: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Numbers of the state's tensors that the series runs over; all if left out. The published ConvLSTM: [0], its h."""


AnyRule = Annotated[Bptt | Truncated | Checkpointed | Recurrent, Field(discriminator="kind")]
