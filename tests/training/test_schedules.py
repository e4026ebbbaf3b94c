"""Learning rates follow their schedules, and every optimiser can train and resume."""

from itertools import pairwise

import pytest

from pipeline.training.schedules import FINAL_RATE, halvings, share_of_rate
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
