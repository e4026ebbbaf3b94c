"""The trainer trains recurrent networks by each learning rule."""

import copy
import logging
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.models.spec import build
from pipeline.training.config import TrainConfig
from pipeline.training.learning import idle_parameters, run, state_parts
from pipeline.training.module import TrainingModule
from pipeline.training.rule_specs import ColumnPenalty
from pipeline.training.rules import Bptt, Checkpointed, Recurrent, Truncated
from pipeline.training.total_loss import combined_loss
from pipeline.training.trainer import train
from tests.training.trainings import MINI, checkpoint, fitted, log, settings, stored_cubes, train_killed_after
from tests.training.volumes import OFF

HGRU = {"kernel": 3, "steps": 3, "orientations": 2, "norm": "instance"}
RECURRENT = {
    "gamma_net_3d": (MINI, (8, 16, 16), True, 4),
    "gamma_net_2d": ({"widths": [3, 4], "horizontal": [3, 1], "steps": 2}, (1, 16, 16), True, 4),
    "hgru_contour": (HGRU, (1, 16, 16), False, 1),
    "convlstm_contour": ({"kernel": 3, "steps": 3, "orientations": 2}, (1, 16, 16), False, 2),
    "canvas_lstm": (
        {"embedding_size": 4, "widths": (4, 6, 8, 8), "depths": (1, 1, 1, 1), "dilations": (2,), "hidden": (6, 5)},
        *((1, 32, 48), False, 7),
    ),
    "rignet": ({"host_arguments": {"widths": (4, 5, 6), "embedding": (1, 3, 3)}, "iterations": 3}, (3, 8, 12), True, 6),
}
FOREGROUND = [{"what": "foreground", "losses": [{"kind": "bce"}]}]


def contour(output, **changes):
    """A short training of the hGRU on the foreground of sections."""
    data = settings(output).model_dump(mode="json")
    flat = {"architecture": "hgru_contour", "arguments": HGRU, "patch_shape": [1, 16, 16], "overlap": [0, 4, 4]}
    more = {"targets": FOREGROUND, "precision": "float32", "pictures": False, "learning_rate": 0.0005}
    return parse_config(data | flat | more | changes, TrainConfig)


def weights(config):
    """The trained weights, as one vector."""
    network = fitted(config).network
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_rules_that_are_exact_train_as_plain_backpropagation_does(tmp_path):
    """Checkpoints, a window over all steps and a penalty of zero train the weights of plain backpropagation."""
    plain = weights(contour(tmp_path))
    exact = (
        {"kind": "checkpointed"},
        {"kind": "truncated", "window": 3},
        {"kind": "bptt", "penalty": {"kind": "column", "limit": 1e6}},
    )
    for rule in exact:
        torch.testing.assert_close(weights(contour(tmp_path, rule=rule)), plain, msg=str(rule))
    others = [weights(contour(tmp_path, rule=rule)) for rule in ({"kind": "truncated", "window": 1}, {"kind": "rbp"})]
    assert all((a - b).abs().max() > 1e-6 for a, b in pairwise([plain, *others]))


@pytest.mark.parametrize("rule", [Bptt, Checkpointed])
def test_earlier_steps_weigh_less_and_less(rule):
    """With `earlier_steps`, a rule returns the logits of every step in order; without it, only the last ones."""
    torch.manual_seed(0)
    network = build("gamma_net_3d", {**MINI, "steps": 3})
    image = torch.rand(1, 1, 8, 16, 16)
    learned = run(network, rule(earlier_steps=0.5), image)
    *earlier, last = network(image, every_step=True)
    torch.testing.assert_close(learned.logits, last)
    torch.testing.assert_close(list(learned.earlier), earlier)
    assert run(network, rule(), image).earlier == ()


def test_the_loss_of_a_step_is_the_sum_over_its_readouts(tmp_path):
    """At `earlier_steps` 0.5, the training loss sums over all readouts and halves the weight of each earlier one."""
    module = TrainingModule(settings(tmp_path, rule=Bptt(earlier_steps=0.5), arguments={**MINI, "steps": 3}))
    batch = next(iter(module.train_dataloader()))
    steps = [combined_loss(module.targets, out, *batch[1:]).total for out in module.network(batch[0], every_step=True)]
    expected = 0.25 * steps[0] + 0.5 * steps[1] + steps[2]
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_steps_that_are_computed_twice_count_once_for_batch_norms():
    """A RIGNet has the same batch-norm statistics and gradients with checkpoints as without them."""
    arguments, patch, *_ = RECURRENT["rignet"]
    torch.manual_seed(0)
    plain = build("rignet", arguments)
    saving, image = copy.deepcopy(plain), torch.rand(1, 1, *patch)
    run(plain, Bptt(), image).logits.sum().backward()
    run(saving, Checkpointed(), image).logits.sum().backward()
    statistics = dict(saving.named_buffers())
    assert len(statistics) > 5
    for name, values in plain.named_buffers():
        torch.testing.assert_close(statistics[name], values, msg=name)
    for (name, expected), found in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)


def test_recurrent_backpropagation_reports_every_series(tmp_path):
    """TensorBoard shows the Neumann residual of each step; the log has the mean residual, terms and penalty."""
    penalty = {"kind": "column", "weight": 10, "limit": 0.0}
    config = contour(tmp_path, rule={"kind": "rbp", "terms": 4, "penalty": penalty})
    train(config)
    for record in log(tmp_path):
        assert 0 < record["residual"] < 1
        assert record["terms"] > 0
        assert record["penalty"] > 0
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    residuals = [event.value for event in events.Scalars("residual_of_step")]
    assert len(residuals) == config.steps
    assert sum(residuals[:3]) / 3 == pytest.approx(log(tmp_path)[0]["residual"], rel=1e-5)
    assert len(events.Scalars("penalty")) == 2


def test_a_killed_and_resumed_training_by_the_implicit_rule_gives_the_same_bits(tmp_path):
    """A resumed training draws the same random vectors for its penalty as an uninterrupted one."""
    rule = {"kind": "rbp", "penalty": {"kind": "frobenius", "limit": 0.1}}
    whole, parts = (contour(tmp_path / name, rule=rule) for name in ("whole", "parts"))
    train(whole)
    train_killed_after(parts, 4)
    train(parts)
    expected, found = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (tmp_path / "whole" / "log.jsonl").read_bytes() == (tmp_path / "parts" / "log.jsonl").read_bytes()


def test_a_series_that_diverges_is_said_aloud(tmp_path, caplog):
    """A Neumann series that diverges is logged as a warning with the number of terms that are used."""
    config = settings(tmp_path, rule=Recurrent(divergence=1e-3), pictures=False, steps=2, augmentation=OFF)
    with caplog.at_level(logging.WARNING, "petaseg.training"):
        fitted(config)
    assert "the Neumann series diverged; 0 terms are used" in caplog.text


@pytest.mark.parametrize("architecture", RECURRENT)
def test_every_recurrent_network_is_run_by_every_rule(architecture):
    """Each rule gives the logits of the plain network, and gradients for all weights that the network uses."""
    arguments, patch, empty, parts = RECURRENT[architecture]
    torch.manual_seed(0)
    network = build(architecture, arguments)
    assert isinstance(network, RecurrentNetwork)
    assert state_parts(network, patch) == (empty, parts)
    image = torch.rand(1, 1, *patch)
    plain = network(image)
    penalty = ColumnPenalty()
    rules = [Truncated(window=1), Checkpointed(), Recurrent(), Bptt(penalty=penalty), Recurrent(penalty=penalty)]
    for rule in rules:
        network.zero_grad()
        learned = run(network, rule, image)
        torch.testing.assert_close(learned.logits, plain)
        (learned.logits.sum() + (0 if learned.penalty is None else learned.penalty)).backward()
        idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert bool(idle) == idle_parameters(network, patch) == (architecture == "hgru_contour")
        assert (learned.report is not None) == isinstance(rule, Recurrent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": {"kind": "truncated"}}, r"rule is truncated;.*residual_unet has none.*choose rule: \{kind: bptt\}"),
        ({"rule": {"kind": "checkpointed"}}, "rule is checkpointed"),
        ({"rule": {"kind": "rbp"}}, "rule is rbp"),
        ({"rule": {"kind": "bptt", "penalty": {"kind": "spectral"}}}, "rule is bptt with a penalty"),
        ({"rule": {"kind": "bptt", "earlier_steps": 0.5}}, "rule is bptt with earlier_steps"),
    ],
)
def test_rules_that_a_network_cannot_follow_are_refused(tmp_path, changes, message):
    """A rule that needs recurrent steps is refused for a feedforward network, before any folder is made."""
    unet = {"widths": [4, 6], "pools": [[2, 2, 2]], "embedding": [3, 3, 3], "first_kernel": [3, 3, 3]}
    feedforward = {"architecture": "residual_unet", "arguments": unet}
    data = settings(tmp_path / "never", patch_shape=(12, 16, 16)).model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        train(parse_config(data | feedforward | changes, TrainConfig))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {**MINI, "steps": 1}}, "gamma_net_3d has 1 steps; its first step makes the state"),
        ({"rule": Recurrent(over=(0, 4))}, r"over is \[0, 4\]; the state of gamma_net_3d has 4 tensors"),
    ],
)
def test_steady_states_that_do_not_exist_are_refused(tmp_path, changes, message):
    """Recurrent backpropagation is refused for a network of one step and for a state tensor that does not exist."""
    with pytest.raises(ConfigError, match=message):
        TrainingModule(settings(tmp_path, **({"rule": Recurrent()} | changes)))


def test_two_processes_train_a_cell_with_idle_parameters_by_the_implicit_rule(tmp_path):
    """Two processes train a published cell that has parameters without any gradient."""
    file = tmp_path / "train.yaml"
    config = contour(tmp_path / "two", devices=2, device="cpu", rule={"kind": "rbp", "penalty": {"kind": "column"}})
    data = config.model_dump(mode="json")
    data["volumes"] = [stored_cubes(tmp_path, [0, 0, 0], [16, 32, 32])]
    data["validation"] = stored_cubes(tmp_path, [16, 0, 0], [24, 32, 32])
    file.write_text(yaml.safe_dump(data))
    command = [sys.executable, "-m", "workflows.cli", "train", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in log(tmp_path / "two")] == [3, 6]
