"""A small training loop in memory: a few hundred images, one process, any recurrence, any learning rule.

The same seed gives the same weights on CPUs of one kind: batches, mirrorings and first weights come from it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.models.cells import State
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.training.losses import weighted_bce
from pipeline.training.rules import NeumannReport, Rule, Trajectory, column_penalty
from pipeline.training.rules.base import tensors


@dataclass(frozen=True)
class Images:
    """A data set in memory."""

    images: Tensor
    """(n, 1, y, x), float32."""
    targets: Tensor
    """(n, 1, y, x), 0 or 1, float32."""


@dataclass(frozen=True)
class Course:
    """Length and learning rate of a training: Adam, with a rate that rises for a tenth of the updates, then falls."""

    updates: int
    batch: int
    rate: float
    """The highest learning rate."""
    looks: int = 8
    """How often the score is taken during the training; the last time is at the end."""
    clip: float = 1.0
    """Largest norm of a gradient."""


@dataclass
class Record:
    """The record of a training."""

    looks: list[tuple[int, float, float]] = field(default_factory=list)
    """Updates, seconds of training (of the processor; on a GPU, of the clock), score."""
    losses: list[float] = field(default_factory=list)
    reports: list[NeumannReport] = field(default_factory=list)
    """The report of each update, for rules that have one."""


def train(
    network: RecurrentNetwork,
    rule: Rule,
    data: Images,
    course: Course,
    seed: int,
    score: Callable[[], float],
    penalty: float = 0.0,
    earlier: float = 0.0,
) -> Record:
    """Train for ``network.steps`` steps of recurrence with cross entropy, plus ``penalty`` times the published one.

    earlier: weight of the loss of a step, relative to that of the next one; 0: only the last step has a loss.

    score: taken ``course.looks`` times; its time does not count.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=course.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, course.rate, total_steps=max(course.updates, 2), pct_start=0.1
    )
    generator, record, spent = torch.Generator().manual_seed(seed), Record(), 0.0
    clock = perf_counter if data.images.is_cuda else process_time
    for update in range(1, course.updates + 1):
        start = clock()
        path, loss = forward(network, rule, *draw(data, course.batch, generator), penalty, earlier)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), course.clip)
        optimiser.step()
        schedule.step()
        record.losses.append(float(loss.detach()))
        record.reports += [path.report] if path.report else []
        spent += clock() - start
        if update * course.looks // course.updates > (update - 1) * course.looks // course.updates:
            record.looks.append((update, spent, score()))
    return record


def forward(
    network: RecurrentNetwork, rule: Rule, images: Tensor, targets: Tensor, penalty: float = 0.0, earlier: float = 0.0
) -> tuple[Trajectory, Tensor]:
    """The path of the recurrence, and the loss of its last state, or of every state with falling weights."""
    x, asked = network.drive(images), torch.ones_like(targets)
    path = rule(network, x, network.steps, keep=earlier > 0)
    loss = weighted_bce(logit(network, path.state, x, images), targets, asked)
    for before_last, state in enumerate(reversed(path.states[:-1]), start=1):
        loss = loss + earlier**before_last * weighted_bce(logit(network, state, x, images), targets, asked)
    return path, loss + penalty * column_penalty(path) if penalty else loss


def logit(network: RecurrentNetwork, state: State, x: Tensor, images: Tensor) -> Tensor:
    """One logit for each pixel, (b, 1, y, x), of a network with one or two classes."""
    output = network.read(state, x, images)
    return output if output.shape[1] == 1 else output[:, 1:2] - output[:, :1]


def draw(data: Images, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random batch, turned and mirrored in one of the eight ways."""
    chosen = torch.randint(len(data.images), (count,), generator=generator).to(data.images.device)
    way = int(torch.randint(8, (1,), generator=generator))
    return turned(data.images[chosen], way), turned(data.targets[chosen], way)


def turned(r: Tensor, way: int) -> Tensor:
    """The whole batch, turned and mirrored in way 0 to 7."""
    r = torch.rot90(r, way % 4, (2, 3))
    return r.flip(3) if way > 3 else r


@torch.no_grad()
def followed(network: RecurrentNetwork, data: Images, steps: int, batch: int = 64) -> tuple[list[float], list[float]]:
    """F1 of the readout after each of ``steps`` steps, and the relative change of the state at each, ||h_t - h_t-1|| /
    ||h_t||.

    Pixels of all images count alike; norms are over all images and the whole state.
    """
    counts, norms = torch.zeros(steps, 2, dtype=torch.float64), torch.zeros(steps, 2, dtype=torch.float64)
    for start in range(0, len(data.images), batch):
        images, targets = data.images[start : start + batch], data.targets[start : start + batch] > 0
        x = network.drive(images)
        state = network.initial(x)
        for t in range(steps):
            before, state = tensors(state), network.step(x, state)
            said = logit(network, state, x, images) > 0
            counts[t] += torch.tensor([(said & targets).sum().item(), said.sum().item() + targets.sum().item()])
            norms[t] += torch.tensor([distance(tensors(state), before), distance(tensors(state))])
    scores = [2 * both / total if total else 1.0 for both, total in counts.tolist()]
    return scores, [math.sqrt(moved / size) if size else 0.0 for moved, size in norms.tolist()]


def distance(a: tuple[Tensor, ...], b: tuple[Tensor, ...] = ()) -> float:
    """||a - b||^2 over all tensors of a state; b may be left out for 0."""
    differences = [p - q for p, q in zip(a, b, strict=True)] if b else a
    return sum(float(each.double().square().sum()) for each in differences)


Score = TypeVar("Score", float, np.ndarray)


def iou(f1: Score) -> Score:
    """Intersection over union of the same pixels; of one F1, or of many."""
    return f1 / (2 - f1)
