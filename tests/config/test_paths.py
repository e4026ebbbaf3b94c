"""Paths in configuration files are known by their type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ConfigDict, Field

from pipeline.config.base import DataPath, ModelName, Table
from pipeline.config.paths import markers, with_paths
from pipeline.config.problems import tables_of
from pipeline.config.reading import json_schema, parse_config
from pipeline.config.registered import KeyOf
from pipeline.config.run_file import RunConfig
from pipeline.config.slurm import SlurmJob
from pipeline.runs.run import with_absolute_paths
from pipeline.training.config import TrainConfig

PATHS = {
    RunConfig: {
        *("run_directory", "input.image", "input.affinities", "input.mask", "inference.model"),
        *("input.membranes", "input.heads", "input.labels"),
        *("evaluation.labels", "evaluation.skeletons", "organelles.volumes"),
    },
    TrainConfig: {
        *("output", "start_from", "backbone"),
        *(f"{table}.{key}" for table in ("volumes", "validation") for key in ("image", "labels", "mask")),
    },
}
WORKERS = ("workers", "inference_workers")
JOB = {name for name in SlurmJob.model_fields if name != "tmp_gb"}
POD = {
    *("node_selector", "node_affinity", "priority_class", "runtime_class", "tolerations.key", "tolerations.value"),
}
CLUSTER = {
    *("cluster.interface", "cluster.ports", "cluster.namespace", "cluster.image", "cluster.claim", "cluster.secrets"),
    *("cluster.image_pull_secret", "cluster.prices.currency", "cluster.driver.mail_user"),
    *(f"cluster.{each}.{key}" for each in ("driver", *WORKERS) for key in ("walltime", "gpu_resource")),
    *(f"cluster.{pod}.{key}" for pod in ("driver", *WORKERS) for key in POD),
    *(f"cluster.kubernetes.{key}" for key in ("service_account", "labels", "annotations", "queue")),
    *(f"cluster.kubernetes.claims.{key}" for key in ("claim", "path", "sub_path")),
    *(f"{table}.{key}" for key in JOB for table in ("cluster", "cluster.driver", *(f"cluster.{w}" for w in WORKERS))),
}
OTHER_TEXTS = {
    RunConfig: {
        *("inference.gpu", "inference.heads", "execution.scheduler", "execution.metrics", "execution.dashboard"),
        *("segmentation.head", "segmentation.within", "segmentation.seeds_within"),
        *CLUSTER,
    },
    TrainConfig: {"name", "architecture", "arguments", "groups.match", "training_data", "licence", *CLUSTER},
}
"""Keys whose values are texts, but no paths: a new key with a text belongs here, or needs the type ``DataPath``."""


def texts(annotation: Any) -> bool:
    """True if an annotation allows a free text."""
    if get_origin(annotation) is Literal or any(isinstance(part, KeyOf) for part in get_args(annotation)):
        return False
    return annotation is str or any(texts(each) for each in get_args(annotation))


def keys(table: type[Table], before: str = "") -> Iterator[tuple[str, bool]]:
    """The keys of a table that hold free texts, those of the tables in it too, and whether they are paths."""
    for name, field in table.model_fields.items():
        if texts(field.annotation) and not any(isinstance(part, KeyOf) for part in field.metadata):
            yield f"{before}{name}", any(markers((field.annotation, *field.metadata)))
        for inner in tables_of(field):
            yield from keys(inner, f"{before}{name}.")


@pytest.mark.parametrize("model", [RunConfig, TrainConfig])
def test_each_text_of_a_file_is_a_path_by_its_type_or_known_to_be_none(model: type[Table]) -> None:
    """A key with a path has the type of a path, so that no relative path depends on where a command is given."""
    found = dict(keys(model))
    assert {key for key, is_path in found.items() if is_path} == PATHS[model]
    assert {key for key, is_path in found.items() if not is_path} == OTHER_TEXTS[model]


def run(**tables: Any) -> RunConfig:
    """A run file with these tables."""
    return parse_config({"run_directory": "run", "input": {"image": "image.zarr"}, **tables})


def test_relative_paths_count_from_the_folder_of_the_file() -> None:
    """Paths at every depth are made absolute; absolute ones and URLs stay as they are."""
    given = run(input={"image": "../image.h5:raw", "mask": "gs://b/mask"}, evaluation={"labels": "/truth"})
    found = with_absolute_paths(given, "/data/runs")
    assert (found.run_directory, found.input.image) == ("/data/runs/run", "/data/image.h5:raw")
    assert (found.input.mask, found.evaluation.labels, found.evaluation.skeletons) == ("gs://b/mask", "/truth", None)
    assert with_absolute_paths(given, "s3://b/runs").input.image == "s3://b/image.h5:raw"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("fib25-tiny", "fib25-tiny"),
        ("mine/card.yaml", "/data/mine/card.yaml"),
        ("card.yml", "/data/card.yml"),
        ("./mine", "/data/mine"),
        ("s3://b/m", "s3://b/m"),
    ],
)
def test_a_model_is_a_path_if_it_has_a_slash_or_ends_like_a_card(model: str, expected: str) -> None:
    assert with_absolute_paths(run(inference={"model": model}), "/data").inference.model == expected


def test_what_was_left_out_stays_left_out() -> None:
    """A file that is written again holds the keys that its user wrote, and no defaults."""
    given = run(inference={"threads": 2})
    assert with_absolute_paths(given, "/d").model_dump(exclude_unset=True) == {
        **{"run_directory": "/d/run", "input": {"image": "/d/image.zarr"}, "inference": {"threads": 2}}
    }


class Inner(Table):
    """A table with a list."""

    model_config = ConfigDict(strict=False)
    places: tuple[DataPath, ...] = ("default",)
    names: tuple[str, ...] = ()


class Outer(Table):
    """Tables in a list and in a dictionary."""

    tables: tuple[Inner, ...] = ()
    by_name: dict[str, DataPath | None] = Field(default_factory=dict)
    model: ModelName | None = None


def test_lists_and_dictionaries_of_paths_and_of_tables_are_walked() -> None:
    given = Outer(tables=(Inner(places=("a", "b"), names=("c",)), Inner()), by_name={"x": "d", "y": None}, model="name")
    found = with_paths(given, lambda path: f"<{path}>")
    assert [inner.places for inner in found.tables] == [("<a>", "<b>"), ("default",)]
    assert found.tables[0].names == ("c",)
    assert (found.by_name, found.model) == ({"x": "<d>", "y": None}, "name")


def test_editors_are_told_what_a_path_is() -> None:
    schema = json_schema()
    assert schema["properties"]["run_directory"]["format"] == "path or URL"
    assert schema["$defs"]["Inference"]["properties"]["model"]["format"] == "name, path or URL"
