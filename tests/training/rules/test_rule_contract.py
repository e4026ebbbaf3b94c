"""Every learning rule keeps the contract, with the settings that a training file gives by default."""

import pytest

from pipeline.errors import ConfigError
from pipeline.registry import load
from pipeline.training.rule_specs import RULES, rule_named
from pipeline.training.rules import (
    Backpropagation,
    CheckpointedBackpropagation,
    RecurrentBackpropagation,
    Rule,
    TruncatedBackpropagation,
)
from tests.contracts.rule import RuleContract


class TestBackpropagation(RuleContract):
    def make(self) -> Rule:
        return rule_named("bptt")


class TestTruncated(RuleContract):
    def make(self) -> Rule:
        return rule_named("truncated", window=2)


class TestCheckpointed(RuleContract):
    def make(self) -> Rule:
        return rule_named("checkpointed")


class TestRecurrent(RuleContract):
    def make(self) -> Rule:
        return rule_named("rbp")


def test_rules_are_made_by_name_and_each_has_its_contract_tests_here():
    """Each row of the registry gives its rule, with the defaults of a training file."""
    assert {name: rule_named(name) for name in RULES} == {
        "bptt": Backpropagation(),
        "truncated": TruncatedBackpropagation(window=4),
        "checkpointed": CheckpointedBackpropagation(),
        "rbp": RecurrentBackpropagation(),
    }


def test_a_row_has_the_name_of_its_settings():
    """The settings of a row are those of a table whose ``kind`` is the row's name."""
    assert {name: load(path)().kind for name, path in RULES.items()} == {name: name for name in RULES}


def test_an_unknown_rule_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="the rule is 'hebb'; there are bptt, truncated, checkpointed, rbp"):
        rule_named("hebb")
