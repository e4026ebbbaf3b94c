"""All checks of a training, and what a run could make of its model; nothing is written and nothing is learned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.models.facts import parameters
from pipeline.training.callbacks import card_channels
from pipeline.training.config import TrainConfig
from pipeline.training.data import ValidationPatches
from pipeline.training.module import TrainingModule
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
    affinities: int
    """Affinities that a run can use; 0 if it cannot use the model."""
    others: tuple[str, ...]
    """Other targets, which a run does not use."""

    def __str__(self) -> str:
        earlier = f"; {self.done} are done" if self.done else ""
        return (
            f"It would train {self.architecture} ({self.parameters:,} parameters) on {self.device} for {self.steps} "
            f"updates{earlier}, on {self.voxels:,} voxels.\n{self.use}"
        )

    @property
    def use(self) -> str:
        """What `petaseg run` could make of the targets."""
        if not self.affinities:
            return (
                f"No run could use the model: it predicts {', '.join(self.others)}, and a run needs affinities that "
                "begin with the nearest neighbours, [-1, 0, 0], [0, -1, 0], [0, 0, -1]."
            )
        beside = f"; {', '.join(self.others)} would be left out" if self.others else ""
        return f"A run could use it: 3 of its {self.affinities} affinities are those of the nearest neighbours{beside}."


def dry_run(config: TrainConfig) -> TrainingCheck:
    """Make every check that comes before the first update, and draw the first patches.

    Raises ``ConfigError``, ``VolumeError`` or ``ModelError`` with the value, the rule and the remedy.
    """
    unused_keys(config)
    device = device_of(config.device)
    module, done = sound(config)
    offsets, others = card_channels(module.targets)
    return TrainingCheck(
        architecture=config.architecture,
        parameters=parameters(module.network),
        device=device,
        steps=config.steps,
        done=done,
        voxels=sum(source.box.voxels for source in module.sampler.sources),
        affinities=len(offsets),
        others=tuple(other.what for other in others),
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
