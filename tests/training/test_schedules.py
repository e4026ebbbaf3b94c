"""Learning rates follow their schedules, and every optimiser can train and resume."""

from itertools import pairwise

import pytest

from pipeline.errors import ConfigError
from pipeline.training.config import ParameterGroup
from pipeline.training.module import TrainingModule
from pipeline.training.schedules import FINAL_RATE, halvings, make_optimiser, share_of_rate
from pipeline.training.trainer import train
from tests.training.trainings import Watch, fitted, settings, train_killed_after


def test_a_plateau_halves_the_learning_rate(tmp_path, monkeypatch):
    """The learning rate is halved again and again while the validation score does not improve."""
    monkeypatch.setattr("pipeline.training.scores.f1", lambda *_: 0.5)
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
    """The learning rate rises linearly during the warm-up and then falls as a cosine to its final share."""
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
    """The learning rate is 1e-3 at step 0, 5.3635e-4 at step 15000 and 1e-6 at step 30000."""
    config = settings(tmp_path, steps=30000, warmup_steps=0, schedule="polynomial", learning_rate=1e-3)
    rates = [1e-3 * share_of_rate(step, config) for step in (0, 15000, 30000)]
    assert rates == [pytest.approx(1e-3), pytest.approx(5.3635e-4, rel=1e-5), pytest.approx(1e-6)]


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "nadam", "sgd"])
def test_every_optimiser_moves_the_weights_and_resumes(tmp_path, optimiser):
    config = settings(tmp_path, optimiser=optimiser, schedule="constant", pictures=False)
    train_killed_after(config, 4)
    assert train(config).steps == 6


def group(match, rate):
    return ParameterGroup(match=match, learning_rate=rate)


def test_groups_have_their_own_learning_rates_and_the_rest_has_that_of_the_training(tmp_path):
    """Every parameter is in one group, the first whose pattern fits; the schedule applies to all of them alike."""
    groups = (group("stem.*", 1e-5), group("*.bias", 1e-4))
    config = settings(tmp_path, learning_rate=3e-4, schedule="constant", warmup_steps=4, groups=groups)
    module = TrainingModule(config)
    optimiser = make_optimiser(module.network, config)
    rates = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in module.network.named_parameters():
        wanted = 1e-5 if name.startswith("stem.") else 1e-4 if name.endswith(".bias") else 3e-4
        assert rates[id(parameter)] == wanted, name
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(module.network.parameters()))
    warming = []
    fitted(config, Watch(lambda m, _: warming.append([g["lr"] for g in m.optimizers().param_groups])))
    assert warming[0] == pytest.approx([3e-4 / 4, 1e-5 / 4, 1e-4 / 4])
    assert warming[-1] == pytest.approx([3e-4, 1e-5, 1e-4])


def test_a_group_with_a_rate_of_zero_is_not_trained(tmp_path):
    """Parameters of a group with a learning rate of 0 keep their first weights, and the others change."""
    config = settings(tmp_path, groups=(group("stem.*", 0.0),))
    before = {name: p.detach().clone() for name, p in TrainingModule(config).network.named_parameters()}
    for name, parameter in fitted(config).network.named_parameters():
        assert parameter.equal(before[name]) == name.startswith("stem."), name


def test_a_group_without_parameters_is_refused_before_anything_is_read(tmp_path):
    """A pattern that fits no name, or only names of earlier groups, is refused with the names that there are."""
    for groups in ((group("backbone.*", 1e-5),), (group("stem.*", 1e-5), group("stem.*.bias", 1e-4))):
        with pytest.raises(
            ConfigError, match=r"no parameter of gamma_net_3d fits it .*begin with .*stem.*: correct it"
        ):
            TrainingModule(settings(tmp_path, groups=groups))


def test_sgd_has_the_momentum_of_the_file(tmp_path):
    """The momentum of sgd is 0.95 or what the file says; with another optimiser it is refused, as nothing uses it."""
    module = TrainingModule(settings(tmp_path))
    for change, wanted in (({}, 0.95), ({"momentum": 0.9}, 0.9), ({"momentum": 0.0}, 0.0)):
        found = make_optimiser(module.network, settings(tmp_path, optimiser="sgd", **change))
        assert found.param_groups[0]["momentum"] == wanted
    with pytest.raises(ConfigError, match=r"momentum is 0.9, which is not used with optimiser: adamw: set"):
        train(settings(tmp_path, momentum=0.9))
