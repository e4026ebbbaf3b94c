"""All checks of a training, and what a run could make of its model; nothing is written and nothing is learned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError, counted
from pipeline.models.facts import parameters
from pipeline.models.heads import Head, heads_of_channels, uses
from pipeline.training.callbacks import card_channels
from pipeline.training.config import TrainConfig
from pipeline.training.data import ValidationPatches
from pipeline.training.module import TrainingModule
from pipeline.training.target_specs import AnyTarget
from pipeline.training.trainer import device_of, saved
from pipeline.training.unused import unused_keys


@dataclass(frozen=True)
class TrainingCheck:
    """A training that is sound."""

    architecture: str
    parameters: int
    device: str
    steps: int
    done: int
    """Updates that an earlier call has done."""
    voxels: int
    """Voxels of the parts that are trained on."""
    heads: tuple[Head, ...]
    """The heads of the model."""

    def __str__(self) -> str:
        earlier = f"; {self.done} are done" if self.done else ""
        return (
            f"It would train {self.architecture} ({self.parameters:,} parameters) on {self.device} for "
            f"{counted(self.steps, 'update')}{earlier}, on {self.voxels:,} voxels.\n{self.use}"
        )

    @property
    def use(self) -> str:
        """What `petaseg run` could make of the targets."""
        return use_of(self.heads)


def heads_of_targets(targets: Sequence[AnyTarget]) -> tuple[Head, ...]:
    """The heads that the card of a training on these targets will have."""
    return heads_of_channels(*card_channels(targets))


def use_of(heads: Sequence[Head]) -> str:
    """The line about what a run can make of them."""
    return f"A run can make of it: {uses(heads)}."


def dry_run(config: TrainConfig) -> TrainingCheck:
    """Make every check that comes before the first update, and draw the first patches.

    Raises ``ConfigError``, ``VolumeError`` or ``ModelError`` with the value, the rule and the remedy.
    """
    unused_keys(config)
    device = device_of(config.device)
    module, done = sound(config)
    return TrainingCheck(
        architecture=config.architecture,
        parameters=parameters(module.network),
        device=device,
        steps=config.steps,
        done=done,
        voxels=sum(source.box.voxels for source in module.sampler.sources),
        heads=heads_of_targets(module.targets),
    )


def sound(config: TrainConfig) -> tuple[TrainingModule, int]:
    """Make the checks that do not depend on this machine's devices; returns the network and the updates done so far."""
    check_output(Path(config.output))
    checkpoint = saved(config)
    module = TrainingModule(config)
    module.sampler.draw(0)
    _, _, weights = ValidationPatches(module.held_back, config)[0]
    check_known(weights)
    return module, 0 if checkpoint is None else checkpoint["global_step"]


def check_output(folder: Path) -> None:
    """Raise ``ConfigError`` unless the output folder can be written, or can be made."""
    present = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        what = "may not be written" if present.is_dir() else "is a file"
        raise ConfigError(f"output is {folder}; {present} {what}, so no model can be stored there: name another folder")


def check_known(weights: np.ndarray) -> None:
    """Raise ``ConfigError`` if every voxel of the first validation patch is masked, so that no score can be taken."""
    if not weights.any():
        raise ConfigError(
            "the first patch of the validation part has no labelled voxel, and the score is measured there: choose "
            "validation.start and stop where there are labels"
        )
