"""Back-propagation through time: through all steps, through the last ones, and through all with little memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from pipeline.errors import ConfigError
from pipeline.models.cells import Recurrence, State
from pipeline.training.rules.base import Trajectory, asking, check_steps, detached, shaped, tensors

Step = Callable[[State], State]


@dataclass(frozen=True)
class Backpropagation:
    """Through all steps (BPTT): exact for the steps that were run; memory grows with each."""

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        """``steps`` steps under drive x; ``keep`` keeps the state of every step."""
        return unrolled(lambda state: recurrence.step(x, state), recurrence.initial(x), steps, keep)


@dataclass(frozen=True)
class TruncatedBackpropagation:
    """Through the last ``window`` steps: history is cut before them, and before every ``window`` steps earlier.

    A loss of the last state sees ``window`` steps; losses of earlier states, what their own window holds. Steps whose
    state nobody will read keep nothing.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"window is {self.window}; gradients need at least one step: choose 1 or more")

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        """``steps`` steps under drive x; ``keep`` keeps the state of every step."""
        check_steps(steps)
        state, unread = recurrence.initial(x), 0 if keep else max(0, steps - self.window)
        with torch.no_grad():
            for _ in range(unread):
                state = recurrence.step(x, state)
        return unrolled(lambda state: recurrence.step(x, state), state, steps - unread, keep, self.window)


@dataclass(frozen=True)
class CheckpointedBackpropagation:
    """Through all steps, keeping the states alone: each step is computed again in the backward pass.

    The same gradient as ``Backpropagation``, for the memory of one step and T states, and a third more time. Running
    statistics of batch norms move once, not twice.
    """

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        """``steps`` steps under drive x; ``keep`` keeps the state of every step."""

        def step(state: State) -> State:
            form: list[State] = []

            def flat(x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
                form[:] = [recurrence.step(x, shaped(parts, state))]
                return tensors(form[0])

            result = checkpoint(
                flat,
                x,
                *tensors(state),
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), Resting(recurrence)),
            )
            return shaped(result, form[0])

        return unrolled(step, recurrence.initial(x), steps, keep)


class Resting(AbstractContextManager[None]):
    """While it is entered, batch norms use the statistics of the batch, but do not move their running ones."""

    def __init__(self, recurrence: Recurrence) -> None:
        modules = recurrence.modules() if isinstance(recurrence, nn.Module) else ()
        self.norms = [module for module in modules if isinstance(module, _BatchNorm)]
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm, (_, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def unrolled(step: Step, state: State, steps: int, keep: bool, window: int | None = None) -> Trajectory:
    """Steps with a graph; with a ``window``, history is cut where a multiple of it is left."""
    check_steps(steps)
    states: list[State] = []
    for left in range(steps, 0, -1):
        before = detached(state) if window and left % window == 0 else state
        before = asking(before) if left == 1 else before
        state = step(before)
        states = [*states, state] if keep else [state]
    return Trajectory(state, tensors(before), tensors(state), states)
