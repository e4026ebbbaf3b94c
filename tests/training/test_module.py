"""The training module updates weights and their running mean, and counts scores."""

import logging

import pytest
import torch

from pipeline.errors import ConfigError, ModelError
from pipeline.models.spec import build, load_card, load_model
from pipeline.training.module import Record, TrainingModule, arguments_of
from pipeline.training.trainer import identity, train
from tests.training.trainings import MINI, Watch, fitted, log, settings
from tests.training.volumes import OFF, cubes, store


def test_the_running_mean_follows(tmp_path):
    """Each step moves the mean to d mean + (1 - d) now, with d = min(decay, (1 + n) / (10 + n))."""
    seen = []

    def look(module, _done):  # the mean follows right after this look
        seen.append([net.state_dict()["readout.weight"].clone() for net in (module.mean, module.network)])

    fitted(settings(tmp_path, ema_decay=0.15, steps=3), Watch(look))
    first, _ = seen[0]
    (_, one), (mean_of_one, two), (mean_of_two, _) = seen[1:]
    torch.testing.assert_close(mean_of_one, 0.1 * first + 0.9 * one)
    torch.testing.assert_close(mean_of_two, 0.15 * mean_of_one + 0.85 * two)


def test_an_update_without_a_finite_gradient_changes_nothing(tmp_path, caplog):
    """An update with a nan gradient is skipped with a warning, and the next update changes the weights again."""
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


def test_a_training_without_finite_gradients_ends(tmp_path):
    """After 20 updates in a row without a finite gradient a training ends, and the error says what to change."""

    def look(module, done):
        if done == 0:
            module.network.get_parameter("readout.bias").register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(ModelError, match=r"20 gradients in a row.*learning_rate below 0\.0"):
        fitted(settings(tmp_path, steps=30, validate_every=30), Watch(look))


def test_a_training_whose_validation_is_not_finite_ends(tmp_path):
    """A loss on the validation part that is no number ends a training before a model of it is written."""

    def look(module, _done):
        module.mean.get_parameter("readout.bias").fill_(float("nan"))

    with pytest.raises(ModelError, match=r"losses on the validation part.*learning_rate"):
        fitted(settings(tmp_path, steps=4, validate_every=2, ema_decay=0.99), Watch(look))
    assert not (tmp_path / "card.yaml").exists()


def test_a_network_learns_bright_cubes(tmp_path):
    """After 60 steps on bright cubes, the losses have halved and the F1 of cut edges exceeds 0.6."""
    easy = {"augmentation": OFF, "learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.5, "pictures": False}
    train(settings(tmp_path, steps=60, validate_every=2, **easy))
    records = log(tmp_path)
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[-1]["validation_loss"] < 0.5 * records[0]["validation_loss"]
    assert records[0]["score"] < 0.5 < 0.6 < records[-1]["score"]


def test_patience_counts_validations_without_a_better_score(tmp_path):
    """`stale` counts the validations since the best score, and an equal score counts as the best."""
    module = TrainingModule(settings(tmp_path))
    scores = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.6, 6: 0.1, 7: 0.2}
    stale = []
    for step, score in scores.items():
        module.records.append(Record(step, 1.0, 1.0, score))
        stale.append(module.stale)
    assert stale == [0, 1, 0, 1, 0, 1, 2]


def test_a_validation_part_that_the_network_cannot_take_is_refused_before_the_first_step(tmp_path):
    """A validation part is refused if the patches that fit into it are too thin for the network."""
    thin = store("thin-validation", *cubes((3, 32, 32)))
    with pytest.raises(ConfigError, match=r"validation offers patches of \[3, 16, 16\]"):
        TrainingModule(settings(tmp_path, validation=thin))


def test_outputs_follow_the_offsets(tmp_path):
    """A network has one output channel for each affinity offset."""
    config = settings(tmp_path, offsets=[(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
    assert arguments_of(config)["out_channels"] == 3
    assert arguments_of(settings(tmp_path, arguments="tiny"))["out_channels"] == 12


def test_a_training_may_start_from_a_model(tmp_path):
    """A training with `start_from` begins with the weights of that model, which become part of its identity."""
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


RESNET = {"embedding_size": 4, "widths": [4, 6, 8, 8], "depths": [1, 1, 1, 1], "block": "basic"}
FLAT = {"patch_shape": (1, 32, 32), "overlap": (0, 4, 4), "batch_size": 2}
BACKBONES = {
    "resnet_fcn": (RESNET, lambda network: network.blocks),
    "rignet": ({"host": "resnet_fcn", "host_arguments": RESNET}, lambda network: network.network.blocks),
    "canvas_lstm": ({**RESNET, "dilations": [2], "hidden": [6, 5]}, lambda network: network.backbone),
    "gamma_net_vgg": ({"width": 0.125, "narrow": [8, 4, 2], "steps": 2}, lambda network: network.vgg),
}


@pytest.mark.parametrize("architecture", BACKBONES)
def test_a_training_may_begin_with_published_weights(tmp_path, architecture):
    """A training with `backbone` begins with the published weights, which become part of its identity."""
    arguments, backbone = BACKBONES[architecture]
    theirs = backbone(build(architecture, {**arguments, "out_channels": 12})).state_dict()
    torch.save(theirs, tmp_path / "published.pth")
    changes = {"architecture": architecture, "arguments": arguments, **FLAT}
    config = settings(tmp_path / "model", backbone=str(tmp_path / "published.pth"), **changes)
    found = backbone(TrainingModule(config).network).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.items())
    torch.save({name: tensor + 1 for name, tensor in theirs.items()}, tmp_path / "other.pth")
    other = config.model_copy(update={"backbone": str(tmp_path / "other.pth")})
    assert len({identity(each) for each in (config, other, settings(tmp_path / "model", **changes))}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no part of gamma_net_3d has published weights: choose resnet_fcn"),
        ({"architecture": "rignet", "arguments": "tiny"}, "no part of ResidualUNet has published weights"),
        ({"architecture": "resnet_fcn", "arguments": RESNET, **FLAT}, "nowhere.pth does not exist"),
    ],
)
def test_a_backbone_that_cannot_be_loaded_is_refused(tmp_path, changes, message):
    """A missing backbone file, or a network for which no weights are published, is refused."""
    with pytest.raises(ModelError, match=message):
        TrainingModule(settings(tmp_path, backbone="nowhere.pth", **changes))


def test_weights_begin_but_once(tmp_path):
    with pytest.raises(ValueError, match="both start_from and backbone"):
        settings(tmp_path, start_from="fib25-tiny", backbone="resnet50.pth")


def test_a_model_of_another_shape_is_no_start(tmp_path):
    first = train(settings(tmp_path / "first"))
    wide = {**MINI, "widths": [8, 6]}
    with pytest.raises(ModelError, match=r"start_from is .*take its architecture and arguments"):
        TrainingModule(settings(tmp_path / "other", start_from=str(first.folder / "card.yaml"), arguments=wide))
