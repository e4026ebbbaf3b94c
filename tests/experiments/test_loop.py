"""The training loop is deterministic, treats every rule alike, and can be read at any step."""

import numpy as np
import pytest
import torch

from pipeline.experiments.loop import Course, Images, draw, followed, forward, iou, logit, train, turned
from pipeline.experiments.pathfinder_task import TINY, fresh_network
from pipeline.training.rules import Backpropagation, RecurrentBackpropagation

COURSE = Course(updates=5, batch=2, rate=0.01, looks=2)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 12, 12, generator=generator)
    return Images(images, (images > 0.8).float())


def trained_once(data, rule=None, penalty=0.0, seed=0):
    network = fresh_network(TINY, 3, seed)
    return network, train(network, rule or Backpropagation(), data, COURSE, seed, lambda: 0.5, penalty)


def test_the_same_seed_gives_the_same_weights(data):
    """Two trainings with the same seed give the same weights and the same losses."""
    (a, first), (b, second) = trained_once(data), trained_once(data)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert first.losses == second.losses


def test_another_seed_gives_other_weights(data):
    assert trained_once(data)[1].losses != trained_once(data, seed=1)[1].losses


def test_the_last_look_is_at_the_end(data):
    looks = trained_once(data)[1].looks
    assert [update for update, _, _ in looks] == [3, 5]
    assert looks[0][1] < looks[1][1]


def test_every_weight_that_is_used_moves(data):
    network, _ = trained_once(data)
    before = fresh_network(TINY, 3, 0)
    moved = [
        n for (n, p), q in zip(network.named_parameters(), before.parameters(), strict=True) if not torch.equal(p, q)
    ]
    assert {"bank.weight", "cell.inhibition.free", "cell.excitation.free", "cell.alpha", "readout.weight"} <= set(moved)


def test_rules_with_a_series_report_each_update(data):
    _, record = trained_once(data, RecurrentBackpropagation(), penalty=10.0)
    assert len(record.reports) == COURSE.updates
    assert all(report.stopped != "not run" for report in record.reports)


def test_the_penalty_is_added(data):
    network = fresh_network(TINY, 3, 0)
    plain, more = (forward(network, Backpropagation(), data.images, data.targets, w)[1].item() for w in (0.0, 10.0))
    assert more > plain


def test_reading_the_last_step_is_the_network_itself(data):
    """The F1 that is read at the last step is that of the network's own output."""
    network = fresh_network(TINY, 4, 0)
    with torch.no_grad():
        output = network(data.images)
        said = output[:, 1:2] - output[:, :1] > 0
    both = (said & (data.targets > 0)).sum().item()
    f1 = 2 * both / (said.sum().item() + data.targets.sum().item())
    assert followed(network, data, 4)[0][-1] == pytest.approx(f1)


def test_the_first_step_goes_all_the_way(data):
    """The relative distance of the first step is 1, since the state begins at zero."""
    assert followed(fresh_network(TINY, 4, 0), data, 3)[1][0] == 1


def test_one_class_and_two_give_one_logit(data):
    network = fresh_network(TINY, 2, 0)
    x = network.drive(data.images)
    state = network.step(x, network.initial(x))
    assert logit(network, state, x, data.images).shape == data.images.shape


def test_images_are_turned_and_mirrored_in_eight_ways():
    r = torch.arange(9.0).view(1, 1, 3, 3)
    assert len({tuple(turned(r, way).flatten().tolist()) for way in range(8)}) == 8


def test_image_and_target_are_turned_alike():
    r = torch.rand(5, 1, 4, 4)
    generator = torch.Generator().manual_seed(3)
    for _ in range(9):
        images, targets = draw(Images(r, r), 3, generator)
        assert torch.equal(images, targets)


def test_iou_is_of_the_same_pixels_as_f1():
    both, either = 3, 5
    assert iou(2 * both / (both + either)) == pytest.approx(both / either)
    assert np.allclose(iou(np.array([0.0, 1.0])), [0, 1])
