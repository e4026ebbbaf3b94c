"""The heads of a card: their names, their channels, and what is stored of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.models.heads import KNOWN, Head, chosen_heads, heads_of, storable
from pipeline.models.spec import ModelCard, load_card
from pipeline.training.target_specs import TARGETS
from tests.heads import EVERY_HEAD, write_model


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return load_card(write_model(tmp_path, EVERY_HEAD))


def head_named(card: ModelCard, name: str) -> Head:
    return next(head for head in heads_of(card) if head.name == name)


def test_the_heads_of_a_card_follow_one_another_in_the_output(card: ModelCard) -> None:
    places = {head.name: (head.first, head.channels) for head in heads_of(card)}
    assert places == {
        **{"affinities": (0, 3), "membranes": (3, 1), "signed_distance": (4, 1), "instance_distance": (5, 4)},
        **{"classes": (9, 3), "shape_descriptors": (12, 10), "depth": (22, 1), "flow": (23, 2)},
    }


@pytest.mark.parametrize(
    ("name", "mapping", "channels", "limits"),
    [
        ("affinities", "probability", 3, (0, 1)),
        ("membranes", "probability", 1, (0, 1)),
        ("signed_distance", "signed", 1, (-1, 1)),
        ("instance_distance", "level", 1, (0, 1)),
        ("classes", "classes", 3, (0, 1)),
        ("shape_descriptors", "probability", 10, (0, 1)),
    ],
)
def test_the_mapping_of_a_head_follows_from_its_activation(
    card: ModelCard, name: str, mapping: str, channels: int, limits: tuple[float, float]
) -> None:
    head = head_named(card, name)
    said = head.attributes["petaseg_head"]
    assert (head.mapping, head.stored_channels) == (mapping, channels)
    assert said["mapping"] == mapping
    assert (said["at_0"], said["at_255"]) == limits


def test_every_target_of_a_training_is_a_known_head() -> None:
    """A new target needs its line in ``KNOWN``, and a thought about how it turns."""
    assert set(TARGETS) == set(KNOWN)


def test_affinities_that_do_not_begin_with_the_nearest_neighbours_are_a_head_that_cannot_be_turned() -> None:
    other = Head("affinities", 0, 4, "sigmoid")
    assert not other.turns
    assert other.stored_channels == 4


def test_there_is_neither_object_nor_neuron_where_there_is_no_image(card: ModelCard) -> None:
    """Membranes and the first class, which mostly is background, are 1 there; all else is 0."""
    assert {head.name for head in heads_of(card) if any(head.outside)} == {"membranes", "classes"}
    assert head_named(card, "classes").outside == (1.0, 0.0, 0.0)


def test_a_head_that_the_model_lacks_is_refused_with_the_list(card: ModelCard) -> None:
    with pytest.raises(
        ConfigError, match=r"model every-head has no head 'clefts'; it predicts affinities, membranes, "
    ):
        chosen_heads(card, ["affinities", "clefts"])


def test_heads_come_in_the_order_of_the_card(card: ModelCard) -> None:
    """The order in the run file changes nothing."""
    assert chosen_heads(card, ["membranes", "affinities"]) == chosen_heads(card, ["affinities", "membranes"])


def test_values_without_limits_are_refused(card: ModelCard) -> None:
    with pytest.raises(ConfigError, match=r"head depth of model every-head has activation none; its values have no"):
        chosen_heads(card, ["depth"])
    assert "depth" not in [head.name for head in storable(heads_of(card))]


@pytest.mark.parametrize(
    ("heads", "name", "message"),
    [
        ([{"what": "cleft", "channels": 1}] * 2, "cleft", r"has 2 heads called 'cleft'; .* names must differ"),
        ([{"what": "a/b", "channels": 1}], "a/b", r"has a head 'a/b'; .* letters, digits, - and _"),
    ],
)
def test_names_that_no_volume_can_have_are_refused(
    tmp_path: Path, heads: list[dict[str, Any]], name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_heads(load_card(write_model(tmp_path, heads)), [name])
