"""Run files: everything wrong is refused before anything is computed, with the value, the rule and the remedy."""

import json

import pytest
import yaml

from pipeline.config.fingerprint import fingerprint
from pipeline.config.reading import apply_overrides, json_schema, load_config, parse_config
from pipeline.config.run_file import RunConfig
from pipeline.errors import ConfigError
from pipeline.runs.example import run_directory_for
from workflows.commands.init import write_example

MINIMAL = {"run_directory": "r", "input": {"image": "image.zarr"}}


def with_key(path, value):
    return apply_overrides(MINIMAL, [f"{path}={json.dumps(value)}"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("inference.batchsize", 4, "did you mean 'batch_size'"),
        ("inference.batch_size", 0, "greater than or equal to 1"),
        ("inference.batch_size", "4", "valid integer"),
        ("execution.executer", "dask", "did you mean 'executor'"),
        ("execution.executor", "ray", "'serial', 'threads' or 'dask'"),
        ("chunk_shape", [100, 128, 128], r"the nearest is \[128, 128, 128\]"),
        ("chunk_shape", [64, 64], r"chunk_shape is \[64, 64\]; number 3 of it is missing"),
        ("chunk_shape", [0, 64, 64], "greater than or equal to 1"),
        ("segmentation.threshold", 1.5, "less than or equal to 1"),
        ("segmentation.threshold", 0.01, "stop_score"),
        ("segmentation", {"threshold": 0.5, "min_size_threshold": 0.9}, "choose a smaller value"),
        ("input.affinities", "a.zarr", "exactly one of"),
        ("input.affinity_offsets", [[-1, 0, 0], [-1, 0, 0], [0, 0, -1]], "nearest neighbour along each axis"),
        ("unknown_table", {}, "unknown key"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_the_rule(path, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(with_key(path, value))
    assert path.split(".")[-1] in str(caught.value) or "input" in str(caught.value)


def test_all_problems_are_listed_at_once():
    data = {**MINIMAL, "inference": {"treads": 2, "batch_size": -1}}
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    assert str(caught.value).count("\n  - ") == 2


def test_configurations_are_frozen():
    config = parse_config(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.run_directory = "elsewhere"


def test_overrides_are_yaml_and_do_not_touch_the_original():
    data = apply_overrides(MINIMAL, ["chunk_shape=[64, 64, 64]", "input.mask=null", "segmentation.threshold=0.25"])
    assert data["chunk_shape"] == [64, 64, 64]
    assert data["input"]["mask"] is None
    assert data["segmentation"]["threshold"] == 0.25
    assert "chunk_shape" not in MINIMAL


@pytest.mark.parametrize("override", ["chunk_shape", "=3", "run_directory.x=3", "chunk_shape=[64", "a=b: c: d"])
def test_an_override_that_is_no_assignment_is_refused(override):
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides(MINIMAL, [override])


def test_the_example_of_init_is_valid_and_its_schema_describes_every_key(tmp_path, monkeypatch):
    """The example that ``petaseg init`` writes is valid, and its schema describes every key."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    write_example(file, "image.zarr")
    assert load_config(file).input.image == "image.zarr"
    schema = json.loads((tmp_path / "run.schema.json").read_text())
    assert schema == json_schema()
    for table in [schema, *schema["$defs"].values()]:
        for key, value in table["properties"].items():
            assert "description" in value or "$ref" in value or key in ("run_directory", "input"), key


def test_init_never_replaces_a_file_unasked(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        write_example(file, "image.zarr")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("data", [b"", b"[1, 2]", b"a: [1", b"just words", "run_directory: é".encode("latin-1")])
def test_a_file_that_is_no_table_is_refused(tmp_path, data):
    file = tmp_path / "run.yaml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(file)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="petaseg init"):
        load_config(tmp_path / "none.yaml")


def test_fingerprints_depend_on_values_only():
    config = parse_config(MINIMAL)
    again = parse_config(yaml.safe_load(yaml.safe_dump(MINIMAL)))
    assert fingerprint(config) == fingerprint(again) == fingerprint(RunConfig.model_validate(config))
    assert fingerprint(config) != fingerprint(parse_config(with_key("segmentation.threshold", 0.7)))


def test_the_page_of_all_keys_is_up_to_date():
    """docs/configuration.md is exactly what ``petaseg init --keys`` prints."""
    from pathlib import Path

    from pipeline.config.reference import markdown

    page = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
    assert page.read_text() == markdown()


@pytest.mark.parametrize(
    ("file", "image", "directory"),
    [
        ("run.yaml", "my_volume.zarr", "runs/my_volume"),
        ("run.yaml", "s3://bucket/em/cortex.ome.zarr/#mip=1", "runs/cortex"),
        ("fine.yaml", "cortex.h5:volumes/raw", "runs/raw-fine"),
        ("a/b/second.yml", "image.zarr", "runs/image-second"),
        ("run.yaml", "Stack of 'Bob': \n#1/", "runs/Stack-of-Bob"),
        ("run.yaml", "run.zarr", "runs/first"),
        ("run.yaml", "/", "runs/first"),
    ],
)
def test_init_proposes_a_run_directory_for_each_image_and_file(file, image, directory):
    """Two run files in one folder do not share a run directory, whose name needs no quotes."""
    assert run_directory_for(file, image) == directory
