"""The pages on trainings name every key, and their examples are valid."""

import re
from typing import get_args

import pytest
import yaml

from pipeline.config.reading import load_config, parse_config
from pipeline.models.gamma_net_3d import SIZES
from pipeline.models.spec import ModelCard, OtherChannels, build
from pipeline.registry import load
from pipeline.training.config import Augmentation, LabelledVolume, TrainConfig
from pipeline.training.learning import check_rule
from pipeline.training.module import arguments_of
from pipeline.training.rule_specs import RULES, AnyPenalty
from pipeline.training.sampling import Sampling


def keys_of(*models):
    """All keys of these tables."""
    return {f"{model.__name__}.{key}": key for model in models for key in model.model_fields}


def test_the_pages_name_every_key(request):
    """The pages name every key of the training tables and of the model card."""
    tables = [TrainConfig, LabelledVolume, Augmentation, Sampling]
    tables += [*map(load, RULES.values()), *members(AnyPenalty)]
    wanted = {"training.md": keys_of(*tables), "models.md": keys_of(ModelCard, OtherChannels)}
    for name, keys in wanted.items():
        page = (request.config.rootpath / "docs" / name).read_text()
        for field, key in keys.items():
            assert any(text in page for text in (f"`{key}`", f"`{key}: ", f"{key}: ")), f"{field} in {name}"


def members(union):
    """The classes of an annotated union."""
    return get_args(get_args(union)[0])


def test_every_example_of_the_page_on_training_is_valid(request):
    """Every example is accepted: the first is whole, the others replace parts of it, and one is of a card."""
    page = (request.config.rootpath / "docs" / "training.md").read_text()
    first, *parts = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert parse_config(first, TrainConfig).arguments in SIZES
    assert len(parts) > 5
    for part in parts:
        if "other_channels" in part:
            assert [OtherChannels.model_validate(other) for other in part["other_channels"]]
            continue
        whole = {key: value for key, value in first.items() if not (key == "offsets" and "targets" in part)}
        config = parse_config(whole | part, TrainConfig)
        check_rule(
            build(config.architecture, arguments_of(config)), config.rule, config.architecture, config.patch_shape
        )


@pytest.mark.parametrize(
    "name", ["train_synthetic.yaml", "train_fib25.yaml", "train_fib25_plain.yaml", "train_stack.yaml"]
)
def test_examples_are_valid(name, request):
    """The example files of trainings load, and they state training data and licence."""
    config = load_config(request.config.rootpath / "examples" / name, (), TrainConfig)
    assert config.training_data
    assert config.licence
    assert "out_channels" in arguments_of(config)
