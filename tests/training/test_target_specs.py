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
from pipeline.registry import load
from pipeline.training import targets
from pipeline.training.loss_specs import LOSSES
from pipeline.training.losses import Dice, dice_loss, mean_square, weighted_bce
from pipeline.training.target_specs import TARGETS, AnyTarget, Targets, make_targets
from pipeline.training.total_loss import combined_loss
from pipeline.training.weight_specs import WEIGHTS
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
MORE_TARGETS = [
    {"what": "classes", "count": 4, "weights": "ratio"},
    {"what": "contour_map", "full": 3},
    {"what": "classes", "count": 3, "ignore": 0, "losses": [{"kind": "cross_entropy", "smoothing": 0.1}]},
    {"what": "foreground", "weights": "calibre", "losses": [{"kind": "weighted_dice"}, {"kind": "bce"}]},
    {"what": "contours", "weights": {"kind": "ratio", "per_channel": True}, "losses": [{"kind": "bce"}]},
    {"what": "signed_distance", "label_erosion": 1, "losses": [{"kind": "l1", "activation": "tanh"}]},
    {"what": "shape_descriptors", "losses": [{"kind": "smooth_l1", "beta": 0.1}]},
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
    chosen = specs(*EVERY_TARGET, *MORE_TARGETS)
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
        ({"what": "membrane"}, r"targets.0.what is 'membrane'; .*shape_descriptors, .*; did you mean 'membranes'\?$"),
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
        ({"what": "classes"}, "ield required"),
        ({"what": "classes", "count": 3, "losses": [{"kind": "dice"}]}, "classes and distances in levels"),
        (
            {
                "what": "classes",
                "count": 3,
                "weights": "ratio",
                "losses": [{"kind": "cross_entropy", "balanced": True}],
            },
            "cross_entropy balances by itself",
        ),
        ({"what": "foreground", "losses": [{"kind": "bce"}], "weights": "thin"}, "weights.kind is 'thin'; .*calibre"),
        (
            {"what": "foreground", "losses": [{"kind": "bce"}], "weights": {"kind": "unet", "full_nm": 3}},
            "full_nm: unknown key",
        ),
        ({"what": "membranes", "label_erosion": 1}, "follows from reach_nm"),
        ({"what": "foreground", "label_erosion": -1}, "greater than or equal to 0"),
    ],
)
def test_what_makes_no_sense_is_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        specs(table)


def test_a_target_survives_being_written_down():
    adapter = TypeAdapter(AnyTarget)
    for target in specs(*EVERY_TARGET, *MORE_TARGETS):
        assert adapter.validate_json(target.model_dump_json()) == target


@pytest.mark.parametrize(("table", "key"), [(TARGETS, "what"), (LOSSES, "kind"), (WEIGHTS, "kind")])
def test_a_row_has_a_name_of_its_class(table, key):
    """The class of each row (targets, losses, weights) accepts the row's name, and only names of its rows, as key."""
    for path in table.values():
        names = get_args(load(path).model_fields[key].annotation)
        assert set(names) == {name for name, other in table.items() if other == path}


def test_the_page_names_every_target_and_every_loss():
    """The page on training names every target, every key of a target and every loss."""
    page = (ROOT / "docs" / "training.md").read_text()
    for what, path in TARGETS.items():
        target = load(path)
        assert f"| `{what}` |" in page
        for key in target.model_fields.keys() - {"what", "losses", "weights"}:
            assert f"`{key}`" in page, key
    assert all(f"| `{kind}` |" in page for kind in (*LOSSES, *WEIGHTS))
    for path in (*LOSSES.values(), *WEIGHTS.values()):
        for key in load(path).model_fields.keys() - {"kind", "weight"}:
            assert f"`{key}`" in page, (path, key)


def test_weights_of_one_name_are_written_down_as_the_name():
    """A name is short for its table with all defaults, and is written as the name; other settings as a table."""
    short, table, changed = specs(
        {"what": "foreground", "weights": "calibre", "losses": [{"kind": "bce"}]},
        {"what": "foreground", "weights": {"kind": "calibre", "full_nm": 200}, "losses": [{"kind": "bce"}]},
        {"what": "foreground", "weights": {"kind": "calibre", "full_nm": 300}, "losses": [{"kind": "bce"}]},
    )
    assert short == table
    assert short.model_dump()["weights"] == "calibre"
    assert changed.model_dump()["weights"] == {"kind": "calibre", "full_nm": 300, "halvings": 3, "in_plane": True}


def test_classes_are_the_labels_and_what_is_ignored_is_masked():
    """Class numbers are the labels; the ignored label has weight 0, also where it is no class."""
    labels = np.array([[[0, 1, 2, 255]]])
    (chosen,) = specs({"what": "classes", "count": 3, "ignore": 255})
    target, weights = make_targets([chosen], labels, (8, 8, 8))
    assert target[..., :3].ravel().tolist() == [0, 1, 2]
    assert weights.ravel().tolist() == [1, 1, 1, 0]
    assert (chosen.channels, chosen.target_channels, chosen.activation) == (3, 1, "softmax")
    assert specs({"what": "classes", "count": 3, "ignore": 0})[0].zero_is_unknown


@pytest.mark.parametrize("strange", [3, -1])
def test_a_label_that_is_no_class_is_refused(strange):
    """A label of no class is refused with its value, the rule and the remedy."""
    (chosen,) = specs({"what": "classes", "count": 3})
    with pytest.raises(ConfigError, match=rf"label {strange}; count is 3, so labels go from 0 to 2: raise count"):
        chosen.make(np.array([[[0, strange]]]), (8, 8, 8))


@pytest.mark.parametrize("voxels", [0, 1, 2])
def test_erosion_empties_the_borders_of_objects_in_every_target(voxels):
    """Voxels within n of another label are in no object, in each section: n voxels on either side of a contact."""
    labels = np.kron([[[1, 2], [1, 2]]] * 3, np.ones((1, 8, 8), int))
    foreground, affinities, classes = specs(
        {"what": "foreground", "label_erosion": voxels},
        {"what": "affinities", "offsets": [[0, 0, -1]], "erosion": "none", "label_erosion": voxels},
        {"what": "classes", "count": 3, "label_erosion": voxels},
    )
    left = [1] * (8 - voxels) + [0] * 2 * voxels + [1] * (8 - voxels)
    assert foreground.make(labels, (8, 8, 8))[0][0, 1, 5].tolist() == left
    target, weights = affinities.make(labels, (8, 8, 8))
    walls = [0 if i == 8 else int(left[i] and left[i - 1]) for i in range(1, 16)]
    assert target[0, 1, 5, 1:].tolist() == walls
    assert weights[0, 1, 5, 1:].all(), "eroded voxels are walls, not unknown"
    assert (classes.make(labels, (8, 8, 8))[0][0, 1, 5] > 0).tolist() == [bool(each) for each in left]


def test_contours_on_which_annotators_disagree_are_masked():
    """Labels strictly between 0 and half of all annotators are masked; from half on they are contours."""
    (chosen,) = specs({"what": "contour_map", "full": 10})
    target, weights = make_targets([chosen], np.array([[[0, 1, 4, 5, 6, 10]]]), (8, 8, 8))
    assert target.ravel().tolist() == [0, 0, 0, 1, 1, 1]
    assert weights.ravel().tolist() == [1, 0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match="a pixel has the label 11; full is 10"):
        make_targets([chosen], np.array([[[0, 11]]]), (8, 8, 8))


def test_erosion_keeps_ignored_voxels_ignored():
    """A class that is ignored stays masked at its borders, and does not become background."""
    labels = np.kron([[[1, 255]]], np.ones((1, 4, 4), int))
    (chosen,) = specs({"what": "classes", "count": 2, "ignore": 255, "label_erosion": 1})
    assert chosen.make(labels, (8, 8, 8))[1][0, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_the_ratio_of_each_channel_balances_each(labels):
    """Per channel, the classes of every channel weigh the same; over all channels together they do not."""
    offsets = {"what": "affinities", "offsets": [[0, 0, -1], [0, 0, -6]], "losses": [{"kind": "bce"}]}
    for each in (True, False):
        (chosen,) = specs({**offsets, "weights": {"kind": "ratio", "per_channel": each}})
        target, weights = make_targets([chosen], labels, (8, 8, 8))
        sums = [[weights[k][target[k] == value].sum() for value in (0, 1)] for k in range(2)]
        shares = [(t[m > 0]).mean() for t, m in zip(target, weights, strict=True)]
        assert all(0.05 < share < 0.95 for share in shares)
        assert all(one == pytest.approx(zero) for zero, one in sums) == each
