"""Each kind of result has keys of its own; those of another kind, and levels that contradict, are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.reading import parse_config, read_config
from pipeline.config.run_file import KINDS_OF, RunConfig, Segmentation
from pipeline.errors import ConfigError

KINDS = ("neurons", "mask", "objects", "classes")
VALUES: dict[str, Any] = {
    "threshold": 0.4,
    "min_size": 100,
    "min_size_threshold": 0.2,
    "head": "foreground",
    "lowest_threshold": 0.1,
    "connectivity": 26,
    "median": [3, 5, 5],
    "within": {"signed_distance": {"above": -0.1}},
    "seed_threshold": 0.9,
    "seeds_within": {"contours": {"below": 0.2, "above": 0.0}},
    "min_seed_size": 5,
    "seedless": "keep",
}


def config(**segmentation: Any) -> RunConfig:
    parsed: RunConfig = parse_config(
        {"run_directory": "r", "input": {"image": "i"}, "segmentation": segmentation}, model=RunConfig
    )
    return parsed


@pytest.mark.parametrize("key", sorted(VALUES))
@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_for_its_kinds(kind: str, key: str) -> None:
    """A key is taken by the kinds that use it, and refused by the others with the kinds that would use it."""
    if kind in KINDS_OF[key]:
        seeds = {"seed_threshold": 0.9} if key in ("seedless", "min_seed_size") else {}
        assert config(kind=kind, **seeds, **{key: VALUES[key]}).segmentation.kind == kind
        return
    with pytest.raises(
        ConfigError, match=rf"segmentation\.{key} is for kind: .*{KINDS_OF[key][0]}.* is {kind}: remove"
    ):
        config(kind=kind, **{key: VALUES[key]})


def test_every_key_of_one_kind_is_known_here() -> None:
    """Each key but the kind itself is placed in the table."""
    assert {"kind", *VALUES} == {"kind", *KINDS_OF} == set(Segmentation.model_fields)


def test_a_key_of_another_kind_may_say_its_default() -> None:
    """A default says nothing, so a run file of ``petaseg init`` takes another kind on the command line."""
    table = {"threshold": None, "min_size": 0, "median": None, "seeds_within": {}}
    assert config(kind="classes", **table).segmentation == config(kind="classes").segmentation


def test_a_refused_key_of_a_class_map_leads_to_objects_of_one_class() -> None:
    with pytest.raises(ConfigError, match=r"is for kind: neurons or mask or objects.* head: classes:2:argmax"):
        config(kind="classes", threshold=0.4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"meshes": {}}, "meshes is given, and segmentation.kind is classes: .*leave meshes out, or make objects of"),
        ({"evaluation": {"skeletons": "s.npz"}}, "skeletons is s.npz, and segmentation.kind is classes: .*leave them"),
    ],
)
def test_what_is_about_single_objects_is_refused_with_a_class_map(table: dict[str, Any], message: str) -> None:
    """Meshes and skeletons need objects, which a class map has not."""
    whole = {"run_directory": "r", "input": {"image": "i"}, "segmentation": {"kind": "classes"}, **table}
    with pytest.raises(ConfigError, match=message):
        parse_config(whole, model=RunConfig)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "objects", "threshold": 0.6, "seed_threshold": 0.5}, "must rise, or be equal"),
        ({"kind": "mask", "threshold": 0.2, "lowest_threshold": 0.5}, "must rise, or be equal"),
        ({"kind": "objects", "seed_threshold": 0.2, "lowest_threshold": 0.5}, "must rise, or be equal"),
        ({"kind": "mask", "median": [3, 4, 3]}, r"every width must be odd.*\[3, 5, 3\]"),
        ({"kind": "objects", "within": {"contours": {}}}, "within.contours: the condition says nothing"),
        ({"kind": "objects", "within": {"contours": {"above": 0.5, "below": 0.5}}}, "no value is above 0.5 and below"),
        ({"kind": "objects", "within": {"contours": {"belwo": 0.5}}}, "did you mean 'below'"),
        ({"kind": "objects", "within": {"contours": 0.5}}, "must be a table"),
        (
            {"kind": "objects", "seedless": "keep"},
            "seedless is keep, and there are no seeds, so objects are pieces",
        ),
        ({"kind": "objects", "min_seed_size": 5}, "min_seed_size is 5, and there are no seeds"),
        ({"kind": "objects", "threshold": -1.5}, "greater than or equal to -1"),
        ({"threshold": -0.5}, "scores of neurons are from 0 to 1"),
        ({"kind": "organelles"}, "segmentation.kind is"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(table: dict[str, Any], message: str) -> None:
    """Levels that contradict each other, empty conditions and unknown words are refused before anything is opened."""
    with pytest.raises(ConfigError, match=message):
        config(**table)


def test_a_condition_is_changed_on_the_command_line() -> None:
    """``--set segmentation.seeds_within.contours.below=0.3`` changes one limit."""
    text = (
        b"run_directory: r\ninput: {image: i}\nsegmentation: {kind: objects, seeds_within: {contours: {below: 0.2}}}\n"
    )
    parsed: RunConfig = read_config(text, "run.yaml", ["segmentation.seeds_within.contours.below=0.3"])
    assert parsed.segmentation.seeds_within["contours"].below == 0.3
