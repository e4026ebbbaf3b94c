"""Pathfinder at a size that a small network learns in a minute, and networks trained on it: shared by experiments.

A training is identified by its settings, so experiments with equal settings share the same weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pipeline.evaluation.files import whole_file
from pipeline.experiments.base import Key, Result, Scale, Trials
from pipeline.experiments.loop import Course, Images, Record, followed, forward, train
from pipeline.models.hgru_contour import HGRUContour
from pipeline.synthetic.pathfinder import PathfinderConfig, make_pathfinder
from pipeline.training.rule_specs import rule_named
from pipeline.training.rules import RecurrentBackpropagation, SavedBytes
from pipeline.training.rules.implicit import NeumannReport


@dataclass(frozen=True)
class Task:
    """Images, network and course, which all trainings of a comparison share."""

    images: dict[str, Any]
    """Settings of the generator that are not the published ones."""
    course: Course
    count: int
    """Training images."""
    held_out: int
    """The number of images for the score, from another seed."""
    kernel: int
    """Side of the hGRU's kernels, S."""
    orientations: int
    """Orientations of the Gabor bank, which has two filters for each, and one more."""
    norm: str = "batch"
    outer: bool = False
    """Whether the state passes a last softplus, as in the published cell, which then has no steady state.
    """
    coupling: float | None = 1.0
    """Initial values of alpha and of the norms' gains; None: the published 0.1, at which the coupling is weak."""
    bank_gain: float | None = 2.0
    """Length of each filter of the bank; None: the published ones, whose disk outweighs the others by far."""


DEFAULT = Task(
    images={
        **{"window": 24, "size": 24, "padding": 0, "seed_padding": 3, "seed_distance": 8.0, "antialias": 4},
        **{"paddles": 3, "length": 4, "thickness": 1.5, "margin": 1, "marker_radius": 1.5, "contrast": 0.5},
        **{"distractors": 1, "distractor_paddles": 2},
    },
    course=Course(updates=700, batch=8, rate=0.02, looks=7),
    count=400,
    held_out=128,
    kernel=5,
    orientations=2,
)
FULL = Task(
    images={"paddles": 14},
    course=Course(updates=20000, batch=32, rate=1e-3, looks=40),
    count=20000,
    held_out=1000,
    kernel=15,
    orientations=12,
    outer=True,
    coupling=None,
    bank_gain=None,
)
TINY = Task(DEFAULT.images, Course(updates=4, batch=2, rate=0.01, looks=2), 4, 2, kernel=3, orientations=1)


def task_of(scale: Scale, dashes: int | None = None) -> Task:
    """The task of a scale, with target curves of as many dashes; of its own number if left out."""
    task = TINY if scale.tiny else FULL if scale.full else DEFAULT
    if scale.one_update:  # a batch of 32 full images through 64 steps has no room in the memory of a CPU's machine
        course = replace(task.course, updates=1, batch=1, looks=1)
        task = replace(task, course=course, count=scale.data(task.count), held_out=scale.data(task.held_out))
    return task if dashes is None else replace(task, images={**task.images, "paddles": dashes})


@dataclass(frozen=True)
class Training:
    """One network, trained in one way."""

    task: Task
    rule: str
    """A key of ``RULES``."""
    steps: int
    seed: int
    penalty: float = 0.0
    """Weight of the published penalty on the Jacobian (C-RBP)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the rule."""
    earlier: float = 0.0
    """Weight of the loss of a step, relative to that of the next one; 0: only the last step has a loss."""

    @property
    def key(self) -> Key:
        """The key of the trial."""
        return {"trial": "pathfinder", **asdict(self)}


def images(store: Trials, task: Task, device: torch.device) -> tuple[Images, Images]:
    """Training images, and those of the score; made once."""
    found = []
    for seed, count in enumerate((task.count, task.held_out)):
        key = {"trial": "pathfinder-images", "seed": seed, "count": count, "settings": task.images}
        path = store.file(key, ".npz")
        store.get(key, lambda path=path, seed=seed, count=count: make_images(task, seed, count, path))  # type: ignore[misc]
        with np.load(path) as file:
            found.append(Images(*(torch.from_numpy(file[name]).float().to(device) for name in ("images", "targets"))))
    return found[0], found[1]


def make_images(task: Task, seed: int, count: int, path: Any) -> Result:
    """Write images and targets, each (count, 1, y, x)."""
    config = PathfinderConfig(**task.images)
    samples = [make_pathfinder(index, seed=seed, config=config) for index in range(count)]
    arrays = {
        "images": np.stack([s.image for s in samples])[:, None],
        "targets": np.stack([s.target for s in samples])[:, None],
    }
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return {"target_share": float(arrays["targets"].mean())}


def fresh_network(task: Task, steps: int, seed: int) -> HGRUContour:
    """An untrained network for T ``steps``."""
    torch.manual_seed(seed)
    network = HGRUContour(task.kernel, steps, norm=task.norm, outer=task.outer, orientations=task.orientations)
    with torch.no_grad():
        if task.bank_gain is not None:
            weight = network.bank.weight
            weight.mul_(task.bank_gain / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        if task.coupling is not None:
            cell = network.cell
            for values in cell.norms[1].gain, cell.norms[3].gain, cell.alpha:  # type: ignore[union-attr]
                values.fill_(task.coupling)  # type: ignore[operator]
    return network


def trained(store: Trials, training: Training, device: torch.device) -> tuple[HGRUContour, Result]:
    """The network with its weights, and the record of its training; it is trained unless the store has it."""
    path, task = store.file(training.key, ".safetensors"), training.task
    result = store.get(training.key, lambda: train_and_keep(store, training, device, path))
    network = fresh_network(task, training.steps, training.seed)
    network.load_state_dict(load_file(path))
    return network.to(device), result


def train_and_keep(store: Trials, training: Training, device: torch.device, path: Any) -> Result:
    """Train, write the weights, and return the record."""
    data, held_out = images(store, training.task, device)
    network = fresh_network(training.task, training.steps, training.seed).to(device)
    rule = rule_named(training.rule, **training.options)

    def score() -> float:
        return followed(network, held_out, training.steps)[0][-1]

    record = train(network, rule, data, training.task.course, training.seed, score, training.penalty, training.earlier)
    with whole_file(path) as temporary:
        save_file({name: values.cpu().contiguous() for name, values in network.state_dict().items()}, temporary)
    return summary(record)


def summary(record: Record) -> Result:
    """A record as JSON numbers; of the series, a summary of the last fifth of the updates."""
    late = record.reports[-max(1, len(record.reports) // 5) :]
    return {
        "looks": [list(look) for look in record.looks],
        "f1": record.looks[-1][2],
        "seconds": record.looks[-1][1],
        "loss": float(np.mean(record.losses[-50:])),
        "terms": float(np.mean([r.terms for r in late])) if late else None,
        "residual": finite(np.median([r.residual for r in late])) if late else None,
        "stopped": {why: sum(r.stopped == why for r in late) for why in sorted({r.stopped for r in late})},
    }


def finite(value: float) -> float | None:
    """The number, or ``None`` if it is not finite."""
    return float(value) if math.isfinite(value) else None


def saved_bytes(training: Training, data: Images) -> int:
    """Bytes kept for the backward pass of one batch, with that of the penalty if there is one.

    They follow from shapes alone and are counted on torch's meta device, which holds and computes nothing: at full
    scale 64 steps of BPTT keep 351 GB.
    """
    network = fresh_network(training.task, training.steps, seed=0).to("meta")
    images, targets = (each[: training.task.course.batch].to("meta") for each in (data.images, data.targets))
    rule = rule_named(training.rule, **training.options)
    with SavedBytes() as saved:
        forward(network, rule, images, targets, training.penalty, training.earlier)
    return saved.bytes


def gradient(
    network: HGRUContour, rule: RecurrentBackpropagation, data: Images, loudness: float = 1.0
) -> tuple[torch.Tensor, NeumannReport]:
    """The gradient of the loss by all weights of the cell, as one vector, and the report on the series.

    loudness: factor of the loss, by which the gradient is divided again; an exact rule is not changed by it.
    """
    path, loss = forward(network, rule, data.images, data.targets)
    weights = [each for each in network.cell.parameters() if each.requires_grad]
    found = torch.autograd.grad(loudness * loss, weights, allow_unused=True)
    parts = [(torch.zeros_like(w) if g is None else g).flatten() for g, w in zip(found, weights, strict=True)]
    assert path.report is not None, "only this family of rules is asked"
    return torch.cat(parts) / loudness, path.report
