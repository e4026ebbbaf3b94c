"""Every number of a configuration file has limits, and whatever form of a text is refused, the message is in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.config.base import Positive, Table
from pipeline.config.problems import tables_of
from pipeline.config.reading import parse_config
from pipeline.config.reference import keys_of, markdown
from pipeline.config.run_file import RunConfig
from pipeline.errors import ConfigError
from pipeline.models.spec import ModelCard
from pipeline.registry import load
from pipeline.training.config import TrainConfig
from pipeline.training.loss_specs import LOSSES
from pipeline.training.rule_specs import RULES
from pipeline.training.target_specs import TARGETS
from pipeline.training.weight_specs import WEIGHTS

BASE: dict[str, Any] = {"run_directory": "r", "input": {"image": "i"}}


def reached(table: type[Table]) -> Iterator[type[Table]]:
    """A table and all tables inside it."""
    yield table
    for field in table.model_fields.values():
        for inner in tables_of(field):
            yield from reached(inner)


def tables() -> list[type[Table]]:
    """Every table of a run file, a training file and a model's card."""
    registered = [load(path) for rows in (RULES, LOSSES, TARGETS, WEIGHTS) for path in rows.values()]
    roots = [RunConfig, TrainConfig, ModelCard, *registered]
    return list(dict.fromkeys(each for root in roots for each in reached(root)))


def numbers(schema: Any) -> Iterator[dict[str, Any]]:
    """The floating-point numbers in the schema of a key; those of a list too, but not those of a table of any keys."""
    if isinstance(schema, dict):
        if schema.get("type") == "number":
            yield schema
        for key, value in schema.items():
            if key in ("anyOf", "prefixItems", "items", "allOf"):
                for each in value if isinstance(value, list) else [value]:
                    yield from numbers(each)


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.__name__)
def test_no_number_is_absurdly_small_or_large(table: type[Table]) -> None:
    """A number is at least 0, at least a small positive one, or at least a negative one; and none is infinite."""
    for key, schema in table.model_json_schema()["properties"].items():
        for number in numbers(schema):
            most = number.get("maximum", number.get("exclusiveMaximum"))
            assert most is not None, f"{table.__name__}.{key} has no largest value: {number}"
            assert "minimum" in number, f"{table.__name__}.{key} has no smallest value: {number}"
            assert most <= 1e9, key
            assert number["minimum"] <= 0 or number["minimum"] >= 1e-9, key


@pytest.mark.parametrize("value", [1e-300, 0.0, -1.0, 1e300])
@pytest.mark.parametrize("key", ["lease_seconds", "timeout_seconds"])
def test_an_absurd_time_is_refused_with_the_limit(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"execution\.{key} is .*: input should be .* than or equal to [\d.]+"):
        parse_config({**BASE, "execution": {key: value}})


def given(key: str, value: Any) -> dict[str, Any]:
    """A run file that says one key."""
    *tables, leaf = key.split(".")
    result: dict[str, Any] = {**BASE}
    place = result
    for table in tables:
        place[table] = dict(place.get(table, {}))
        place = place[table]
    place[leaf] = value
    return result


def refusal(data: dict[str, Any]) -> str:
    """The message with which a run file is refused; an empty text if it is not."""
    try:
        parse_config(data)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("key", list(keys_of()))
def test_no_refusal_shows_a_regular_expression(key: str) -> None:
    """Whatever text a key refuses, the message says the rule in words."""
    for text in ("a b; rm -rf /", "$(x)", "ä", "-", "", "x" * 5000):
        for value in (text, [text], {text: text}):
            assert "[A-Za-z0-9" not in refusal(given(key, value))
            assert "pattern" not in refusal(given(key, value))


@pytest.mark.parametrize("table", ["cluster", "cluster.driver", "cluster.workers", "cluster.inference_workers"])
def test_slurm_takes_several_partitions(table: str) -> None:
    """sbatch takes lists of partitions, qualities of service and reservations, with commas in between."""
    for key in ("queue", "qos", "reservation"):
        assert parse_config(given(f"{table}.{key}", "short,long,gpu-a100"))
        for wrong in ("a,,b", ",a", "a, b", "a;b", "a,b "):
            with pytest.raises(ConfigError, match=rf"{table}\.{key}: .*is no name .* like long or short,long"):
                parse_config(given(f"{table}.{key}", wrong))


def test_the_page_of_keys_says_that_a_positive_number_is_more_than_0() -> None:
    """The smallest number that is accepted is a detail which no reader needs."""

    class Page(Table):
        size: Positive = 2.0

    assert "| `size` | number more than 0 | `2.0` |" in markdown(Page)
