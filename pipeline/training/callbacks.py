"""Actions between the steps of a training: writing files and pictures, early stopping, progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pipeline.config.base import Voxel
from pipeline.formats import CHECKPOINT as CHECKPOINT_FORMAT
from pipeline.models.spec import ModelCard, OtherChannels, save_model
from pipeline.training.config import TrainConfig
from pipeline.training.curve import draw_curve
from pipeline.training.module import Record, TrainingModule
from pipeline.training.output import LOG
from pipeline.training.pictures import draw_steps, outputs_of_steps
from pipeline.training.scores import score_name
from pipeline.training.target_kinds import Affinities
from pipeline.training.target_specs import AnyTarget

CHECKPOINT = "checkpoint.ckpt"
SECONDS_BETWEEN = 0.5
"""The time between two reports of a training."""


class Folder(Callback):
    """Writes the log, the model if it is the best, then curve, pictures and checkpoint, after each validation."""

    def __init__(self, folder: Path, config: TrainConfig, identity: str) -> None:
        self.folder, self.config, self.identity = folder, config, identity

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store in the checkpoint to which training it belongs."""
        checkpoint.update(CHECKPOINT_FORMAT.stamp)
        checkpoint["identity"] = self.identity
        checkpoint["settings"] = self.config.model_dump_json()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write all files. Only the first process writes, but all take part in the checkpoint."""
        assert isinstance(pl_module, TrainingModule)
        if trainer.is_global_zero:
            self._write(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the checkpoint here, since the state of the loops is complete only now."""
        partial = self.folder / f".{CHECKPOINT}.partial"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.folder / CHECKPOINT)

    def _write(self, module: TrainingModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        last = module.records[-1]
        (self.folder / LOG).write_text("".join(json.dumps(r.numbers) + "\n" for r in module.records))
        if module.best is last:
            save_model(self.folder, module.mean, card_of(module))
        draw_curve(module.records, self.folder / "curve.png", self.config.name, score_name(module.targets))
        if self.config.pictures:
            image, targets, weights = next(iter(module.val_dataloader()))
            steps = outputs_of_steps(module.mean, image.to(module.device))
            path = self.folder / "pictures" / f"step-{last.step:06d}.png"
            draw_steps(image, steps, targets.masked_fill(weights == 0, torch.nan), module.targets, path)


class Patience(Callback):
    """Ends a training after ``patience`` validations without a better score."""

    def __init__(self, validations: int) -> None:
        self.validations = validations

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See the class."""
        assert isinstance(pl_module, TrainingModule)
        if pl_module.stale >= self.validations:
            trainer.should_stop = True


class Progress(Callback):
    """Reports (steps done, steps in all) after each step."""

    def __init__(self, tell: Callable[[int, int], None], steps: int) -> None:
        self.tell, self.steps = tell, steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """See the class."""
        if trainer.is_global_zero:
            self.tell(trainer.global_step, self.steps)


@dataclass(frozen=True)
class Update:
    """The state of a training between two steps."""

    done: int
    """Steps done, by earlier calls too."""
    total: int
    loss: float
    """Mean training loss of the last steps."""
    validation: Record | None
    """The last validation; ``None`` before the first."""
    best: Record | None
    """The validation with the best score."""


class Updates(Callback):
    """Reports losses and scores every half second, and after each validation."""

    def __init__(self, tell: Callable[[Update], None], steps: int) -> None:
        self.tell, self.steps = tell, steps
        self._told = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Report if half a second has passed: to read a loss, a GPU must have finished its step."""
        if time.monotonic() - self._told > SECONDS_BETWEEN:
            self._tell(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report every validation."""
        self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        if trainer.is_global_zero:
            last = module.records[-1] if module.records else None
            best = module.best if module.records else None
            self.tell(Update(trainer.global_step, self.steps, module.recent_loss, last, best))
            self._told = time.monotonic()


def card_of(module: TrainingModule) -> ModelCard:
    """The card of the present running mean."""
    c, last = module.config, module.records[-1]
    offsets, others = card_channels(module.targets)
    return ModelCard(
        name=c.name,
        architecture=c.architecture,
        arguments=json.loads(json.dumps(module.arguments)),
        patch_shape=c.patch_shape,
        overlap=c.card_overlap,
        normalisation=c.normalisation,
        offsets=offsets,
        other_channels=others,
        resolution_nm=module.held_back.image.spec.resolution_nm,
        threshold=c.threshold,
        training_data=c.training_data,
        scores={
            f"validation {score_name(module.targets)}": round(last.score, 4),
            "validation loss": round(last.validation_loss, 4),
        },
        licence=c.licence,
    )


def card_channels(targets: Sequence[AnyTarget]) -> tuple[tuple[Voxel, ...], tuple[OtherChannels, ...]]:
    """Offsets and other channels of a card, for targets in the order of the channels.

    Affinities that do not begin with the nearest neighbours are other channels, since no run can use them.
    """
    offsets = tuple(offset for target in targets if isinstance(target, Affinities) for offset in target.in_volume)
    usable = offsets[:3] == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    others = (target for target in targets if not (usable and isinstance(target, Affinities)))
    named = (OtherChannels(what=t.what, channels=t.channels, activation=t.activation) for t in others)
    return offsets if usable else (), tuple(named)


def weights_of(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's content; tensors, numbers and texts only."""
    content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return content
