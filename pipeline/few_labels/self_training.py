"""Self-training: train, run on unlabelled tissue, keep what the network is sure of, and train on both.

    <output>/self-train.json              the settings of the self-training
    <output>/round-1/run.yaml             the run on the unlabelled image, into round-1/run
    <output>/round-1/sure.zarr            the mask of the sure voxels; sure.json, how many they are
    <output>/round-1/train.yaml           the training on labels and sure voxels, into round-1/model
    <output>/card.yaml, weights.safetensors, scores.json     the best model of all rounds

The first model is that of the user's own training file, in its own folder. Every round runs the model of the round
before it, and trains from the first model's weights. All files of a round are written before anything is computed; one
that is there already is used as it is, so that a user may change it. Each step goes on where it stopped, and a step
that is done is not done again, so the same command continues a self-training that was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.fingerprint import fingerprint
from pipeline.config.reading import load_config
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError, ModelError
from pipeline.evaluation.files import make_folder, whole_file
from pipeline.few_labels.sure import Progress, SureObjects, SureRule, write_sure_mask
from pipeline.formats import SELF_TRAINING
from pipeline.geometry import BoundingBox
from pipeline.models.spec import load_card, write_card
from pipeline.runs.run import Run
from pipeline.storage import absolute
from pipeline.training.callbacks import CHECKPOINT
from pipeline.training.config import LabelledVolume, TrainConfig
from pipeline.training.scores import score_name
from pipeline.training.target_kinds import Affinities, Contours, Foreground
from pipeline.training.trainer import identity
from pipeline.volumes import open_volume

RECORD = "self-train.json"
VALID = 0.05
"""Patches of which less than this share is in a mask are drawn again: sure voxels are few at first."""


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
    """Least |2 p - 1| of the probabilities p that are kept."""

    @property
    def rule(self) -> SureRule | SureObjects:
        """When a voxel is sure."""
        channels = self.config.channels
        affinities = next((target for target in channels if isinstance(target, Affinities)), None)
        if affinities is not None:
            return SureRule(self.sure, affinities)
        return SureObjects(self.sure, tuple(t for t in channels if isinstance(t, Foreground | Contours)))

    @property
    def segmentation(self) -> dict[str, Any]:
        """What a run makes of the predictions: neurons as it does by itself, or objects with seeds off contours."""
        rule = self.rule
        if isinstance(rule, SureRule):
            return {}
        contours = any(isinstance(target, Contours) for target in rule.targets)
        seeds = {"seed_threshold": 0.8, "seeds_within": {"contours": {"below": 0.3}}} if contours else {}
        return {"segmentation": {"kind": "objects", "head": "foreground", "threshold": 0.5, **seeds}}

    @property
    def result(self) -> str:
        """The name of the volume that a round trains on."""
        return "objects" if self.segmentation else "labels"

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


def part_of(volume: LabelledVolume) -> BoundingBox:
    """The voxels of a labelled volume that a training uses."""
    bounds = open_volume(volume.image).spec.bounds
    return BoundingBox(volume.start or bounds.start, volume.stop or bounds.stop)


@dataclass(frozen=True)
class Steps:
    """How the two commands are given that a self-training consists of; each continues what is begun."""

    train: Callable[[TrainConfig], object]
    """As ``petaseg train``: the model is complete when it returns."""
    run: Callable[[Path], Run]
    """As ``petaseg run``: the run of the file is finished when it returns."""
    say: Callable[[str], None]
    """Told of each step before it begins."""
    tell: Progress = lambda done, total: None
    """Told how many chunks of a mask are written."""


def self_train(plan: SelfTraining, steps: Steps) -> list[dict[str, Any]]:
    """Do every step that is not done, and store the best model; returns the lines of ``scores.json``.

    plan: checked. Raises ``ConfigError`` if the output folder holds another self-training.
    """
    write_files(plan)
    total = 1 + 3 * plan.rounds
    steps.say(f"step 1 of {total}: train the first model, {plan.config.output}")
    steps.train(plan.config)
    found = [model_line(plan, 0, Path(plan.config.output))]
    for number in range(1, plan.rounds + 1):
        one, first = plan.round(number), 3 * number - 1
        steps.say(f"step {first} of {total}: petaseg run {one.run_file}")
        run = steps.run(one.run_file)
        steps.say(f"step {first + 1} of {total}: keep what the network is sure of, {one.mask}")
        share = keep(one, run, steps.tell)
        steps.say(f"{share:.1%} of the voxels are sure; step {first + 2} of {total}: petaseg train {one.training_file}")
        config: TrainConfig = load_config(one.training_file, (), TrainConfig)
        steps.train(config)
        found.append({**model_line(plan, number, Path(config.output)), "sure": round(share, 4)})
    store(plan, found)
    return found


def write_files(plan: SelfTraining) -> None:
    """Write all files that are not there yet; ``ConfigError`` if the folder holds another self-training."""
    make_folder(plan.output, "--output")
    path = plan.output / RECORD
    refuse_other(plan, path)
    if not path.is_file():
        write_json(path, {**SELF_TRAINING.stamp, **plan.record})
    for number in range(1, plan.rounds + 1):
        one = plan.round(number)
        for file, settings, verb in (
            (one.run_file, one.run_settings(), "run"),
            (one.training_file, one.training_settings(), "train"),
        ):
            if not file.is_file():
                head = f"# Written by petaseg self-train; change it before its step begins.   petaseg {verb} {file}\n"
                with whole_file(file) as temporary:
                    temporary.write_text(head + dump_yaml(settings))


def refuse_other(plan: SelfTraining, path: Path) -> None:
    """``ConfigError`` if the folder holds a self-training with other settings, or of a newer petaseg."""
    written = read_record(path)
    if written is None:
        return
    other = [f"{key}: {written.get(key)} there, {value} here" for key, value in plan.record.items()
             if written.get(key) != value]  # fmt: skip
    if other:
        raise ConfigError(
            f"{path} belongs to a self-training with other settings ({'; '.join(other)}); name another --output, or "
            "give the command as it was given there"
        )


def read_record(path: Path) -> dict[str, Any] | None:
    """The settings of the self-training of a folder; ``None`` if there is none. ``ConfigError`` if it is damaged."""
    if not path.is_file():
        return None
    try:
        written: dict[str, Any] = json.loads(path.read_text())
        SELF_TRAINING.check(written, str(path), ConfigError)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); name another --output, or delete it") from None
    return written


def keep(one: Round, run: Run, tell: Progress) -> float:
    """Write the mask of a round unless it is there; returns the share of sure voxels.

    ``ConfigError`` if the run or the rule has changed since a training on the mask began, or if too little is sure.
    """
    record = one.folder / "sure.json"
    rule = one.plan.rule
    wanted = {"labels": run.stage(run.kind.result.name).fingerprint, "rule": fingerprint(*rule.targets, rule.sure)}
    known = json.loads(record.read_text()) if record.is_file() else {}
    if {key: known.get(key) for key in wanted} == wanted:
        return float(known["share"])
    if (one.trained / CHECKPOINT).exists():
        raise ConfigError(
            f"{one.run_file} and --sure {one.plan.sure:g} give other labels than those on which {one.trained} was "
            "trained; delete that folder to train again, or take the change back"
        )
    share = write_sure_mask(run, str(one.mask), rule, tell)
    if share < VALID:
        raise ConfigError(
            f"--sure is {one.plan.sure}, and {share:.1%} of the voxels of {one.plan.unlabelled} are as sure; a "
            f"training needs {VALID:.0%}: choose less (the run is kept), or train the first model longer"
        )
    write_json(record, {**SELF_TRAINING.stamp, **wanted, "share": share})
    return share


def model_line(plan: SelfTraining, number: int, folder: Path) -> dict[str, Any]:
    """What the card of a model says about it on the validation part."""
    card, name = load_card(folder), plan.score
    if name not in card.scores:
        raise ModelError(
            f"{folder}/card.yaml has no {name!r}, by which models are compared: leave the targets in the training file "
            "as they are, and train it again"
        )
    line = {"round": number, "model": str(folder), name: card.scores[name], "threshold": card.threshold}
    voi = card.scores.get("validation VOI")
    return line if voi is None else {**line, "validation VOI": voi}


def best_of(plan: SelfTraining, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of the best score, of several the last."""
    return max(found, key=lambda line: (line[plan.score], line["round"]))


def store(plan: SelfTraining, found: list[dict[str, Any]]) -> None:
    """Store the best model with the scores of all."""
    best = best_of(plan, found)
    source = Path(best["model"])
    card = load_card(source)
    assert card.weights is not None, "it was trained"
    with whole_file(plan.output / card.weights) as temporary:
        temporary.write_bytes((source / card.weights).read_bytes())
    before = {
        f"{plan.score} before self-training": found[0][plan.score],
        "rounds of self-training": float(best["round"]),
    }
    write_card(plan.output, card.model_copy(update={"scores": {**card.scores, **before}}))
    write_json(plan.output / "scores.json", {"best": best["round"], "rounds": found})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def absolute_folder(output: str | None, config: TrainConfig) -> Path:
    """The output folder: as it was given, or beside that of the training."""
    return Path(absolute(output or f"{config.output.rstrip('/')}-self-trained", "."))
