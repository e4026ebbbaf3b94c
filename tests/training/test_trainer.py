import json
import logging
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.config import load_config, parse_config
from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import BoundingBox
from pipeline.models.gamma_net_3d import SIZES
from pipeline.models.spec import ModelCard, load_card, load_model
from pipeline.training.config import Augmentation, TrainConfig
from pipeline.training.sampler import open_source
from pipeline.training.trainer import (
    FINAL_RATE,
    VALIDATION_PATCHES,
    Record,
    Trainer,
    arguments_of,
    learning_rate,
    train,
    validation_boxes,
)
from tests.training.volumes import OFF, cubes, store

MINI = {
    "widths": [4, 6],
    "horizontal": [[3, 3, 3], [1, 3, 3]],
    "pools": [[1, 2, 2]],
    "stride": [2, 2, 2],
    "steps": 2,
}


def settings(output, **changes):
    """A training of six steps on bright cubes."""
    volume = store("cubes", *cubes((24, 32, 32)))
    held_back = BoundingBox((16, 0, 0), (24, 32, 32))
    values = {
        "output": str(output),
        "name": "mini",
        "volumes": [volume.model_copy(update={"start": (0, 0, 0), "stop": (16, 32, 32)})],
        "validation": volume.model_copy(update={"start": held_back.start, "stop": held_back.stop}),
        "arguments": MINI,
        "patch_shape": (8, 16, 16),
        "overlap": (2, 4, 4),
        "steps": 6,
        "warmup_steps": 2,
        "validate_every": 3,
        "training_data": "cubes, z < 16",
        "licence": "CC0-1.0",
    }
    return TrainConfig.model_validate(values | changes, strict=False)


class Killed(Exception):  # noqa: N818  (it stands for a signal)
    """What a test raises in the middle of a training."""


def train_killed_after(config, step):
    """Train until a step is done, and die before anything else is."""

    def die(done, _total):
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        train(config, on_progress=die)


def checkpoint(folder):
    return load_file(folder / "checkpoint.safetensors")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_and_resumed_training_gives_the_same_bits(tmp_path, precision):
    """Would make a resumed training another one: weights, running mean, optimiser, log and card are compared."""
    whole, parts = (settings(tmp_path / name, precision=precision) for name in ("whole", "parts"))
    train(whole)
    for step in (2, 3, 5):  # before the first checkpoint, before it is written, and after it
        train_killed_after(parts, step)
    result = train(parts)
    assert result.steps == 6
    expected, found = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert expected.keys() == found.keys()
    assert {name.split(".")[0] for name in found} == {"network", "mean", "optimiser"}
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    for name in ("log.jsonl", "card.yaml", "weights.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_a_new_trainer_goes_on_where_the_other_was(tmp_path):
    """Would begin anew, or with a fresh optimiser, after an interruption."""
    config = settings(tmp_path)
    first = Trainer(config)
    assert not first.restore()
    for _ in range(3):
        first.step()
    first.validate()
    first.save()
    second = Trainer(config)
    assert second.restore()
    assert (second.done, second.records) == (3, first.records)
    assert second.step() == first.step()


def test_a_finished_training_is_not_done_again(tmp_path):
    """Would train on, or write another card, when a finished training is asked for again."""
    config = settings(tmp_path)
    first = train(config)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    seen = []
    again = train(config, on_progress=lambda done, total: seen.append(done))
    assert (str(again), again.best) == (str(first), first.best)
    assert not seen
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-4}, {"steps": 7}, {"seed": 1}, {"arguments": {**MINI, "steps": 3}}]
)
def test_other_settings_in_the_same_folder_are_refused(tmp_path, change):
    """Would mix two trainings into one model."""
    train_killed_after(settings(tmp_path), 4)
    with pytest.raises(ModelError, match=r"other settings; name another output"):
        train(settings(tmp_path, **change))


def test_settings_that_change_no_weight_may_change(tmp_path):
    """Would refuse to go on with another title or licence, or with other pauses between validations."""
    train_killed_after(settings(tmp_path), 4)
    changed = settings(tmp_path, name="renamed", licence="MIT", validate_every=2, patience=50)
    assert train(changed).steps == 6
    assert [r["step"] for r in log(tmp_path)] == [3, 4, 6]


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_damaged_checkpoint_is_named(tmp_path):
    """Would begin anew in silence, or die with an error of the library."""
    train_killed_after(settings(tmp_path), 4)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ModelError, match=r"checkpoint.safetensors is damaged.*delete it"):
        train(settings(tmp_path))


def test_the_folder_holds_model_log_and_curve(tmp_path):
    """Would leave out what the documentation promises, or leave partial files behind."""
    result = train(settings(tmp_path))
    names = ["card.yaml", "checkpoint.safetensors", "curve.png", "log.jsonl", "weights.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    records = log(tmp_path)
    assert [record["step"] for record in records] == [3, 6]
    assert result.best in [Record(**record) for record in records]
    assert result.best.score == max(record["score"] for record in records)


def test_the_card_says_what_was_trained_and_its_weights_are_the_running_mean(tmp_path):
    """Would ship weights of another moment than the score of the card, or a card that inference cannot use."""
    trainer = Trainer(settings(tmp_path))
    for _ in range(3):
        trainer.step()
    best = trainer.validate()
    trainer.save()
    card = load_card(tmp_path)
    assert (card.name, card.architecture, card.training_data, card.licence) == (
        "mini",
        "gamma_net_3d",
        "cubes, z < 16",
        "CC0-1.0",
    )
    assert (card.patch_shape, card.overlap, card.resolution_nm) == ((8, 16, 16), (2, 4, 4), (8.0, 8.0, 8.0))
    assert card.arguments == {**MINI, "out_channels": 12}
    assert card.scores["validation cut-edge F1"] == round(best.score, 4)
    loaded = load_model(card).module.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in trainer.mean.state_dict().items())
    assert not all(torch.equal(tensor, loaded[name]) for name, tensor in trainer.network.state_dict().items())


def test_a_worse_validation_leaves_the_model_as_it_was(tmp_path):
    """Would ship the last weights instead of the best."""
    trainer = Trainer(settings(tmp_path))
    trainer.step()
    trainer.records = [Record(0, 1.0, 1.0, score=2.0)]  # better than any
    trainer.validate()
    trainer.save()
    assert not (tmp_path / "card.yaml").exists()
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_the_running_mean_follows(tmp_path):
    """Would validate and ship other weights: mean <- d mean + (1 - d) now, d = min(decay, (1 + n) / (10 + n))."""
    trainer = Trainer(settings(tmp_path, ema_decay=0.15))
    name = "readout.weight"
    for decay in (0.1, 0.15):
        before = trainer.mean.state_dict()[name].clone()
        trainer.step()
        now = trainer.network.state_dict()[name]
        torch.testing.assert_close(trainer.mean.state_dict()[name], decay * before + (1 - decay) * now)


def test_an_update_without_a_finite_gradient_changes_nothing(tmp_path, caplog):
    """Would lose a training of days to one overflow."""
    trainer = Trainer(settings(tmp_path))
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    handle = trainer.network.get_parameter("readout.bias").register_hook(lambda gradient: gradient * float("nan"))
    with caplog.at_level(logging.WARNING, "petaseg.training"):
        trainer.step()
    assert "skipped" in caplog.text
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())
    handle.remove()
    trainer.step()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())


def test_a_network_learns_bright_cubes(tmp_path):
    """Would train nothing, or the wrong way: on an easy problem, losses fall and most walls are found."""
    config = settings(tmp_path, steps=60, augmentation=OFF, learning_rate=1e-2, warmup_steps=5, ema_decay=0.5)
    trainer = Trainer(config)
    trainer.losses = [0.0]
    untrained = trainer.validate()
    losses = [trainer.step() for _ in range(config.steps)]
    record = trainer.validate()
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert record.loss == pytest.approx(np.mean(losses))
    assert record.validation_loss < 0.5 * untrained.validation_loss
    assert untrained.score < 0.5 < 0.6 < record.score


def test_patience_counts_validations_without_a_better_score(tmp_path):
    """Would stop too early, or never."""
    trainer = Trainer(settings(tmp_path, patience=2))
    scores = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.6, 6: 0.1, 7: 0.2}
    stopped = []
    for step, score in scores.items():
        trainer.records.append(Record(step, 1.0, 1.0, score))
        stopped.append(trainer.finished)
    assert stopped == [False] * 6 + [True]


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path):
    """Would train with another rate than the documentation says."""
    config = settings(tmp_path, steps=1000, warmup_steps=10, learning_rate=0.4)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[4] == pytest.approx(0.2, rel=1e-3)
    assert rates[500] == pytest.approx(0.4 * (FINAL_RATE + 1) / 2)
    assert rates[-1] == pytest.approx(0.4 * FINAL_RATE, rel=1e-3)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert learning_rate(0, settings(tmp_path, warmup_steps=0, learning_rate=0.4)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("start", "stop", "patch", "shape", "count"),
    [
        ((0, 0, 0), (24, 32, 32), (8, 16, 16), (8, 16, 16), 12),
        ((0, 0, 0), (80, 96, 96), (8, 16, 16), (8, 16, 16), VALIDATION_PATCHES),
        ((-9, 5, 7), (7, 80, 100), (64, 64, 64), (16, 64, 64), 1),
        ((0, 0, 0), (5, 40, 64), (8, 64, 64), (5, 32, 64), 1),
    ],
)
def test_validation_patches_lie_inside_and_do_not_overlap(tmp_path, start, stop, patch, shape, count):
    """Would score on voxels that were trained on, or on some of them twice."""
    box = BoundingBox(start, stop)
    config = settings(tmp_path, patch_shape=patch)
    image = np.zeros(box.shape, np.uint8)
    boxes = validation_boxes(open_source(store("lattice", image, image, offset=start)), config)
    assert [b.shape for b in boxes] == [shape] * count
    assert all(box.contains(b) for b in boxes)
    assert all(a.intersect(b).empty for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"patch_shape": (32, 16, 16)}, ConfigError, "patch_shape is"),
        ({"patch_shape": (8, 16, 18)}, ConfigError, r"multiple of \[2, 4, 4\]"),
        ({"patch_shape": (5, 16, 16)}, ConfigError, r"multiple of \[2, 4, 4\]"),
        ({"arguments": "huge"}, ModelError, "one of tiny, base"),
        ({"arguments": {**MINI, "depth": 3}}, ModelError, "depth"),
        ({"architecture": "unet"}, ModelError, "there are gamma_net_3d"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path, change, error, message):
    """Would fail after minutes of training, or with an error of the library."""
    with pytest.raises(error, match=message):
        Trainer(settings(tmp_path / "never", **change))
    assert not (tmp_path / "never").exists()


def test_a_validation_part_that_the_network_cannot_take_is_refused_before_the_first_step(tmp_path):
    """Would lose all steps up to the first validation."""
    thin = store("thin-validation", *cubes((3, 32, 32)))
    with pytest.raises(ConfigError, match=r"validation offers patches of \[3, 16, 16\]"):
        Trainer(settings(tmp_path, validation=thin))


def test_outputs_follow_the_offsets(tmp_path):
    """Would give a network more outputs than there are affinities to learn."""
    config = settings(tmp_path, offsets=[(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
    assert arguments_of(config)["out_channels"] == 3
    assert arguments_of(settings(tmp_path, arguments="tiny"))["out_channels"] == 12


def test_the_page_on_models_names_every_key_and_its_training_file_is_valid(request):
    """Would let the documentation rot: keys that it does not know, or an example that is refused."""
    page = (request.config.rootpath / "docs" / "models.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    config = parse_config(yaml.safe_load(example), TrainConfig)
    assert config.arguments in SIZES
    for model in (TrainConfig, Augmentation, ModelCard):
        for key in model.model_fields:
            assert f"`{key}`" in page or f"`{key}: " in page, f"{model.__name__}.{key}"


@pytest.mark.parametrize("name", ["train_synthetic.yaml", "train_fib25.yaml"])
def test_examples_are_valid(name, request):
    """Would ship an example that its first user cannot run."""
    config = load_config(request.config.rootpath / "examples" / name, (), TrainConfig)
    assert config.training_data
    assert config.licence
    assert "out_channels" in arguments_of(config)


def test_a_training_may_start_from_a_model(tmp_path):
    """Would begin with fresh weights, or go on from a checkpoint that began elsewhere."""
    first = train(settings(tmp_path / "first"))
    card = load_card(first.folder / "card.yaml")
    further = Trainer(settings(tmp_path / "further", start_from=str(first.folder / "card.yaml")))
    for name, tensor in load_model(card).module.state_dict().items():
        assert torch.equal(further.network.state_dict()[name], tensor), name
    assert further.identity() != Trainer(settings(tmp_path / "other")).identity()
    before = [parameter.clone() for parameter in further.network.parameters()]
    further.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, further.network.parameters(), strict=True))


def test_a_model_of_another_shape_is_no_start(tmp_path):
    first = train(settings(tmp_path / "first"))
    wide = {**MINI, "widths": [8, 6]}
    with pytest.raises(ModelError, match=r"start_from is .*take its architecture and arguments"):
        Trainer(settings(tmp_path / "other", start_from=str(first.folder / "card.yaml"), arguments=wide))
