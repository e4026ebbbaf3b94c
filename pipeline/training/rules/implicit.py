"""Recurrent back-propagation (RBP; with a penalty on the Jacobian, C-RBP): gradients of a steady state.

Linsley, Ashok, Govindarajan, Liu and Serre 2020 (NeurIPS); Liao et al. 2018 (ICML). At a steady state h = F(x, h; w),
with J = dF/dh and g = dL/dh, the gradient is that of the last step alone, with (I - J^T)^-1 g in the place of g:

    dL/dw = (dF/dw)^T (I - J^T)^-1 g = (dF/dw)^T (v_0 + v_1 + v_2 + ...),    v_0 = g,  v_k+1 = J^T v_k

So the steps before the last one keep nothing, and memory does not grow with their number. The sum up to v_K misses the
solution by a residual of exactly v_K+1: it is computed, compared, and reported.

The published code stops when the norm of the sum, taken over the batch, exceeds 1. Any loss whose gradient is not tiny
exceeds it at once, the sum stays v_0 = g, and what is called RBP is the gradient of one step. ``reference_stopping``
does the same, for comparison; otherwise terms are compared with g.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.errors import ConfigError
from pipeline.models.cells import Recurrence
from pipeline.training.rule_specs import Recurrent
from pipeline.training.rules.base import NeumannReport, Trajectory, check_steps, shaped, tensors

DEFAULTS = Recurrent()
Vector = tuple[Tensor, ...]
"""One tensor for each tensor of the state."""

CAP, FLOOR = 1.0, 1e-9
"""The published code's absolute bounds: of the norm of the sum, and of a term."""


@dataclass(frozen=True)
class RecurrentBackpropagation:
    """The rule. The series ends when a term is below ``tolerance``, after ``terms``, or above ``divergence``.

    If it diverged, or shrank and grew again, the partial sum of least residual is used; the report says so.
    over: numbers of the state's tensors that the series runs over, None for all; the published ConvLSTM takes h, (0,).
    """

    terms: int = DEFAULTS.terms
    tolerance: float = DEFAULTS.tolerance
    divergence: float = DEFAULTS.divergence
    reference_stopping: bool = DEFAULTS.reference_stopping
    over: tuple[int, ...] | None = DEFAULTS.over

    def __post_init__(self) -> None:
        if self.terms < 0 or self.tolerance < 0 or self.divergence <= 0:
            raise ConfigError(
                f"terms is {self.terms}, tolerance {self.tolerance}, divergence {self.divergence}; the first two must "
                "be 0 or more, the third more than 0"
            )

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        """``steps`` steps under drive x, all but the last without a graph; ``keep`` has no meaning here."""
        state = recurrence.initial(x)
        check_steps(steps, least=1 if tensors(state) else 2)
        with torch.no_grad():
            for _ in range(steps - 1):
                state = recurrence.step(x, state)
        previous = tuple(part.detach().requires_grad_() for part in tensors(state))
        after = recurrence.step(x, shaped(previous, state))
        last, report = tensors(after), NeumannReport()
        result = shaped(_Series.apply(self, report, len(last), *previous, *last), after)  # type: ignore[no-untyped-call]
        return Trajectory(result, previous, last, [result], report)

    def solve(self, transposed: Callable[[Vector], Vector], g: Vector, report: NeumannReport) -> Vector:
        """(I - J^T)^-1 g, from v -> J^T v; fills in the report."""
        series = capped_series if self.reference_stopping else neumann_series
        total, found = series(transposed, g, self)
        report.__dict__.update(found.__dict__)
        return total


def neumann_series(
    transposed: Callable[[Vector], Vector], g: Vector, rule: RecurrentBackpropagation
) -> tuple[Vector, NeumannReport]:
    """The partial sum of least residual, and how it went."""
    scale = norm(g)
    report = NeumannReport(norms=[1.0])
    if scale == 0:
        return g, NeumannReport(0, 0.0, "tolerance", [0.0])
    total = best = term = g
    for k in range(rule.terms + 1):
        term = transposed(term)  # v_k+1, the residual of the sum up to v_k
        size = norm(term) / scale
        report.norms.append(size)
        if size < report.residual:
            report.terms, report.residual, best = k, size, total
        if not isfinite(size) or size > rule.divergence:
            report.stopped = "divergence"
            break
        if size <= rule.tolerance:
            report.stopped = "tolerance"
            break
        total = added(total, term)
    else:
        report.stopped = "terms"
    return best, report


def capped_series(
    transposed: Callable[[Vector], Vector], g: Vector, rule: RecurrentBackpropagation
) -> tuple[Vector, NeumannReport]:
    """The published code's loop: absolute norms over the whole batch; it says nothing of what it left out."""
    scale = size = norm(g)
    report, total, term = NeumannReport(0, inf, "terms", [1.0]), g, g
    for k in range(rule.terms):
        before, term = size, transposed(term)
        size, longer = norm(term), added(total, term)
        report.norms.append(size / scale if scale else 0.0)
        report.residual = report.norms[-1]
        if norm(longer) > CAP or size > before or size < FLOOR:
            report.stopped = "cap"
            break
        total, report.terms = longer, k + 1
    return total, report


def norm(v: Vector) -> float:
    """The Euclidean norm over all tensors and the batch, as in the published code."""
    return float(sum(part.double().square().sum() for part in v)) ** 0.5


def added(a: Vector, b: Vector) -> Vector:
    """a + b."""
    return tuple(p + q for p, q in zip(a, b, strict=True))


class _Series(torch.autograd.Function):
    """The identity on the last state, whose backward pass replaces g by the sum."""

    @staticmethod
    def forward(ctx: Any, rule: RecurrentBackpropagation, report: NeumannReport, count: int, *states: Tensor) -> Vector:
        ctx.rule, ctx.report, ctx.count = rule, report, count
        ctx.save_for_backward(*states)
        return tuple(part.view_as(part) for part in states[-count:])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        previous, last = ctx.saved_tensors[: -ctx.count], ctx.saved_tensors[-ctx.count :]
        chosen = range(ctx.count) if ctx.rule.over is None else ctx.rule.over

        def transposed(v: Vector) -> Vector:
            with torch.enable_grad():
                found = torch.autograd.grad(
                    [last[i] for i in chosen], [previous[i] for i in chosen], v, retain_graph=True, allow_unused=True
                )
            return tuple(torch.zeros_like(part) if t is None else t for t, part in zip(found, v, strict=True))

        total = ctx.rule.solve(transposed, tuple(g[i] for i in chosen), ctx.report)
        result = list(g)
        for i, part in zip(chosen, total, strict=True):
            result[i] = part
        return (None, None, None, *[None] * len(previous), *result)
