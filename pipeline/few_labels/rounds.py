"""The settings of a self-training, and the files and settings of its rounds; nothing is written or computed here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.few_labels.sure import AGREEMENT, PROBABILITY, AnyRule, SureBy, rule_of
from pipeline.geometry import BoundingBox
from pipeline.models.heads import WITH_EXTREMES
from pipeline.runs.results import KINDS
from pipeline.storage import absolute
from pipeline.training.config import LabelledVolume, TrainConfig
from pipeline.training.scores import score_name
from pipeline.training.target_kinds import Contours
from pipeline.training.trainer import identity
from pipeline.volumes import open_volume

RECORD = "self-train.json"
VALID = 0.05
"""Patches of which less than this share is in a mask are drawn again: sure voxels are few at first."""

COPIES = {"augmentation": "flips", "augmentation_rule": WITH_EXTREMES}
"""What a run does whose copies are compared."""
OBJECTS = {"head": "foreground", "threshold": 0.5}
"""How a round makes objects, and how it makes their seeds if contours are predicted."""
SEEDS = {"seed_threshold": 0.8, "seeds_within": {"contours": {"below": 0.3}}}


@dataclass(frozen=True)
class SelfTraining:
    """The settings of a self-training; ``checks.check`` refuses those that do not fit each other."""

    config: TrainConfig
    """The user's training, with absolute paths."""
    unlabelled: str
    """The image without labels: an absolute path, or a URL."""
    output: Path
    """An absolute path."""
    box: BoundingBox
    """The part of the image that is used."""
    rounds: int = 1
    sure: float = 0.8
    """Least |2 p - 1| of the probabilities p that are kept; by agreement, copies differ by 1 - ``sure`` at most."""
    sure_by: SureBy = PROBABILITY
    """What a voxel is sure by: one probability, or the agreement of the copies of the test-time augmentation."""

    @property
    def rule(self) -> AnyRule:
        """When a voxel is sure; ``ConfigError`` if there is no such rule for the training's targets."""
        return rule_of(self.config.channels, self.sure, self.sure_by)

    @property
    def segmentation(self) -> dict[str, Any]:
        """What a run makes of the predictions: neurons as it does by itself, a class map, or objects."""
        rule = self.rule
        if rule.kind == "neurons":
            return {}
        return {"segmentation": {"kind": rule.kind, **(OBJECTS if rule.kind == "objects" else {}), **seeds_of(rule)}}

    @property
    def result(self) -> str:
        """The name of the volume that a round trains on."""
        return KINDS[self.rule.kind].volume

    @property
    def score(self) -> str:
        """The name, in a model's card, of the score by which the best model is chosen."""
        return f"validation {score_name(self.config.channels)}"

    @property
    def record(self) -> dict[str, Any]:
        """What must stay the same in a folder. More rounds may follow, and ``sure`` may change until a mask is used."""
        return {
            "training": identity(self.config),
            "unlabelled": self.unlabelled,
            "box": str(self.box),
            "sure_by": self.sure_by,
        }

    def round(self, number: int) -> Round:
        """A round, from 1."""
        return Round(self, number)


@dataclass(frozen=True)
class Round:
    """One round: a run, its sure voxels, and a training on them."""

    plan: SelfTraining
    number: int

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.plan.output / f"round-{self.number}"

    @property
    def run_file(self) -> Path:
        """The run on the unlabelled image."""
        return self.folder / "run.yaml"

    @property
    def training_file(self) -> Path:
        """The training on labels and sure voxels."""
        return self.folder / "train.yaml"

    @property
    def model(self) -> Path:
        """The model that predicts: that of the round before, or the first."""
        return Path(self.plan.config.output) if self.number == 1 else self.plan.round(self.number - 1).trained

    @property
    def trained(self) -> Path:
        """The folder of the model that this round trains, unless the training file was changed."""
        return self.folder / "model"

    @property
    def mask(self) -> Path:
        """The volume of sure voxels."""
        return self.folder / "sure.zarr"

    def run_settings(self) -> dict[str, Any]:
        """The run file, as it is written first."""
        config, box = self.plan.config, self.plan.box
        return {
            "run_directory": "run",
            "input": {"image": self.plan.unlabelled, "start": list(box.start), "stop": list(box.stop)},
            "inference": {
                "model": str(self.model / "card.yaml"),
                **{"device": config.device, "threads": config.threads},
                **(COPIES if self.plan.sure_by == AGREEMENT else {}),
            },
            **self.plan.segmentation,
        }

    def training_settings(self) -> dict[str, Any]:
        """The training file, as it is written first: the user's, with one more volume, from the first weights."""
        config, box = self.plan.config, self.plan.box
        data = config.model_dump(mode="json", exclude_unset=True)
        data.pop("backbone", None)
        sure = LabelledVolume(
            image=self.plan.unlabelled,
            labels=str(self.folder / "run" / f"{self.plan.result}.zarr"),
            mask=str(self.mask),
            start=box.start,
            stop=box.stop,
        )
        labelled = [volume.model_dump(mode="json", exclude_unset=True) for volume in self._labelled()]
        return {
            **data,
            "output": str(self.trained),
            "name": f"{config.name}, self-trained",
            "volumes": [*labelled, sure.model_dump(mode="json", exclude_unset=True)],
            "sampling": {**data.get("sampling", {}), "valid": min(VALID, config.sampling.valid)},
            "start_from": str(Path(config.output) / "card.yaml"),
            "training_data": f"{config.training_data}; self-trained on {self.plan.unlabelled} {box}".lstrip("; "),
        }

    def _labelled(self) -> list[LabelledVolume]:
        """The labelled volumes, oversampled so that at least half of the patches are drawn from them."""
        volumes = self.plan.config.volumes
        voxels = sum(part_of(volume).voxels * volume.oversampling for volume in volumes)
        more = max(1.0, round(self.plan.box.voxels / voxels, 3)) if voxels else 1.0
        changes = [{"oversampling": volume.oversampling * more} if more > 1 else {} for volume in volumes]
        return [volume.model_copy(update=change) for volume, change in zip(volumes, changes, strict=True)]


def seeds_of(rule: AnyRule) -> dict[str, Any]:
    """Seeds off the contours, if the rule reads these."""
    return SEEDS if any(isinstance(target, Contours) for target in rule.targets) else {}


def part_of(volume: LabelledVolume) -> BoundingBox:
    """The voxels of a labelled volume that a training uses."""
    bounds = open_volume(volume.image).spec.bounds
    return BoundingBox(volume.start or bounds.start, volume.stop or bounds.stop)


def absolute_folder(output: str | None, config: TrainConfig) -> Path:
    """The output folder: as it was given, or beside that of the training."""
    return Path(absolute(output or f"{config.output.rstrip('/')}-self-trained", "."))
