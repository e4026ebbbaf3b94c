"""Self-training: what is kept, in which order, after which interruptions, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.config.reading import load_config, parse_config
from pipeline.errors import ConfigError, PetasegError
from pipeline.few_labels.rounds import SelfTraining
from pipeline.few_labels.self_training import Steps, self_train
from pipeline.few_labels.sure import SureClasses, SureEdges, SureVoxels, taught, write_sure_mask
from pipeline.geometry import BoundingBox
from pipeline.models.spec import load_card
from pipeline.training.config import TrainConfig
from pipeline.training.sampler import Moved
from pipeline.training.target_classes import Classes
from pipeline.training.target_kinds import Affinities, Contours, Foreground, Membranes
from pipeline.volumes import open_volume
from tests.runs import affinity_run, run, write_volume
from tests.training.trainings import settings, stored_cubes
from tests.training.volumes import cubes
from workflows.app import app
from workflows.commands.self_train import steps_of

NM = (8.0, 8.0, 8.0)
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
RULE = SureEdges(0.9, Affinities(offsets=NEAREST))


def training(folder: Path, **changes) -> Path:
    """A training file of six updates on bright cubes, and an image of more of them."""
    data = settings(folder / "first", pictures=False, precision="float32").model_dump(mode="json", exclude_unset=True)
    data["volumes"] = [stored_cubes(folder, [0, 0, 0], [16, 32, 32])]
    data["validation"] = stored_cubes(folder, [16, 0, 0], [24, 32, 32])
    write_volume(folder / "more.zarr", cubes((16, 32, 32))[0])
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump({**data, **changes}))
    return file


def plan(folder: Path, file: Path, **changes) -> SelfTraining:
    config = load_config(file, (), TrainConfig)
    given = {"rounds": 1, "sure": 0.02, **changes}
    return SelfTraining(
        config, str(folder / "more.zarr"), folder / "self", BoundingBox((0, 0, 0), (16, 32, 32)), **given
    )


def invoke(*words):
    return CliRunner().invoke(app, ["self-train", *map(str, words)])


def test_the_command_trains_runs_keeps_and_trains_and_goes_on_where_it_stopped(tmp_path):
    """The output holds card, weights and the scores before and after; a second call computes nothing."""
    file = training(tmp_path)
    words = (file, "--unlabelled", tmp_path / "more.zarr", "--sure", "0.02", "--output", tmp_path / "self", "--quiet")
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    card, scores = load_card(tmp_path / "self"), json.loads((tmp_path / "self" / "scores.json").read_text())
    before, after = (line["validation cut-edge F1"] for line in scores["rounds"])
    assert card.scores["validation cut-edge F1"] == max(before, after)
    assert card.scores["validation cut-edge F1 before self-training"] == before
    assert 0 < scores["rounds"][1]["sure"] <= 1
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.ckpt")}
    assert len(again) == 2
    assert invoke(*words).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.ckpt")} == again


@pytest.mark.parametrize("targets", [None, [{"what": "foreground"}], [{"what": "membranes"}]])
def test_by_agreement_a_round_stores_the_extremes_of_its_copies(tmp_path, targets):
    """The run of a round flips the image, and kept voxels are those whose least and largest values are near."""
    learned = {"steps": 40, "validate_every": 40, "choose_threshold": False}
    file = training(tmp_path, **learned, **({} if targets is None else {"targets": targets}))
    words = (file, "--unlabelled", tmp_path / "more.zarr", "--sure", "0.5", "--output", tmp_path / "self", "--quiet")
    done = invoke(*words, "--sure-by", "agreement")
    assert done.exit_code == 0, (done.output, done.exception)
    run, name = tmp_path / "self" / "round-1" / "run", "affinities" if targets is None else targets[0]["what"]
    least, mean, largest = (open_volume(str(run / f"{name}{each}.zarr"))[...] for each in ("_least", "", "_largest"))
    assert (least <= mean).all()
    assert (mean <= largest).all()
    sure = open_volume(str(tmp_path / "self" / "round-1" / "sure.zarr"))[...] > 0
    inner = (slice(1, None),) * 3  # the first planes have no partner along some axis
    spread = (largest.astype(int) - least).reshape(-1, *sure.shape)[:, *inner]
    assert 0 < sure.mean() < 1
    assert spread[:, sure[inner]].max() <= 127
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.ckpt")}
    assert invoke(*words, "--sure-by", "agreement").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.ckpt")} == again
    other = invoke(*words)
    assert "sure_by: agreement there, probability here" in str(other.exception)


def test_a_run_without_extremes_is_refused_by_agreement(tmp_path):
    """Where a user takes the copies out of a round's run file, the command says what it needs."""
    given = plan(tmp_path, training(tmp_path), sure_by="agreement")
    stop = Steps(lambda config: (_ for _ in ()).throw(Killed), lambda file: None, lambda text: None)
    with pytest.raises(Killed):
        self_train(given, stop)
    file = given.round(1).run_file
    file.write_text(file.read_text().replace("mean+extremes", "mean"))
    with pytest.raises(ConfigError, match=r"augmentation_rule is mean in .*run.yaml; --sure-by agreement"):
        self_train(given, steps_of(quiet=True))


def test_a_self_training_of_before_is_one_by_probability(tmp_path):
    """A folder whose settings do not say what voxels are sure by goes on."""
    given = plan(tmp_path, training(tmp_path))
    self_train(given, steps_of(quiet=True))
    path = tmp_path / "self" / "self-train.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sure_by"}))
    assert len(self_train(given, steps_of(quiet=True))) == 2


def test_the_files_of_a_round_are_commands_of_their_own(tmp_path):
    """The training of a round is the user's, with the sure voxels beside the labels, from the first weights."""
    file = training(tmp_path, sampling={"objects": 2})
    one = plan(tmp_path, file).round(1)
    made = parse_config(one.training_settings(), TrainConfig)
    user = load_config(file, (), TrainConfig)
    assert made.start_from == str(tmp_path / "first" / "card.yaml")
    assert [volume.oversampling for volume in made.volumes] == [1, 1]
    assert made.volumes[1].mask == str(tmp_path / "self" / "round-1" / "sure.zarr")
    assert (made.sampling.objects, made.sampling.valid) == (2, 0.05)
    changed = {"output", "name", "volumes", "sampling", "start_from", "training_data"}
    assert made.model_dump(exclude=changed) == user.model_dump(exclude=changed)


def test_few_labels_are_drawn_as_often_as_many_sure_voxels(tmp_path):
    """A labelled part is oversampled until it has as many voxels as the unlabelled image."""
    config = load_config(training(tmp_path), (), TrainConfig)
    box = BoundingBox((0, 0, 0), (64, 64, 32))
    whole = SelfTraining(config, str(tmp_path / "more.zarr"), tmp_path / "self", box)
    assert whole.round(1).training_settings()["volumes"][0]["oversampling"] == 8.0


@pytest.mark.parametrize("targets", [["foreground"], ["foreground", "contours"]])
def test_foreground_and_contours_teach_themselves_by_objects(tmp_path, targets):
    """The run makes objects, with seeds off contours if these are predicted; sure voxels are those of the heads."""
    file = training(tmp_path, targets=[{"what": what} for what in targets])
    words = (file, "--unlabelled", tmp_path / "more.zarr", "--sure", "0.001", "--output", tmp_path / "self", "--quiet")
    done = invoke(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    one = tmp_path / "self" / "round-1"
    made = load_config(one / "train.yaml", (), TrainConfig)
    assert made.volumes[1].labels == str(one / "run" / "objects.zarr")
    wanted = yaml.safe_load((one / "run.yaml").read_text())["segmentation"]
    assert wanted["kind"] == "objects"
    assert ("seeds_within" in wanted) == (len(targets) == 2)
    head = open_volume(str(one / "run" / "foreground.zarr"))[...].reshape(16, 32, 32)
    sure, labels = open_volume(str(one / "sure.zarr"))[...], open_volume(made.volumes[1].labels)[...]
    assert sure.any()
    assert ((head > 127) == (labels > 0))[sure > 0].all()


@pytest.mark.parametrize("zero", ["unknown", "membrane"])
def test_membranes_teach_themselves_by_neurons(tmp_path, zero):
    """The run makes neurons of the membranes, and sure voxels say of membranes what the run's labels say."""
    file, target = training(tmp_path, targets=[{"what": "membranes", "zero": zero}]), Membranes(zero=zero)
    words = (file, "--unlabelled", tmp_path / "more.zarr", "--sure", "0.001", "--output", tmp_path / "self", "--quiet")
    done = invoke(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    one = tmp_path / "self" / "round-1"
    made = load_config(one / "train.yaml", (), TrainConfig)
    assert made.volumes[1].labels == str(one / "run" / "labels.zarr")
    head = open_volume(str(one / "run" / "membranes.zarr"))[...].reshape(16, 32, 32)
    sure, labels = open_volume(str(one / "sure.zarr"))[...] > 0, open_volume(made.volumes[1].labels)[...]
    assert sure.any()
    assert np.array_equal(head[sure] > 127, target.target(labels.astype(np.int64), NM)[0][0][sure] > 0)


@pytest.mark.parametrize(("by", "ignore"), [("probability", {}), ("agreement", {"ignore": 2})])
def test_classes_teach_themselves_by_a_class_map(tmp_path, by, ignore):
    """The run makes a class map, sure voxels have one probable class, and the training ignores all others."""
    learned = {"steps": 60, "validate_every": 60, "targets": [{"what": "classes", "count": 3, **ignore}]}
    file = training(tmp_path, **learned)
    for start in (0, 16):
        write_volume(tmp_path / f"labels-{start}.zarr", (cubes((24, 32, 32))[0] > 100).astype(np.uint32))
    words = (file, "--unlabelled", tmp_path / "more.zarr", "--sure", "0.05", "--output", tmp_path / "self", "--quiet")
    done = invoke(*words, "--sure-by", by)
    assert done.exit_code == 0, (done.output, done.exception)
    one = tmp_path / "self" / "round-1"
    made = load_config(one / "train.yaml", (), TrainConfig)
    assert made.volumes[1].labels == str(one / "run" / "class_map.zarr")
    shares = open_volume(str(one / "run" / "classes.zarr"))[...]
    sure, labels = open_volume(str(one / "sure.zarr"))[...] > 0, open_volume(made.volumes[1].labels)[...]
    assert 0 < sure.mean() < 1
    assert np.array_equal(shares.argmax(0)[sure], labels[sure])
    assert not ignore or (labels[sure] != 2).all()
    if by == "probability":
        assert shares.max(0)[sure].min() >= 255 * 1.05 / 2
    assert "class F1" in " ".join(load_card(tmp_path / "self").scores)


def test_sure_voxels_of_objects_agree_in_every_head():
    """A voxel is kept where foreground and contours are sure and say what the run's objects say, background too."""
    labels = np.zeros((1, 5, 6), np.uint64)
    labels[:, 1:4, 1:4] = 7
    targets = (Foreground(), Contours(dilation=0))
    heads = np.concatenate([target.target(labels.astype(np.int64), NM)[0] for target in targets])
    heads = (255 * heads).astype(np.uint8)
    rule = SureVoxels(0.8, targets)
    assert rule.mask(heads[None], labels, NM).all()
    heads[0, 0, 2, 2], heads[0, 0, 0, 5], heads[1, 0, 4, 0] = 200, 255, 128
    assert np.argwhere(rule.mask(heads[None], labels, NM) == 0).tolist() == [[0, 0, 5], [0, 2, 2], [0, 4, 0]]


OF_LABELS = [
    (Foreground(), Contours()),
    (Foreground(label_erosion=2), Contours(label_erosion=2)),
    (Membranes(),),
    (Membranes(reach_nm=17.0, in_plane=False, zero="background"),),
]


@pytest.mark.parametrize("targets", OF_LABELS)
def test_the_mask_of_voxels_depends_on_no_voxel_beyond_its_halo(targets):
    """A box with its halo gives the mask of the whole volume, at random labels and heads."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (8, 6, 6)), 5, 1), 5, 2).astype(np.uint64)
    heads = rng.choice(np.array([0, 255], np.uint8), (len(targets), *labels.shape))
    rule = SureVoxels(0.8, targets)
    whole, bounds = rule.mask(heads[None], labels, NM), BoundingBox.from_shape(labels.shape)
    core = BoundingBox((2, 10, 10), (6, 20, 20))
    box = BoundingBox(core.start - rule.halo(NM), core.stop + rule.halo(NM)).intersect(bounds)
    part = rule.mask(heads[(None, ..., *box.slices())], labels[box.slices()], NM)
    assert 0 < whole.mean() < 1
    assert np.array_equal(part[core.slices(box.start)], whole[core.slices()])


def test_objects_are_sure_where_the_network_says_what_the_training_teaches():
    """Where a training erodes objects that touch, their seam is sure as background, as it will be taught."""
    labels = np.ones((1, 5, 8), np.uint64)
    labels[..., 4:] = 2
    target = Foreground(label_erosion=1)
    head = np.full((1, 1, 5, 8), 255, np.uint8)
    assert np.unique(np.nonzero(SureVoxels(0.8, (target,)).mask(head[None], labels, NM) == 0)[2]).tolist() == [3, 4]
    head[..., 3:5] = 0
    assert SureVoxels(0.8, (target,)).mask(head[None], labels, NM).all()


def test_sure_voxels_of_membranes_agree_with_the_neurons_of_the_run():
    """Membranes are kept where two neurons meet, and cells where none do; voxels near unlabelled ones are not."""
    labels = np.ones((1, 6, 10), np.uint64)
    labels[..., 5:], labels[0, 0, 0] = 2, 0
    head = np.where((np.arange(10) == 4) | (np.arange(10) == 5), 255, 0).astype(np.uint8) * np.ones(
        (1, 1, 6, 1), np.uint8
    )
    rule = SureVoxels(0.8, (Membranes(),))
    assert np.argwhere(rule.mask(head[None], labels, NM) == 0).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    head[0, 0, 3, 4], head[0, 0, 3, 8], head[0, 0, 3, 2] = 0, 255, 100
    missing = np.argwhere(rule.mask(head[None], labels, NM)[0, 3] == 0).ravel().tolist()
    assert missing == [2, 4, 8], "a wall that is not seen, one that leads nowhere, and an unsure voxel"


def test_copies_agree_where_they_differ_by_little_and_say_what_the_labels_say():
    """By agreement a voxel is kept though it is unsure, but not where one copy stands for the other side."""
    labels = np.ones((1, 1, 5), np.uint64)
    labels[..., 4] = 0
    copies = np.zeros((2, 1, 1, 1, 5), np.uint8)
    copies[0, 0, 0, 0], copies[1, 0, 0, 0] = [150, 100, 100, 201, 20], [200, 150, 120, 255, 70]
    by_agreement = SureVoxels(0.8, (Foreground(),), "agreement")
    assert by_agreement.mask(copies, labels, NM).ravel().tolist() == [1, 0, 0, 0, 1]
    exact = np.array([153, 204], np.uint8).repeat(5).reshape(copies.shape)
    assert by_agreement.mask(exact, labels, NM).ravel().tolist() == [1, 1, 1, 1, 0], "51 of 255 is 0.2"


def test_copies_agree_on_a_class_that_none_of_them_doubts():
    """By agreement a class is kept if no class changes by more than 1 - sure, and its least is above all others."""
    least = np.array([[100, 60, 30], [100, 80, 20], [90, 100, 0]], np.uint8).T.reshape(3, 1, 1, 3)
    copies = np.stack([least, least + np.array([30, 30, 60], np.uint8).reshape(3, 1, 1, 1)])
    labels = np.zeros((1, 1, 3), np.uint8)
    assert SureClasses(0.8, Classes(count=3), "agreement").mask(copies, labels, NM).ravel().tolist() == [0, 0, 0]
    copies[1] = least + 30
    assert SureClasses(0.8, Classes(count=3), "agreement").mask(copies, labels, NM).ravel().tolist() == [1, 0, 0]


def test_sure_voxels_of_classes_have_one_large_probability():
    """A voxel is kept if 2 p - 1 of its class is large enough, and unless its class is the one that is ignored."""
    shares = np.zeros((3, 1, 1, 4), np.uint8)
    shares[:, 0, 0] = np.transpose([[240, 10, 5], [120, 100, 35], [5, 240, 10], [5, 5, 245]])
    labels = shares.argmax(0)
    assert SureClasses(0.8, Classes(count=3)).mask(shares[None], labels, NM).ravel().tolist() == [1, 0, 1, 1]
    assert SureClasses(0.95, Classes(count=3)).mask(shares[None], labels, NM).ravel().tolist() == [0, 0, 0, 0]
    assert SureClasses(0.8, Classes(count=3, ignore=2)).mask(shares[None], labels, NM).ravel().tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "targets",
    [
        *((Membranes(zero=zero),) for zero in ("unknown", "membrane", "background")),
        (Foreground(), Contours()),
        (Classes(count=3),),
        (Classes(count=3, label_erosion=1),),
    ],
)
def test_a_training_is_taught_what_was_kept(targets):
    """At every voxel of any mask, a training has the target of the whole labels, whatever is masked around it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 3, (3, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.int64)
    mask = (rng.random(labels.shape) < 0.5).astype(np.uint8)
    wanted = np.concatenate([taught(target, labels, NM)[0] for target in targets])
    found, weights = Moved.whole(labels, mask, targets).targets(targets, NM)
    assert np.array_equal(weights > 0, np.broadcast_to(mask > 0, weights.shape))
    assert np.array_equal(found[weights > 0], wanted[weights > 0])


class Killed(Exception):  # noqa: N818  (it stands for a signal)
    """A test raises this between two steps, in place of a signal."""


def test_a_self_training_killed_between_its_steps_gives_the_same_weights(tmp_path):
    """Killed before every step and started again each time, it ends with the bytes of an uninterrupted one."""
    results = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        given, plain = plan(folder, training(folder)), steps_of(quiet=True)
        for allowed in range(4) if name == "killed" else ():
            calls = iter(range(allowed))

            def counted(function, calls=calls):
                def call(*arguments):
                    if next(calls, None) is None:
                        raise Killed
                    return function(*arguments)

                return call

            with pytest.raises(Killed):
                self_train(given, Steps(counted(plain.train), counted(plain.run), plain.say, counted(plain.tell)))
        self_train(given, plain)
        results.append((folder / "self" / "weights.safetensors").read_bytes())
        results.append(json.loads((folder / "self" / "scores.json").read_text())["rounds"][1]["sure"])
    assert results[:2] == results[2:]


def test_a_file_that_the_user_has_changed_is_used(tmp_path):
    """Files of a round that are there are not written again, and their settings hold."""
    given = plan(tmp_path, training(tmp_path))
    stop = Steps(lambda config: (_ for _ in ()).throw(Killed), lambda file: None, lambda text: None)
    with pytest.raises(Killed):
        self_train(given, stop)
    file = given.round(1).training_file
    file.write_text(file.read_text().replace("\nsteps: 6", "\nsteps: 3"))
    self_train(given, steps_of(quiet=True))
    steps = [json.loads(line)["step"] for line in (given.round(1).trained / "log.jsonl").read_text().splitlines()]
    assert steps == [3]


def test_another_self_training_in_the_folder_is_refused(tmp_path):
    """Other settings than those of the folder are refused and named; more rounds are no other settings."""
    file = training(tmp_path)
    self_train(plan(tmp_path, file), steps_of(quiet=True))
    other = BoundingBox((0, 0, 0), (8, 32, 32))
    with pytest.raises(ConfigError, match=r"other settings \(box: 0..16 x 0..32 x 0..32 there, 0..8"):
        self_train(replace(plan(tmp_path, file), box=other), steps_of(quiet=True))
    assert len(self_train(plan(tmp_path, file, rounds=2), steps_of(quiet=True))) == 3


def test_labels_that_change_under_a_training_are_refused(tmp_path):
    """Another threshold in a round's run file is refused once a training on its labels has begun."""
    given = plan(tmp_path, training(tmp_path))
    self_train(given, steps_of(quiet=True))
    file = given.round(1).run_file
    file.write_text(file.read_text() + "segmentation: {threshold: 0.9}\n")
    with pytest.raises(ConfigError, match="give other labels than those on which"):
        self_train(given, steps_of(quiet=True))


def test_too_few_sure_voxels_are_refused_and_another_threshold_goes_on(tmp_path):
    """Where hardly a voxel is sure, the command says so; with a smaller --sure it goes on with the same run."""
    file = training(tmp_path)
    with pytest.raises(ConfigError, match=r"--sure is 0\.99 by probability, and 0\.0% of the voxels"):
        self_train(plan(tmp_path, file, sure=0.99), steps_of(quiet=True))
    labels = tmp_path / "self" / "round-1" / "run" / "labels.zarr" / "zarr.json"
    written = labels.stat().st_mtime_ns
    assert len(self_train(plan(tmp_path, file), steps_of(quiet=True))) == 2
    assert labels.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (["--sure", "1"], {}, "--sure is 1.0; it must lie between 0 and 1"),
        (["--sure-by", "votes"], {}, "--sure-by is 'votes'; it must be one of probability, agreement"),
        (["--box", "0:99,0:32,0:32"], {}, "choose a part of it"),
        (["--box", "0:4,0:32,0:32"], {}, r"patch_shape is \[8, 16, 16\], and \[4, 32, 32\] voxels"),
        (["--output", "first"], {}, "the folder of the first model"),
        (["--output", "more.zarr/self"], {}, "which is the volume .* or in it"),
        ([], {"targets": [{"what": "contours"}]}, "predicts contours; self-training keeps affinities"),
        ([], {"targets": [{"what": "signed_distance"}]}, "predicts signed_distance; self-training keeps"),
        ([], {"targets": [{"what": "classes", "count": 3}, {"what": "foreground"}]}, "or classes alone"),
        ([], {"targets": [{"what": "foreground"}, {"what": "membranes"}]}, "targets for which label 0 is background"),
        (["--unlabelled", "validation"], {}, "is in the validation part"),
        (["--unlabelled", "more.zarr#resolution=40,8,8"], {}, r"voxels of \[40.0, 8.0, 8.0\] nm, the labelled tissue"),
        (["--unlabelled", "nowhere.zarr"], {}, "nowhere.zarr does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch, words, changes, message):
    file = training(tmp_path, **changes)
    monkeypatch.chdir(tmp_path)
    words = [load_config(file, (), TrainConfig).validation.image if word == "validation" else word for word in words]
    before = sorted(tmp_path.rglob("*"))
    given = ["--unlabelled", "more.zarr"] if "--unlabelled" not in words else []
    done = invoke(file, *given, *words)
    assert isinstance(done.exception, PetasegError), done.output
    assert re.search(message, str(done.exception)), str(done.exception)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_lists_the_steps_and_writes_nothing(tmp_path):
    file = training(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = invoke(file, "--unlabelled", tmp_path / "more.zarr", "--rounds", 2, "--dry-run")
    assert done.exit_code == 0, done.output
    assert [line[:2] for line in done.output.splitlines()[:7]] == ["1.", "2.", "3.", "4.", "5.", "6.", "7."]
    assert "is sound" in done.output
    assert sorted(tmp_path.rglob("*")) == before


def test_sure_voxels_are_those_of_sure_affinities_that_agree_with_the_labels():
    """Two cells with a wall between them: unsure, contradicted and unlabelled voxels are masked."""
    labels = np.ones((3, 8, 12), np.uint64)
    labels[..., 6:] = 2
    affinities = np.full((3, 3, 8, 12), 255, np.uint8)
    affinities[:, :, :, 5:7] = 0  # the two voxels at the contact are wall
    affinities[2, ..., 7] = 0
    expected = np.ones(labels.shape, bool)
    assert RULE.mask(affinities[None], labels, NM).astype(bool).tolist() == expected.tolist()
    affinities[1, 1, 4, 2], affinities[0, 1, 3, 3], affinities[0, 2, 3, 10] = 128, 0, 230
    labels[1, 1, 1] = 0
    mask = RULE.mask(affinities[None], labels, NM)
    masked = {tuple(map(int, place)) for place in np.argwhere(mask == 0)}
    assert {(1, 4, 2), (1, 3, 3), (2, 3, 10), (1, 1, 1)} <= masked
    assert (0, 6, 10) not in masked


def test_the_mask_does_not_depend_on_the_chunks(tmp_path):
    """The mask of sure voxels is the same for any chunk shape, and a repeated call writes the same."""
    rule = SureEdges(0.2, Affinities(offsets=NEAREST, label_erosion=1))
    file, masks = affinity_run(tmp_path), []
    for number, shape in enumerate(("[10,12,14]", "[20,24,28]", "[10,24,14]")):
        done = run(file, f"chunk_shape={shape}", f"run_directory=run{number}")
        shares = {write_sure_mask(done, str(tmp_path / f"sure{number}.zarr"), rule) for _ in range(2)}
        mask = open_volume(str(tmp_path / f"sure{number}.zarr"))[...]
        assert shares == {mask.mean()}
        masks.append(mask.tobytes())
    assert 0 < np.frombuffer(masks[0], np.uint8).mean() < 1
    assert masks[0] == masks[1] == masks[2]


def test_the_mask_depends_on_no_voxel_beyond_its_halo():
    """Any voxel has the same value in the mask of a whole array and in that of the box that is its halo."""
    rng = np.random.default_rng(1)
    labels = rng.integers(1, 4, (3, 4, 4)).repeat(3, 0).repeat(3, 1).repeat(3, 2).astype(np.uint64)
    affinities = rng.choice(np.array([0, 255], np.uint8), (3, *labels.shape))
    rule = SureEdges(0.5, Affinities(offsets=NEAREST, label_erosion=1))
    whole, bounds = rule.mask(affinities[None], labels, NM), BoundingBox.from_shape(labels.shape)
    for place in np.ndindex(labels.shape):
        core = BoundingBox.from_shape((1, 1, 1), place)
        box = core.grow(rule.halo(NM)).intersect(bounds)
        part = rule.mask(affinities[(None, ..., *box.slices())], labels[box.slices()], NM)
        assert part[core.slices(box.start)] == whole[core.slices()], place
