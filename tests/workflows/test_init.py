"""`petaseg init` writes files that the command which it prints accepts, and replaces nothing unasked."""

import json
import os
import shlex
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.config.reading import json_schema, load_config
from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from tests.runs import write_volume
from workflows.app import app
from workflows.commands.init import write_example

FILES = ["run.yaml", "sub/my run.yaml", "../elsewhere/a b/run.yaml", "{folder}/deep/er/it's.yaml"]
SIZES = [(8, 8, 8), (16, 16, 16), (40, 4, 4), (30, 8, 8), (4, 4, 40)]


def invoked(*words):
    """The output of a command that must succeed."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output or done.exception
    return done.output


def refused(*words):
    """The message of a command that must be refused."""
    error = CliRunner().invoke(app, list(words)).exception
    assert isinstance(error, ConfigError)
    return str(error)


def printed(output):
    """The commands of ``wrote X; next: A, then B``, as words without ``petaseg``."""
    line = next(line for line in output.splitlines() if line.startswith("wrote "))
    first, _, second = line.partition("; next: ")[2].partition(", then ")
    return [shlex.split(command)[1:] for command in (first, second)]


def inside(folder):
    """Begin in a folder that has a neighbour."""
    (folder / "elsewhere").mkdir(parents=True, exist_ok=True)
    (folder / "here").mkdir(exist_ok=True)
    os.chdir(folder / "here")


@settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    resolution_nm=st.sampled_from(SIZES),
    file=st.sampled_from(FILES),
    kind=st.sampled_from(["image", "affinities uint8", "affinities float32"]),
    absolute=st.booleans(),
)
def test_a_run_file_is_accepted(tmp_path, monkeypatch, shape, resolution_nm, file, kind, absolute):
    """Whatever the volume, its voxels, and the folder: `petaseg run --dry-run` finds the written file sound."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / uuid.uuid4().hex
    inside(folder)
    dtype = np.float32 if "float" in kind else np.uint8
    values = np.full(shape if kind == "image" else (3, *shape), 0.5 if dtype is np.float32 else 200, dtype)
    place = "the volume.zarr"
    write_volume(folder / "here" / place, values, resolution_nm=resolution_nm, start=(3, 0, 7))
    source = str(folder / "here" / place) if absolute else place
    output = invoked("init", file.format(folder=folder), f"--{kind.split()[0]}", source)
    for words in printed(output):
        assert "is sound" in invoked("run", words[1], "--dry-run")
    os.chdir(tmp_path)


@settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.tuples(st.integers(2, 70), st.integers(16, 80), st.integers(16, 80)),
    resolution_nm=st.sampled_from(SIZES),
    file=st.sampled_from(FILES),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.uint64]),
)
def test_a_training_file_is_accepted_or_refused_before_it_is_written(
    tmp_path, monkeypatch, shape, resolution_nm, file, dtype
):
    """`petaseg train --dry-run` finds the written file sound; for a volume that is too small none is written."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / uuid.uuid4().hex
    inside(folder)
    labels = (np.indices(shape).sum(0) // 9 + 1).astype(dtype)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_volume(folder / "here" / "an image.zarr", image, resolution_nm=resolution_nm)
    write_volume(folder / "here" / "labels.zarr", labels, resolution_nm=resolution_nm)
    words = ["init", file.format(folder=folder), "--image", "an image.zarr", "--labels", "labels.zarr"]
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, ConfigError):
        assert "label more" in str(done.exception)
        assert shape[0] < 32 or max(shape[1:]) < 32
        assert not os.path.exists(words[1])
    else:
        _, train = printed(done.output)
        assert "is sound" in invoked(*train, "--dry-run")
    os.chdir(tmp_path)


def test_a_training_file_for_48_planes_of_160_is_accepted(tmp_path, monkeypatch):
    """A patch of 32 planes would be two voxels thick at one level, where bfloat16 is refused: the file says float32."""
    monkeypatch.chdir(tmp_path)
    shape = (48, 160, 160)
    write_volume(tmp_path / "image.zarr", np.indices(shape)[2].astype(np.uint8))
    write_volume(tmp_path / "labels.zarr", np.ones(shape, np.uint32))
    _, train = printed(invoked("init", "train.yaml", "--image", "image.zarr", "--labels", "labels.zarr"))
    assert "is sound" in invoked(*train, "--dry-run")


def test_a_schema_of_the_users_is_not_replaced_unasked(tmp_path):
    """A file of the schema's name that petaseg did not write stays; an older schema is replaced, and it is said."""
    schema = tmp_path / "run.schema.json"
    schema.write_text('{"mine": true}')
    with pytest.raises(ConfigError, match=r"run\.schema\.json is there already, and petaseg did not write it"):
        write_example(tmp_path / "run.yaml", "image.zarr")
    assert (schema.read_text(), (tmp_path / "run.yaml").exists()) == ('{"mine": true}', False)
    schema.write_text('{"title": "RunConfig", "properties": {}}')
    assert f"replaced {schema}, which was another one" in write_example(tmp_path / "run.yaml", "image.zarr")
    assert json.loads(schema.read_text()) == json_schema()
    assert not any("replaced" in line for line in write_example(tmp_path / "b.yaml", "image.zarr"))
    schema.write_text('{"mine": true}')
    assert any("replaced" in line for line in write_example(tmp_path / "c.yaml", "image.zarr", force=True))


def test_a_run_directory_of_another_input_gets_a_neighbour(tmp_path, monkeypatch):
    """A proposed run directory that holds something else is not proposed; another name is."""
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / "image.zarr", np.zeros((4, 4, 4), np.uint8))
    (tmp_path / "runs" / "image").mkdir(parents=True)
    (tmp_path / "runs" / "image" / "thesis.tex").touch()
    invoked("init", "run.yaml", "--image", "image.zarr")
    assert load_config("run.yaml").run_directory == "runs/image-2"
    Run.open("run.yaml").check_directory()


def test_a_volume_that_no_run_could_use_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    """16-bit images, affinities called an image and the reverse are refused with the command or option to use."""
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / "image.zarr", np.zeros((4, 4, 4), np.uint8))
    write_volume(tmp_path / "affinities.zarr", np.full((3, 4, 4, 4), 200, np.uint8))
    assert "give --affinities affinities.zarr instead" in refused("init", "--image", "affinities.zarr")
    assert "name a model with in_channels 3" in refused("init", "--image", "affinities.zarr")
    assert "give --image image.zarr instead" in refused("init", "--affinities", "image.zarr")
    assert "both given" in refused("init", "--affinities", "affinities.zarr", "--image", "image.zarr")
    write_volume(tmp_path / "wide.zarr", np.zeros((4, 4, 4), np.uint16))
    assert "petaseg ingest" in str(CliRunner().invoke(app, ["init", "--image", "wide.zarr"]).exception)
    assert not (tmp_path / "run.yaml").exists()
    assert "cannot be opened yet" in invoked("init", "--image", "later.zarr")
