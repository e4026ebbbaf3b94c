"""Targets and losses are made from the lists that configuration files give."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.config.base import Table
from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.training import targets
from pipeline.training.loss_specs import AnyLoss, Dice
from pipeline.training.losses import combined_loss, dice_loss, mean_square, weighted_bce
from pipeline.training.target_specs import AnyTarget, Targets, make_targets
from tests.training.targets import usual

ROOT = Path(__file__).resolve().parents[2]

EVERY_TARGET = [
    {"what": "affinities", "offsets": [[-1, 0, 0], [0, -9, 0]]},
    {"what": "affinities", "offsets": [[0, 0, -1]], "erosion": "in_plane"},
    {"what": "foreground", "losses": [{"kind": "bce"}, {"kind": "dice", "weight": 0.5}], "weights": "ratio"},
    {"what": "membranes", "zero": "background", "losses": [{"kind": "focal", "gamma": 1.5}]},
    {"what": "contours", "weights": "ratio_dilated", "losses": [{"kind": "bce", "weight": 2}]},
    {"what": "foreground", "weights": "unet", "losses": [{"kind": "bce"}]},
    {"what": "signed_distance"},
    {"what": "instance_distance"},
    {"what": "shape_descriptors", "sigma_nm": [24, 24, 24]},
]


class File(Table):
    targets: Targets


def specs(*tables):
    return parse_config({"targets": list(tables)}, File).targets


@pytest.fixture(scope="module")
def labels():
    return np.kron(np.random.default_rng(0).integers(0, 3, (2, 4, 4)), np.ones((4, 4, 4), int))


def test_every_target_has_its_channels_and_weights(labels):
    chosen = specs(*EVERY_TARGET)
    target, weights = make_targets(chosen, labels, (8, 8, 8))
    assert target.dtype == weights.dtype == np.float32
    assert target.shape == weights.shape == (sum(s.target_channels for s in chosen), *labels.shape)
    assert [s.channels for s in chosen] == [2, 1, 1, 1, 1, 1, 1, 11, 10]
    assert np.isfinite(target).all()


def test_every_target_is_made_in_the_plane_as_well(labels):
    flat = [{**EVERY_TARGET[0], "offsets": [[-1, 0], [0, -9]]}, *EVERY_TARGET[2:-1]]
    chosen = specs(*flat, {"what": "shape_descriptors", "sigma_nm": [24, 24]})
    target, weights = make_targets(chosen, labels[0], (8, 8))
    assert target.shape == weights.shape == (sum(s.target_channels for s in chosen), *labels.shape[1:])


def test_targets_are_those_of_the_functions(labels):
    made, weights = make_targets(specs(*EVERY_TARGET), labels, (8, 8, 8))
    affinities, mask = targets.affinities(labels, [(-1, 0, 0), (0, -9, 0)], targets.erode(labels))
    assert np.array_equal(made[:2], affinities)
    assert np.array_equal(weights[:2], mask)
    assert np.array_equal(made[3:4], targets.foreground(labels))
    assert np.array_equal(weights[3:4], targets.ratio_weights(targets.foreground(labels)))
    assert np.array_equal(weights[5:6], targets.ratio_weights(usual.contours(labels), dilate=True))
    assert np.array_equal(weights[6:7], targets.unet_weights(labels))
    assert np.array_equal(made[7:8], usual.signed_distance(labels))


def test_the_total_is_the_weighted_sum_of_all_losses(labels):
    """The total is the weighted sum of all losses, each computed on the channels of its target."""
    chosen = specs(
        {"what": "foreground", "losses": [{"kind": "bce"}, {"kind": "dice", "weight": 0.5}], "weights": "ratio"},
        {"what": "signed_distance", "losses": [{"kind": "mse", "activation": "tanh", "weight": 5}]},
    )
    target, weights = (torch.from_numpy(part)[None] for part in make_targets(chosen, labels, (8, 8, 8)))
    logits = torch.randn(1, 2, *labels.shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = combined_loss(chosen, logits, target, weights)
    first, second = ([part[:, k : k + 1] for part in (logits, target, weights)] for k in range(2))
    expected = [weighted_bce(*first), dice_loss(*first, smooth=Dice().smooth), mean_square(*second, activation="tanh")]
    assert found.parts.keys() == {"foreground/bce", "foreground/dice", "signed_distance/mse"}
    assert [part.item() for part in found.parts.values()] == [loss.item() for loss in expected]
    assert found.total.item() == pytest.approx((expected[0] + 0.5 * expected[1] + 5 * expected[2]).item())
    found.total.backward()
    assert logits.grad.abs().sum() > 0


def test_every_target_can_be_learned_from(labels):
    chosen = specs(*EVERY_TARGET)
    target, weights = (torch.from_numpy(part)[None] for part in make_targets(chosen, labels, (8, 8, 8)))
    logits = torch.zeros(1, sum(s.channels for s in chosen), *labels.shape, requires_grad=True)
    found = combined_loss(chosen, logits, target, weights)
    found.total.backward()
    assert len(found.parts) == sum(len(s.losses) for s in chosen)
    assert (logits.grad.abs().sum((0, 2, 3, 4)) > 0).all()


def test_a_network_with_other_channels_is_refused(labels):
    chosen = specs({"what": "foreground"})
    with pytest.raises(ConfigError, match=r"3 channels.*\[1\]"):
        combined_loss(chosen, torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"what": "membrane"}, r"targets.0.what is 'membrane'; .*shape_descriptors; did you mean 'membranes'\?$"),
        ({"wat": "membranes"}, r"targets.0: 'what' is missing"),
        ({"what": "affinities"}, "ield required"),
        ({"what": "affinities", "offsets": []}, "at least 1"),
        ({"what": "foreground", "losses": []}, "at least 1"),
        ({"what": "foreground", "losses": [{"kind": "cross_entropy"}]}, "distances in levels"),
        ({"what": "instance_distance", "losses": [{"kind": "dice"}]}, "distances in levels"),
        ({"what": "instance_distance", "levels": None}, "choose other losses"),
        (
            {"what": "foreground", "losses": [{"kind": "dice", "gamma": 2}]},
            "losses.0.gamma: unknown key; known keys are",
        ),
        ({"what": "foreground", "losses": [{"kind": "dice", "smoth": 2}]}, "did you mean 'smooth'"),
        ({"what": "affinities", "offsets": [[0, -1], [0, 0]]}, "from a voxel to itself"),
        ({"what": "contours", "losses": [{"kind": "bce", "weight": 0}]}, "greater than 0"),
        ({"what": "contours", "weights": "ratio"}, "balances by itself"),
    ],
)
def test_what_makes_no_sense_is_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        specs(table)


def test_a_target_survives_being_written_down():
    adapter = TypeAdapter(AnyTarget)
    for target in specs(*EVERY_TARGET):
        assert adapter.validate_json(target.model_dump_json()) == target


def test_the_page_names_every_target_and_every_loss():
    """The page on training names every target, every key of a target and every loss."""
    page = (ROOT / "docs" / "training.md").read_text()
    for target in get_args(get_args(AnyTarget)[0]):
        assert f"| `{target.model_fields['what'].default}` |" in page
        for key in target.model_fields.keys() - {"what", "losses", "weights"}:
            assert f"`{key}`" in page, key
    for loss in get_args(get_args(AnyLoss)[0]):
        for kind in get_args(loss.model_fields["kind"].annotation):
            assert f"| `{kind}` |" in page
