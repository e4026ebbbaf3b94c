"""The challenge experiments draw pictures in memory, train in a small loop and score average precision."""

import numpy as np
import pytest
import torch

from pipeline.experiments.challenge import Fit, Learner, Pictures, pictures, precision, rate, score

UNET = ("residual_unet", {"widths": [4, 6], "dimensions": 2, "norm": "instance"})


def test_average_precision_of_scores_that_can_be_checked_by_hand():
    """With hits at ranks 1 and 3 of four, average precision is (1 / 1 + 2 / 3) / 2.

    The best F1 calls three positive and is 2 * 2 / (3 + 2).
    """
    assert precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])) == pytest.approx(
        (5 / 6, 0.8)
    )
    assert precision(np.array([3.0, 2.0, 1.0]), np.array([True, True, False])) == (1.0, 1.0)


def test_equal_scores_stand_together():
    """Equal scores share one rank, so a network that says the same everywhere gets the share of true pixels."""
    truth = np.array([True, True, False, False, False, False, False, False])
    assert precision(np.zeros(8), truth)[0] == precision(np.zeros(8), truth[::-1])[0] == 0.25


def test_a_share_of_the_labels_is_the_first_pictures():
    data = pictures(3, 0)
    assert data.images.shape == data.targets.shape == (3, 128, 128)
    assert len(data.first(1)) == 1
    assert set(np.unique(data.targets)) == {0.0, 1.0}
    assert not np.array_equal(data.images, pictures(3, 1).images)


def test_patches_are_cut_and_turned_alike_in_image_and_target():
    """A patch is cut and turned alike in image and target."""
    numbers = np.arange(2 * 40 * 40, dtype=np.float32).reshape(2, 40, 40)
    learner = Learner(*UNET, Pictures(numbers, numbers), Fit(1, patch=16), seed=3)
    drawn = [learner.draw() for _ in range(20)]
    assert all(np.array_equal(image, target) and image.shape == (16, 16) for image, target in drawn)
    assert len({float(image[0, 0]) for image, _ in drawn}) > 10


def test_the_same_seed_gives_the_same_network_and_training_helps():
    """Two trainings with the same seed score the same, and training with more updates scores higher."""
    data = pictures(2, 0)
    scores = []
    for updates in (1, 25, 25):
        learner = Learner(*UNET, data, Fit(updates, patch=64, learning_rate=1e-2), seed=0)
        learner.run()
        scores.append(score(learner.network, data)["ap"])
    assert scores[1] == scores[2]
    assert scores[1] > scores[0] + 0.05


def test_the_learning_rate_rises_then_falls():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates[-1] < 0.04
    assert torch.tensor(rates[10:]).diff().lt(0).all()
