"""The promises of every learning rule. Subclass ``RuleContract`` and say how to make one."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.training.rules import Rule
from pipeline.training.rules.base import tensors
from tests.training.rules.systems import Linear, Pair, contraction, drive

SYSTEMS = {"one tensor": Linear, "two tensors": Pair}
STEPS = 5


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
class RuleContract:
    """``make`` gives the rule; recurrences with one and with two tensors of state are run by it."""

    def make(self) -> Rule:
        """A new rule."""
        raise NotImplementedError

    def test_the_state_is_that_of_the_recurrence(self, system: type[Linear]) -> None:
        """A rule decides about gradients only: after each number of steps the state is that of a plain loop."""
        unit, x = system(contraction()), drive(batch=2)
        state = unit.initial(x)
        for steps in range(1, STEPS + 1):
            state = unit.step(x, state)
            found = tensors(self.make()(unit, x, steps).state)
            assert all(map(torch.equal, found, tensors(state)))

    def test_a_loss_of_the_state_has_a_finite_gradient(self, system: type[Linear]) -> None:
        """A loss of the last state gives the recurrence's parameters a gradient, finite and not all zero."""
        unit, x = system(contraction()), drive(batch=2)
        path = self.make()(unit, x, STEPS)
        sum(part.square().sum() for part in tensors(path.state)).backward()
        assert unit.a.grad is not None
        assert unit.a.grad.isfinite().all()
        assert unit.a.grad.any()

    def test_the_last_step_has_its_own_plain_graph(self, system: type[Linear]) -> None:
        """d last / d previous is the Jacobian of one step, which penalties need: of h' = A h + B x it is A."""
        unit, x = system(contraction()), drive(batch=1)
        path = self.make()(unit, x, STEPS)
        v = torch.randn(1, len(unit.a), dtype=torch.float64)
        parts = v.split([part.shape[1] for part in path.last], dim=1)
        found = torch.autograd.grad(path.last, path.previous, parts, retain_graph=True)
        torch.testing.assert_close(torch.cat(found, 1), v @ unit.a)

    def test_states_end_with_the_last_and_are_all_there_if_they_are_kept(self, system: type[Linear]) -> None:
        """``states`` ends with ``state``; a rule that keeps states keeps one for each step."""
        unit, x = system(contraction()), drive(batch=1)
        for keep in (False, True):
            path = self.make()(unit, x, STEPS, keep=keep)
            assert path.states[-1] is path.state
            assert len(path.states) in ((1,) if not keep else (1, STEPS))

    def test_the_same_input_gives_the_same_gradient(self, system: type[Linear]) -> None:
        """A rule keeps nothing from one run to the next, so that equal runs have equal gradients, bit for bit."""
        rule, found = self.make(), []
        for _ in range(2):
            unit, x = system(contraction()), drive(batch=2)
            sum(part.square().sum() for part in tensors(rule(unit, x, STEPS).state)).backward()
            found.append(unit.a.grad)
        assert torch.equal(*found)

    def test_a_recurrence_without_steps_is_refused(self, system: type[Linear]) -> None:
        """0 steps are a ``ConfigError`` that gives the number and asks for more."""
        with pytest.raises(ConfigError, match=r"steps is 0; .* at least"):
            self.make()(system(contraction()), drive(batch=1), 0)
