"""A command that is given another kind of file than it reads says which kind it is, and which command reads it."""

import pytest
from typer.testing import CliRunner

from pipeline.config.kinds import KINDS, refuse_other_kind
from pipeline.config.reading import load_config
from pipeline.config.run_file import RunConfig
from pipeline.errors import ConfigError
from pipeline.models.spec import BUNDLED, ModelCard
from pipeline.training.config import TrainConfig
from workflows.app import app

MODELS = {"RunConfig": RunConfig, "TrainConfig": TrainConfig, "ModelCard": ModelCard}
TRAINING = """\
output: models/first
name: first
synthetic: {}
"""
RUN = """\
run_directory: run
input: {image: image.zarr}
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_marked_by_keys_that_only_it_has(kind):
    """Each mark is a key of its kind's table, and of no other kind's."""
    others = [MODELS[name].model_fields for name in MODELS if name != kind]
    assert KINDS[kind].marks <= set(MODELS[kind].model_fields)
    assert not any(KINDS[kind].marks & set(fields) for fields in others)


@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"], ["plan"], ["evaluate"], ["status"], ["verify"]])
def test_a_command_for_runs_names_the_command_for_a_training_file(words, tmp_path):
    """Every command that reads a run file refuses a training file and names `petaseg train`."""
    file = tmp_path / "my training.yaml"
    file.write_text(TRAINING)
    found = CliRunner().invoke(app, [words[0], str(file), *words[1:]]).exception
    assert isinstance(found, ConfigError)
    assert str(found) == f"{file} is a training file; this command reads a run file: petaseg train '{file}'"


@pytest.mark.parametrize("options", [[], ["--preview"], ["--dry-run"]])
def test_train_names_the_command_for_a_run_file(options, tmp_path):
    """`petaseg train` refuses a run file and names `petaseg run`; it refuses a model's card too."""
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    found = CliRunner().invoke(app, ["train", str(file), *options]).exception
    assert isinstance(found, ConfigError)
    assert str(found) == f"{file} is a run file; this command reads a training file: petaseg run {file}"
    with pytest.raises(ConfigError, match="is the card of a model; this command reads a training file"):
        load_config(BUNDLED / "synthetic-tiny" / "card.yaml", (), TrainConfig)


def test_train_says_that_a_folder_is_no_file(tmp_path):
    """A folder in place of a training file is called a folder."""
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        load_config(tmp_path, (), TrainConfig)


def test_a_file_of_unknown_keys_is_left_to_the_list_of_unknown_keys():
    """Without the marks of a kind, and with the marks of the wanted kind, nothing is refused here."""
    refuse_other_kind({"chunk_size"}, "RunConfig", "run.yaml")
    refuse_other_kind({"input", "output", "steps"}, "RunConfig", "run.yaml")
    refuse_other_kind({"output", "steps"}, "TissueConfig", "tissue.yaml")
