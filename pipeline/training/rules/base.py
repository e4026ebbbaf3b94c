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
    """How a Neumann series went: ``rules/implicit.py`` sums it. All norms are relative to that of g."""

    terms: int = 0
    """Terms in the sum that was used, beside g."""
    residual: float = inf
    """||g - (I - J^T) sum||; 0 is exact, 1 is as good as no answer."""
    stopped: Literal["tolerance", "terms", "divergence", "cap", "not run"] = "not run"
    """Why no more terms were added; ``cap`` is the published code's rule."""
    norms: list[float] = field(default_factory=list)
    """||v_k||, k = 0, 1, ..., the residual's term included."""


@dataclass
class Trajectory:
    """A recurrence that was run."""

    state: State
    """After the last step. A loss of it has the rule's gradient."""
    previous: tuple[Tensor, ...]
    """The tensors of the state before the last step, as the last step saw them."""
    last: tuple[Tensor, ...]
    """Those after it, with the plain graph of that one step: d last / d previous is the Jacobian."""
    states: list[State] = field(default_factory=list)
    """After every step, for readouts at every step; only the last one if the rule was not told to keep them."""
    report: NeumannReport | None = None
    """How the series went; filled in by the backward pass, for rules that have one."""


class Rule(Protocol):
    """Runs a recurrence from its initial state."""

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        """``steps`` steps under drive x; ``keep`` keeps the state of every step."""


def tensors(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def shaped(parts: Sequence[Tensor], like: State) -> State:
    """The reverse of ``tensors``, in the form of another state."""
    return parts[0] if isinstance(like, Tensor) else tuple(parts)


def detached(state: State) -> State:
    """The same numbers without their history."""
    return shaped([part.detach() for part in tensors(state)], state)


def asking(state: State) -> State:
    """The same state, whose tensors one may differentiate by; those without history become leaves."""
    return shaped([t if t.requires_grad else t.detach().requires_grad_() for t in tensors(state)], state)


def check_steps(steps: int, least: int = 1) -> None:
    """Refuse a recurrence without steps."""
    if steps < least:
        raise ConfigError(f"steps is {steps}; this rule needs at least {least}: ask for more steps")
