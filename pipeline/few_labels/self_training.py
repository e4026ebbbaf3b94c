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
from pipeline.few_labels.rounds import RECORD, VALID, Round, SelfTraining
from pipeline.few_labels.sure import AGREEMENT, PROBABILITY, Progress, write_sure_mask
from pipeline.formats import SELF_TRAINING
from pipeline.models.heads import WITH_EXTREMES
from pipeline.models.spec import load_card, write_card
from pipeline.runs.run import Run
from pipeline.stages.predict_heads import PredictHeads
from pipeline.training.callbacks import CHECKPOINT
from pipeline.training.config import TrainConfig


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
    return {"sure_by": PROBABILITY, **written}  # older ones do not say it


def keep(one: Round, run: Run, tell: Progress) -> float:
    """Write the mask of a round unless it is there; returns the share of sure voxels.

    ``ConfigError`` if the run or the rule has changed since a training on the mask began, or if too little is sure.
    """
    record = one.folder / "sure.json"
    rule = one.plan.rule
    by = () if rule.by == PROBABILITY else (rule.by,)
    wanted = {"labels": run.stage(run.kind.result.name).fingerprint, "rule": fingerprint(*rule.targets, rule.sure, *by)}
    known = json.loads(record.read_text()) if record.is_file() else {}
    if {key: known.get(key) for key in wanted} == wanted:
        return float(known["share"])
    if (one.trained / CHECKPOINT).exists():
        raise ConfigError(
            f"{one.run_file} and --sure {one.plan.sure:g} give other labels than those on which {one.trained} was "
            "trained; delete that folder to train again, or take the change back"
        )
    require_extremes(one, run)
    share = write_sure_mask(run, str(one.mask), rule, tell)
    if share < VALID:
        raise ConfigError(
            f"--sure is {one.plan.sure} by {one.plan.sure_by}, and {share:.1%} of the voxels of {one.plan.unlabelled} "
            f"are as sure; a training needs {VALID:.0%}: choose less (the run is kept), or train the first model longer"
        )
    write_json(record, {**SELF_TRAINING.stamp, **wanted, "share": share})
    return share


def require_extremes(one: Round, run: Run) -> None:
    """``ConfigError`` if copies are to be compared, and the run does not store the least and the largest of them."""
    stage = run.stage(PredictHeads.name)
    assert isinstance(stage, PredictHeads)
    if one.plan.sure_by == AGREEMENT and stage.options.augmentation_rule != WITH_EXTREMES:
        raise ConfigError(
            f"inference.augmentation_rule is {stage.options.augmentation_rule} in {one.run_file}; --sure-by agreement "
            f"compares the copies, so it needs {WITH_EXTREMES}: set it back, and the heads are predicted again"
        )


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
