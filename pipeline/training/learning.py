"""One forward pass of a training step, by the rule of the training file; and whether the rule fits the network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.geometry import Vec
from pipeline.models.axes import as_dimension
from pipeline.models.patch_rules import PatchRule
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.training.rule_specs import (
    AnyPenalty,
    AnyRule,
    ColumnPenalty,
    SpectralPenalty,
    Unrolled,
)
from pipeline.training.rules import (
    Bptt,
    NeumannReport,
    Recurrent,
    Trajectory,
    column_penalty,
    frobenius_penalty,
    spectral_penalty,
)
from pipeline.training.rules.base import tensors


@dataclass(frozen=True)
class Learned:
    """The results of a forward pass."""

    logits: Tensor
    """(b, c, z, y, x)."""
    earlier: tuple[Tensor, ...] = ()
    """The logits of the steps before the last, if the rule has losses on them."""
    penalty: Tensor | None = None
    """The penalty on the Jacobian, not yet weighted."""
    report: NeumannReport | None = field(default=None)
    """The report on the series of recurrent back-propagation; the backward pass fills it in."""


def plain(rule: AnyRule) -> bool:
    """True if the rule is plain autograd, by which any network can be trained."""
    return isinstance(rule, Bptt) and rule.penalty is None and rule.earlier_steps == 0


def run(network: nn.Module, rule: AnyRule, image: Tensor, seed: int = 0) -> Learned:
    """Image (b, i, z, y, x) -> logits whose backward pass follows the rule; ``seed`` is that of the penalty."""
    if plain(rule):
        return Learned(network(image))
    assert isinstance(network, RecurrentNetwork), "check_rule refuses other networks"
    flat, restored = as_dimension(image, network.dimensions)
    x = network.drive(flat)
    path = rule.rule()(network, x, network.steps, keep=earlier_weight(rule) > 0)
    *earlier, logits = (restored(network.read(state, x, flat)) for state in path.states)
    penalty = None if rule.penalty is None else penalty_of(rule.penalty, path, seed)
    return Learned(logits, tuple(earlier), penalty, path.report)


def earlier_weight(rule: AnyRule) -> float:
    """The loss weight of a step's readout, relative to the next step's; 0 if only the last step has a loss."""
    return rule.earlier_steps if isinstance(rule, Unrolled) else 0.0


def penalty_of(settings: AnyPenalty, path: Trajectory, seed: int) -> Tensor:
    """The penalty that a training file names, not yet weighted."""
    match settings:
        case ColumnPenalty():
            return column_penalty(path, settings.limit, settings.reduction, settings.each, settings.both_signs)
        case SpectralPenalty():
            return spectral_penalty(path, settings.limit, settings.iterations, seed)
        case _:
            return frobenius_penalty(path, settings.limit, settings.samples, seed)


def check_rule(network: nn.Module, rule: AnyRule, architecture: str, patch_shape: Vec) -> None:
    """``ConfigError`` if the rule cannot train the network; nothing is computed but shapes."""
    if plain(rule):
        return
    if not isinstance(network, RecurrentNetwork):
        extra = " with a penalty" if rule.penalty else " with earlier_steps" if earlier_weight(rule) else ""
        raise ConfigError(
            f"rule is {rule.kind}{extra}; it runs a recurrence step by step, and "
            f"{architecture} has none that can be run so: choose rule: {{kind: bptt}} with nothing else, or a network "
            "with drive, step and read (gamma_net_2d, gamma_net_3d, gamma_net_vgg, hgru_contour, convlstm_contour, "
            "canvas_lstm, rignet)"
        )
    if isinstance(rule, Recurrent):
        _check_steady(network, rule, architecture, patch_shape)


def _check_steady(network: RecurrentNetwork, rule: Recurrent, architecture: str, patch_shape: Vec) -> None:
    if not network.settles:
        raise ConfigError(
            f"rule is rbp; the state of {architecture} grows with every step, and the rule needs one that comes to "
            "rest: choose bptt, truncated or checkpointed"
        )
    begins_empty, parts = state_parts(network, patch_shape)
    if network.steps < 1 + begins_empty:
        raise ConfigError(
            f"rule is rbp and {architecture} has {network.steps} steps; its first step makes the state, so that the "
            "rule needs at least 2: raise steps in its arguments"
        )
    if rule.over is not None and max(rule.over) >= parts:
        raise ConfigError(
            f"rule over is {list(rule.over)}; the state of {architecture} has {parts} tensors, numbered from 0: choose "
            "among them, or leave over out for all"
        )


def idle_parameters(network: nn.Module, patch_shape: Vec) -> bool:
    """True if some parameter has no part in the output, as in published cells; from shapes alone."""
    shapes = copy.deepcopy(network).to("meta").requires_grad_(True)
    shapes(torch.zeros(PatchRule.of(network).image_shape(patch_shape), device="meta")).sum().backward()
    return any(parameter.grad is None for parameter in shapes.parameters())


def state_parts(network: RecurrentNetwork, patch_shape: Vec) -> tuple[bool, int]:
    """Whether the state before the first step is empty, and how many tensors it has after it; from shapes alone."""
    shapes = copy.deepcopy(network).to("meta")
    with torch.no_grad():
        image = torch.zeros(PatchRule.of(network).image_shape(patch_shape), device="meta")
        x = shapes.drive(as_dimension(image, shapes.dimensions)[0])
        first = shapes.initial(x)
        return not tensors(first), len(tensors(shapes.step(x, first)))
