import json
import logging
import re
import subprocess
import sys
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.config import load_config, parse_config
from pipeline.errors import ConfigError, ModelError, StorageError
from pipeline.geometry import BoundingBox
from pipeline.models.gamma_net_3d import SIZES
from pipeline.models.spec import ModelCard, OtherChannels, build, load_card, load_model
from pipeline.training.callbacks import CHECKPOINT, weights_of
from pipeline.training.config import Augmentation, LabelledVolume, TrainConfig
from pipeline.training.data import VALIDATION_PATCHES, validation_boxes
from pipeline.training.learning import check_rule
from pipeline.training.module import Record, TrainingModule, arguments_of
from pipeline.training.rule_settings import AnyPenalty, AnyRule
from pipeline.training.sampler import open_source
from pipeline.training.sampling import Sampling
from pipeline.training.schedules import FINAL_RATE, halvings, share_of_rate
from pipeline.training.trainer import identity, make_trainer, quiet_lightning, train
from tests.runs import write_volume
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
    """All tensors of a checkpoint, by path."""
    return dict(tensors(weights_of(folder / CHECKPOINT)))


def tensors(content, path=""):
    if isinstance(content, torch.Tensor):
        yield path, content
    elif isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from tensors(value, f"{path}/{key}")


def fitted(config, *callbacks):
    """A module after its training, which ``callbacks`` have watched; nothing is written by the trainer itself."""
    torch.set_num_threads(1)
    module = TrainingModule(config)
    with quiet_lightning():
        make_trainer(config, list(callbacks)).fit(module)
    return module


class Watch(Callback):
    """Calls a function of (module, steps done) before the first step and after each."""

    def __init__(self, look):
        self.look = look

    def on_train_start(self, trainer, pl_module):
        self.look(pl_module, 0)

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.look(pl_module, trainer.global_step)


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
    assert {name.split("/")[1] for name in found} == {"state_dict", "optimizer_states"}
    assert {name.split("/")[2].split(".")[0] for name in found if "state_dict" in name} == {"network", "mean"}
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    for name in ("log.jsonl", "card.yaml", "weights.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


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
    ("change", "said"),
    [
        ({"learning_rate": 1e-4}, "learning_rate: 0.002 there, 0.0001 here"),
        ({"steps": 7, "name": "new"}, "steps: 6 there, 7 here"),
        ({"augmentation": OFF.model_copy(update={"blur": 0.5})}, "augmentation.blur: 0.3 there, 0.5 here"),
        ({"arguments": {**MINI, "steps": 3}}, "arguments.steps: 2 there, 3 here"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path, change, said):
    """Would mix two trainings into one model, or leave a user to search for what differs."""
    train_killed_after(settings(tmp_path), 4)
    with pytest.raises(ModelError, match=r"other settings \(.*\); name another output") as caught:
        train(settings(tmp_path, **change))
    assert said in str(caught.value)
    assert "name:" not in str(caught.value)


def test_a_schedule_that_watches_the_score_does_not_go_on_with_other_validations(tmp_path):
    """Would halve the learning rate at other steps than a training that was not interrupted."""
    other = {"validate_every": 2}
    assert identity(settings(tmp_path)) == identity(settings(tmp_path, **other))
    watching = {"schedule": "plateau"}
    assert identity(settings(tmp_path, **watching)) != identity(settings(tmp_path, **watching, **other))


def test_settings_that_change_no_weight_may_change(tmp_path):
    """Would refuse to go on with another title or licence, or with other pauses between validations."""
    train_killed_after(settings(tmp_path), 4)
    changed = settings(tmp_path, name="renamed", licence="MIT", validate_every=2, patience=50)
    assert train(changed).steps == 6
    assert [r["step"] for r in log(tmp_path)] == [3, 4, 6]


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def flipped(data):
    """The same with a few other bits in the middle, where weights are."""
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 255 for byte in data[middle : middle + 8]) + data[middle + 8 :]


@pytest.mark.parametrize("damage", [lambda data: data[:-70], flipped, lambda _: b"", lambda _: b"hello"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    """Would begin anew in silence, go on from other weights, or die with an error of the library."""
    train_killed_after(settings(tmp_path), 4)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"checkpoint.ckpt is damaged.*delete it"):
        train(settings(tmp_path))


def test_the_folder_holds_model_log_and_curve(tmp_path):
    """Would leave out what the documentation promises, or leave partial files behind."""
    result = train(settings(tmp_path))
    names = ["card.yaml", "checkpoint.ckpt", "curve.png", "log.jsonl", "pictures", "tensorboard", "weights.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    pictures = [tmp_path / "curve.png", *sorted((tmp_path / "pictures").iterdir())]
    assert [path.name for path in pictures[1:]] == ["step-000003.png", "step-000006.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    records = log(tmp_path)
    assert [record["step"] for record in records] == [3, 6]
    assert result.best in [Record(**record) for record in records]
    assert result.best.score == max(record["score"] for record in records)


def test_tensorboard_has_the_same_scores(tmp_path):
    train(settings(tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for tag, key in (("score", "score"), ("validation_loss", "validation_loss"), ("training_loss", "loss")):
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        expected = [(record["step"] - 1, pytest.approx(record[key], rel=1e-6)) for record in log(tmp_path)]
        assert shown == expected, tag


def test_the_card_says_what_was_trained_and_its_weights_are_the_running_mean(tmp_path):
    """Would ship weights of another moment than the score of the card, or a card that inference cannot use."""
    best = train(settings(tmp_path, steps=3)).best
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
    loaded, stored = load_model(card).module.state_dict(), checkpoint(tmp_path)
    assert all(torch.equal(tensor, stored[f"/state_dict/mean.{name}"]) for name, tensor in loaded.items())
    assert not all(torch.equal(tensor, stored[f"/state_dict/network.{name}"]) for name, tensor in loaded.items())


def test_a_worse_validation_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    """Would ship the last weights instead of the best."""
    scores = iter([0.9, 0.1])
    monkeypatch.setattr("pipeline.training.scores.cut_f1", lambda *_: current[0])
    current = [next(scores)]

    def look(done, _total):
        if done == 4:
            current[0] = next(scores)

    result = train(settings(tmp_path), on_progress=look)
    assert [record["score"] for record in log(tmp_path)] == [pytest.approx(0.9), pytest.approx(0.1)]
    assert result.best.step == 3
    stored, loaded = checkpoint(tmp_path), load_model(load_card(tmp_path)).module.state_dict()
    assert load_card(tmp_path).scores["validation cut-edge F1"] == 0.9
    assert not all(torch.equal(tensor, stored[f"/state_dict/mean.{name}"]) for name, tensor in loaded.items())


def test_the_running_mean_follows(tmp_path):
    """Would validate and ship other weights: mean <- d mean + (1 - d) now, d = min(decay, (1 + n) / (10 + n))."""
    seen = []

    def look(module, _done):  # the mean follows right after this look
        seen.append([net.state_dict()["readout.weight"].clone() for net in (module.mean, module.network)])

    fitted(settings(tmp_path, ema_decay=0.15, steps=3), Watch(look))
    first, _ = seen[0]
    (_, one), (mean_of_one, two), (mean_of_two, _) = seen[1:]
    torch.testing.assert_close(mean_of_one, 0.1 * first + 0.9 * one)
    torch.testing.assert_close(mean_of_two, 0.15 * mean_of_one + 0.85 * two)


def test_an_update_without_a_finite_gradient_changes_nothing(tmp_path, caplog):
    """Would lose a training of days to one overflow."""
    seen, handles = [], []

    def look(module, done):
        seen.append({name: tensor.clone() for name, tensor in module.network.state_dict().items()})
        if done == 0:
            bias = module.network.get_parameter("readout.bias")
            handles.append(bias.register_hook(lambda gradient: gradient * float("nan")))
        elif done == 1:
            handles.pop().remove()

    with caplog.at_level(logging.WARNING, "petaseg.training"):
        fitted(settings(tmp_path, steps=2), Watch(look))
    assert "skipped" in caplog.text
    assert all(torch.equal(tensor, seen[0][name]) for name, tensor in seen[1].items())
    assert any(not torch.equal(tensor, seen[0][name]) for name, tensor in seen[2].items())


def test_a_network_learns_bright_cubes(tmp_path):
    """Would train nothing, or the wrong way: on an easy problem, losses fall and most walls are found."""
    easy = {"augmentation": OFF, "learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.5, "pictures": False}
    train(settings(tmp_path, steps=60, validate_every=2, **easy))
    records = log(tmp_path)
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[-1]["validation_loss"] < 0.5 * records[0]["validation_loss"]
    assert records[0]["score"] < 0.5 < 0.6 < records[-1]["score"]


def test_patience_counts_validations_without_a_better_score(tmp_path):
    """Would stop too early, or never."""
    module = TrainingModule(settings(tmp_path))
    scores = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.6, 6: 0.1, 7: 0.2}
    stale = []
    for step, score in scores.items():
        module.records.append(Record(step, 1.0, 1.0, score))
        stale.append(module.stale)
    assert stale == [0, 1, 0, 1, 0, 1, 2]


def test_a_training_that_gets_no_better_ends_early_and_stays_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.scores.cut_f1", lambda *_: 0.5 - next(worse))
    worse = iter(range(100))
    config = settings(tmp_path, steps=30, validate_every=2, patience=2)
    assert train(config).steps == 6
    assert train(config).steps == 6


def test_a_plateau_halves_the_learning_rate(tmp_path, monkeypatch):
    """Would train on with a rate that has nothing left to give."""
    monkeypatch.setattr("pipeline.training.scores.cut_f1", lambda *_: 0.5)
    rates = []
    schedule = {"schedule": "plateau", "plateau_validations": 2, "warmup_steps": 0, "learning_rate": 0.008}
    config = settings(tmp_path, steps=10, validate_every=1, optimiser="sgd", **schedule)
    fitted(config, Watch(lambda module, _: rates.append(module.optimizers().param_groups[0]["lr"])))
    assert rates[0] == pytest.approx(0.008)
    assert rates[-1] < 0.002 * 1.01
    assert all(a >= b for a, b in pairwise(rates))


@pytest.mark.parametrize(
    ("scores", "count"), [([], 0), ([1, 1], 0), ([1, 1, 1], 1), ([1, 2, 1, 3, 1, 1], 1), ([3, 1, 1, 1, 1, 4, 1, 1], 3)]
)
def test_halvings_count_rows_without_a_better_score(scores, count):
    assert halvings(scores, 2) == count


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path):
    """Would train with another rate than the documentation says."""
    config = settings(tmp_path, steps=1000, warmup_steps=10, learning_rate=0.4)
    rates = [0.4 * share_of_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[4] == pytest.approx(0.2, rel=1e-3)
    assert rates[500] == pytest.approx(0.4 * (FINAL_RATE + 1) / 2)
    assert rates[-1] == pytest.approx(0.4 * FINAL_RATE, rel=1e-3)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert share_of_rate(0, settings(tmp_path, warmup_steps=0)) == pytest.approx(1)


def test_the_polynomial_is_that_of_the_canvas_network(tmp_path):
    """lr(0) = 1e-3, lr(15000) = 5.3635e-4, lr(30000) = 1e-6."""
    config = settings(tmp_path, steps=30000, warmup_steps=0, schedule="polynomial", learning_rate=1e-3)
    rates = [1e-3 * share_of_rate(step, config) for step in (0, 15000, 30000)]
    assert rates == [pytest.approx(1e-3), pytest.approx(5.3635e-4, rel=1e-5), pytest.approx(1e-6)]


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "nadam", "sgd"])
def test_every_optimiser_moves_the_weights_and_resumes(tmp_path, optimiser):
    config = settings(tmp_path, optimiser=optimiser, schedule="constant", pictures=False)
    train_killed_after(config, 4)
    assert train(config).steps == 6


def test_two_processes_train_one_network(tmp_path):
    """Would train two networks, or both on the same patches."""
    file = tmp_path / "train.yaml"
    config = settings(tmp_path / "two", devices=2, device="cpu", precision="float32").model_dump(mode="json")
    config["volumes"] = [stored_cubes(tmp_path, [0, 0, 0], [16, 32, 32])]
    config["validation"] = stored_cubes(tmp_path, [16, 0, 0], [24, 32, 32])
    file.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "workflows.cli", "train", str(file)], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert "6 steps" in done.stdout
    assert [record["step"] for record in log(tmp_path / "two")] == [3, 6]
    alone = parse_config(config | {"output": str(tmp_path / "one"), "devices": 1, "batch_size": 2}, TrainConfig)
    train(alone)
    both, one = (log(tmp_path / name)[0]["validation_loss"] for name in ("two", "one"))
    assert both == pytest.approx(one, rel=0.05), "the same patches, shared out: nearly the same network"


def stored_cubes(folder, start, stop):
    """A part of bright cubes on disk, where another process finds them."""
    names = {}
    for name, array in zip(("image", "labels"), cubes((24, 32, 32)), strict=True):
        names[name] = str(folder / f"{name}-{start[0]}.zarr")
        write_volume(folder / f"{name}-{start[0]}.zarr", array)
    return {**names, "start": start, "stop": stop}


@pytest.mark.parametrize("loaders", [1, 2])
def test_loaders_change_nothing(tmp_path, loaders):
    """Would give another network with another number of processes that read."""
    train(settings(tmp_path / "none", pictures=False))
    train(settings(tmp_path / "some", pictures=False, loaders=loaders))
    assert (tmp_path / "none" / "weights.safetensors").read_bytes() == (
        tmp_path / "some" / "weights.safetensors"
    ).read_bytes()


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
        ({"architecture": "identity", "arguments": {}}, ConfigError, "no weights to train"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path, change, error, message):
    """Would fail after minutes of training, or with an error of the library."""
    with pytest.raises(error, match=message):
        train(settings(tmp_path / "never", **change))
    assert not (tmp_path / "never").exists()


def test_what_cannot_be_written_is_said_with_what_to_do(tmp_path):
    """Would end hours of training with an error of the system and no word about what is kept."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "pictures").write_text("in the way")
    with pytest.raises(StorageError, match=r"full/pictures could not be .*repeat the command: it goes on"):
        train(settings(tmp_path / "full"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"output is .*file; no folder can be made there"):
        train(settings(tmp_path / "file"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlap": [8, 4, 4]}, r"overlap is \[8, 4, 4\]; it must be .* less than the patch \[8, 16, 16\]"),
        ({"overlap": [-1, 4, 4]}, "must be at least 0"),
        ({"offsets": []}, "at least 1"),
        ({"offsets": [[-1, 0, 0], [0, 0, 0]]}, r"offsets.1: \[0, 0, 0\] leads from a voxel to itself"),
        ({"offsets": [[-8, 0, 0], [0, 40, 0]]}, "none of them stays inside a patch"),
        ({"patch_shape": [8, 16]}, r"patch_shape is \[8, 16\]; number 3 of it is missing"),
    ],
)
def test_settings_that_would_fail_at_the_first_validation_are_refused_at_once(tmp_path, changes, message):
    """Would train until the first validation, and then refuse to write the card; or learn nothing at all."""
    data = settings(tmp_path).model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        parse_config(data | changes, TrainConfig)


def test_patches_of_a_run_share_a_quarter_unless_the_file_says_otherwise(tmp_path):
    """Would ask for an overlap that is larger than a thin patch."""
    assert settings(tmp_path).card_overlap == (2, 4, 4)
    assert settings(tmp_path, overlap=None).card_overlap == (2, 4, 4)
    assert settings(tmp_path, overlap=None, patch_shape=(1, 16, 20)).card_overlap == (0, 4, 5)


def test_a_validation_part_that_the_network_cannot_take_is_refused_before_the_first_step(tmp_path):
    """Would lose all steps up to the first validation."""
    thin = store("thin-validation", *cubes((3, 32, 32)))
    with pytest.raises(ConfigError, match=r"validation offers patches of \[3, 16, 16\]"):
        TrainingModule(settings(tmp_path, validation=thin))


def test_outputs_follow_the_offsets(tmp_path):
    """Would give a network more outputs than there are affinities to learn."""
    config = settings(tmp_path, offsets=[(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
    assert arguments_of(config)["out_channels"] == 3
    assert arguments_of(settings(tmp_path, arguments="tiny"))["out_channels"] == 12


def keys_of(*models):
    """All keys of these tables."""
    return {f"{model.__name__}.{key}": key for model in models for key in model.model_fields}


def test_the_pages_name_every_key(request):
    """Would let the documentation rot: settings that it does not know."""
    tables = [TrainConfig, LabelledVolume, Augmentation, Sampling]
    tables += [*members(AnyRule), *members(AnyPenalty)]
    wanted = {"training.md": keys_of(*tables), "models.md": keys_of(ModelCard, OtherChannels)}
    for name, keys in wanted.items():
        page = (request.config.rootpath / "docs" / name).read_text()
        for field, key in keys.items():
            assert any(text in page for text in (f"`{key}`", f"`{key}: ", f"{key}: ")), f"{field} in {name}"


def members(union):
    """The classes of an annotated union."""
    return get_args(get_args(union)[0])


def test_every_example_of_the_page_on_training_is_valid(request):
    """Would show a user what is refused: the first is whole, the others are parts of one, and one is of a card."""
    page = (request.config.rootpath / "docs" / "training.md").read_text()
    first, *parts = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert parse_config(first, TrainConfig).arguments in SIZES
    assert len(parts) > 5
    for part in parts:
        if "other_channels" in part:
            assert [OtherChannels.model_validate(other) for other in part["other_channels"]]
            continue
        whole = {key: value for key, value in first.items() if not (key == "offsets" and "targets" in part)}
        config = parse_config(whole | part, TrainConfig)
        check_rule(
            build(config.architecture, arguments_of(config)), config.rule, config.architecture, config.patch_shape
        )


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
    config = settings(tmp_path / "further", start_from=str(first.folder / "card.yaml"))
    further = TrainingModule(config)
    for name, tensor in load_model(card).module.state_dict().items():
        assert torch.equal(further.network.state_dict()[name], tensor), name
    assert identity(config) != identity(settings(tmp_path / "other"))
    trained = fitted(config)
    before = load_model(card).module.state_dict()
    assert all(not torch.equal(before[name], tensor) for name, tensor in trained.network.named_parameters())


def test_a_model_of_another_shape_is_no_start(tmp_path):
    first = train(settings(tmp_path / "first"))
    wide = {**MINI, "widths": [8, 6]}
    with pytest.raises(ModelError, match=r"start_from is .*take its architecture and arguments"):
        TrainingModule(settings(tmp_path / "other", start_from=str(first.folder / "card.yaml"), arguments=wide))
