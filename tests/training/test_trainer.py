import json
import socket
import subprocess
import sys

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError, ModelError, StorageError
from pipeline.models.spec import load_card, load_model
from pipeline.training.callbacks import CHECKPOINT
from pipeline.training.config import TrainConfig
from pipeline.training.dry_run import dry_run, sound
from pipeline.training.module import Record
from pipeline.training.trainer import identity, train
from tests.training.trainings import MINI, checkpoint, log, settings, stored_cubes, train_killed_after
from tests.training.volumes import OFF


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_and_resumed_training_gives_the_same_bits(tmp_path, precision):
    """A training killed three times ends with the weights, optimiser, log and card of an uninterrupted one."""
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
    """A finished training that is started again trains no step and changes no file."""
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
    """A folder with the training of other settings is refused, and the error names the differences."""
    train_killed_after(settings(tmp_path), 4)
    with pytest.raises(ModelError, match=r"other settings \(.*\); name another output") as caught:
        train(settings(tmp_path, **change))
    assert said in str(caught.value)
    assert "name:" not in str(caught.value)


def test_a_schedule_that_watches_the_score_does_not_go_on_with_other_validations(tmp_path):
    """`validate_every` is part of a training's identity only if the schedule depends on the score."""
    other = {"validate_every": 2}
    assert identity(settings(tmp_path)) == identity(settings(tmp_path, **other))
    watching = {"schedule": "plateau"}
    assert identity(settings(tmp_path, **watching)) != identity(settings(tmp_path, **watching, **other))


def test_settings_that_change_no_weight_may_change(tmp_path):
    """A training resumes after its name, licence, validation interval or patience was changed."""
    train_killed_after(settings(tmp_path), 4)
    changed = settings(tmp_path, name="renamed", licence="MIT", validate_every=2, patience=50)
    assert train(changed).steps == 6
    assert [r["step"] for r in log(tmp_path)] == [3, 4, 6]


def flipped(data):
    """The same with a few other bits in the middle, where weights are."""
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 255 for byte in data[middle : middle + 8]) + data[middle + 8 :]


@pytest.mark.parametrize("damage", [lambda data: data[:-70], flipped, lambda _: b"", lambda _: b"hello"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    """A truncated, altered or empty checkpoint is refused with its name and with the advice to delete it."""
    train_killed_after(settings(tmp_path), 4)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"checkpoint.ckpt is damaged.*delete it"):
        train(settings(tmp_path))


def save_with(path, version):
    """Store a checkpoint with another version, or, for ``None``, without any, as before there were versions."""
    content = torch.load(path, weights_only=True)
    content.pop("version")
    torch.save(content if version is None else {**content, "version": version}, path)


def test_a_checkpoint_without_a_version_is_gone_on_with_and_a_newer_one_is_refused(tmp_path):
    """A checkpoint of a newer format is refused and kept; one from before there were versions is resumed."""
    train_killed_after(settings(tmp_path), 4)
    path = tmp_path / CHECKPOINT
    save_with(path, 2)
    before = path.read_bytes()
    with pytest.raises(ModelError, match=r"checkpoint\.ckpt was written by a newer petaseg \(format 2.*another output"):
        train(settings(tmp_path))
    assert path.read_bytes() == before
    save_with(path, None)
    assert train(settings(tmp_path)).steps == 6


@pytest.mark.parametrize("name", ["card.yaml", "weights.safetensors"])
def test_a_model_that_no_training_wrote_is_not_replaced(name, tmp_path):
    """Neither a card nor weights that lie in the output are overwritten, by a training, its check or its job."""
    (tmp_path / name).write_text("another model")
    for act in (train, dry_run, sound):
        with pytest.raises(ConfigError, match=rf"{name} is there, .* name another output, or move that model away"):
            act(settings(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "another model"


def test_a_training_that_starts_anew_replaces_its_own_model(tmp_path):
    """A model beside a training's log is its own, also if the checkpoint was deleted or is not written yet."""
    train(settings(tmp_path, steps=3))
    (tmp_path / CHECKPOINT).unlink()
    assert train(settings(tmp_path)).steps == 6


def test_the_folder_holds_model_log_and_curve(tmp_path):
    """A training leaves exactly the documented files, and the log has a record of each validation."""
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
    """The card has the settings and the best score, and its weights are the running mean."""
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
    """A validation with a lower score leaves the stored weights and the card unchanged."""
    scores = iter([0.9, 0.1])
    monkeypatch.setattr("pipeline.training.scores.f1", lambda *_: current[0])
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


def test_a_training_that_gets_no_better_ends_early_and_stays_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.scores.f1", lambda *_: 0.5 - next(worse))
    worse = iter(range(100))
    config = settings(tmp_path, steps=30, validate_every=2, patience=2)
    assert train(config).steps == 6
    assert train(config).steps == 6


def test_two_processes_train_one_network(tmp_path):
    """Two processes train nearly the network of one process with a batch of two."""
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


def test_two_nodes_train_one_network_on_parts_that_do_not_overlap(tmp_path):
    """Two nodes (here processes that torchrun starts by themselves) train one network, each on its own slab."""
    file = tmp_path / "train.yaml"
    config = settings(tmp_path / "two", nodes=2, device="cpu", precision="float32", sampling={"apart": True})
    table = config.model_dump(mode="json")
    table["volumes"] = [stored_cubes(tmp_path, [0, 0, 0], [16, 32, 32])]
    table["validation"] = stored_cubes(tmp_path, [16, 0, 0], [24, 32, 32])
    file.write_text(yaml.safe_dump(table))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    nodes = [
        subprocess.Popen(
            [*launch, "--node-rank", str(rank), "-m", "workflows.cli", "train", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [node.communicate(timeout=400)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "6 steps" in said[0]
    assert [record["step"] for record in log(tmp_path / "two")] == [3, 6]


def test_nodes_that_nobody_has_started_are_refused(tmp_path, monkeypatch):
    """A training on two nodes is refused, with the command, unless torchrun started as many processes."""
    with pytest.raises(ConfigError, match=r"not started by torchrun, and 2 processes .* `torchrun --nnodes 2"):
        train(settings(tmp_path, nodes=2))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="torchrun has started 3, and 2 processes must train together"):
        train(settings(tmp_path, nodes=2))


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
    """Settings that do not fit the network or the volume are refused before any folder is made."""
    with pytest.raises(error, match=message):
        train(settings(tmp_path / "never", **change))
    assert not (tmp_path / "never").exists()


def test_what_cannot_be_written_is_said_with_what_to_do(tmp_path):
    """A failed write is an error that names the path and says that the same command goes on from there."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "pictures").write_text("in the way")
    with pytest.raises(StorageError, match=r"full/pictures could not be .*repeat the command: it goes on"):
        train(settings(tmp_path / "full"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"output is .*file; no folder can be made there"):
        train(settings(tmp_path / "file"))


FOREGROUND = {"what": "foreground", "weights": "ratio", "losses": [{"kind": "bce"}, {"kind": "dice"}]}
CUT = {"what": "affinities", "offsets": [[0, 0, -1]]}


@pytest.mark.parametrize(
    ("settings_of_then", "identity_of_then"),
    [
        ({}, "f8864ad08742df1030cb9fb0a0666105"),
        (
            {
                **{"augmentation": "lee", "optimiser": "sgd"},
                "targets": [FOREGROUND, {"what": "instance_distance"}, CUT],
            },
            "b77536d13daf2700c65d9a2c49825639",
        ),
    ],
)
def test_trainings_of_earlier_versions_keep_their_identity(settings_of_then, identity_of_then):
    """A training goes on with a petaseg that has learned new settings: at their defaults they are in no identity."""
    config = parse_config({"output": "a", "name": "b", "synthetic": {}, **settings_of_then}, TrainConfig)
    assert identity(config) == identity_of_then


@pytest.mark.parametrize(
    "change",
    [
        {"optimiser": "sgd", "momentum": 0.9},
        {"groups": ({"match": "stem.*", "learning_rate": 1e-5},)},
        {"augmentation": {"flips": False}},
        {"targets": ({**CUT, "label_erosion": 1},)},
        {"targets": ({**CUT, "weights": "calibre", "losses": [{"kind": "bce"}]},)},
        {"targets": ({**CUT, "weights": {"kind": "calibre", "full_nm": 90}, "losses": [{"kind": "bce"}]},)},
        {"targets": ({**CUT, "losses": [{"kind": "weighted_dice", "share": 0.7}]},)},
        {"targets": ({"what": "instance_distance", "losses": [{"kind": "cross_entropy", "smoothing": 0.1}]},)},
        {"targets": ({"what": "classes", "count": 3},)},
    ],
)
def test_each_new_setting_changes_the_identity(change):
    """Each setting that changes weights changes the identity, so that a checkpoint of other settings is refused."""
    table = {"output": "a", "name": "b", "synthetic": {}}
    before = {**table, **({"optimiser": "sgd"} if "optimiser" in change else {})}
    before |= {"targets": [CUT]} if "targets" in change else {}
    parsed = [parse_config(json.loads(json.dumps(each)), TrainConfig) for each in (before, {**table, **change})]
    assert identity(parsed[0]) != identity(parsed[1])
