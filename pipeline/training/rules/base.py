"""What every rule returns, and the tensors of a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Protocol

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.cells import Recurrence, State


@dataclass
class NeumannReport:
    """The report on a Neumann series, which ``rules/implicit.py`` sums. All norms are relative to that of g."""

    terms: int = 0
    """The number of terms in the sum that was used, beside g."""
    residual: float = inf
    """||g - (I - J^T) sum||; 0 is exact, and at 1 the sum is no better than zero."""
    stopped: Literal["tolerance", "terms", "divergence", "cap", "not run"] = "not run"
    """Why no more terms were added; ``cap`` is the published code's rule."""
    norms: list[float] = field(default_factory=list)
    """||v_k||, k = 0, 1, ..., the residual's term included."""


@dataclass
class Trajectory:
    """The states of a recurrence that was run."""

    state: State
    """The state after the last step. A loss of it has the rule's gradient."""
    previous: tuple[Tensor, ...]
    """The tensors of the state before the last step, as the last step saw them."""
    last: tuple[Tensor, ...]
    """The tensors after the last step, with the plain graph of that one step: d last / d previous is the Jacobian."""
    states: list[State] = field(default_factory=list)
    """The state after every step if the rule was called with ``keep``, for readouts at every step; else the last.
    """
    report: NeumannReport | None = None
    """The report on the series, for rules that have one; the backward pass fills it in."""


class Rule(Protocol):
    """Runs a recurrence from its initial state."""

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        """``steps`` steps under drive x; ``keep`` keeps the state of every step."""


def tensors(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def shaped(parts: Sequence[Tensor], like: State) -> State:
    """The inverse of ``tensors``, in the form of another state."""
    return parts[0] if isinstance(like, Tensor) else tuple(parts)


def detached(state: State) -> State:
    """The same numbers without their history."""
    return shaped([part.detach() for part in tensors(state)], state)


def differentiable(state: State) -> State:
    """The same state with tensors that require a gradient; those without history become leaves."""
    return shaped([t if t.requires_grad else t.detach().requires_grad_() for t in tensors(state)], state)


def check_steps(steps: int, least: int = 1) -> None:
    """Refuse a recurrence without steps."""
    if steps < least:
        raise ConfigError(f"steps is {steps}; this rule needs at least {least}: ask for more steps")
