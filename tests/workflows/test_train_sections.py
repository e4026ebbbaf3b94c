"""``petaseg train --sections``, from painted sections to neurons."""

import numpy as np
import pytest
import typer

from pipeline.models.spec import load_card
from pipeline.synthetic.tissue import make_tissue
from pipeline.volumes import open_volume
from tests.runs import petaseg, write_run, write_volume
from workflows.commands.train import FILE, painted_of

NM = (40.0, 8.0, 8.0)
SHORT = ("steps=2", "warmup_steps=1", "validate_every=2", "batch_size=1", "arguments.widths=[32,32,32,32]")
SETS = tuple(word for each in SHORT for word in ("--set", each))


@pytest.fixture
def options(tmp_path):
    """The options of a training on one painted section of made-up tissue."""
    tissue = make_tissue((4, 96, 96), seed=2, resolution_nm=(40, 8, 8))
    painted = np.where(np.arange(4)[:, None, None] == 2, tissue.labels, 0)
    labels = write_volume(tmp_path / "painted.zarr", painted, resolution_nm=NM)
    image = write_volume(tmp_path / "image.zarr", tissue.image, resolution_nm=NM)
    return ["--sections", labels, "--image", image, "--output", str(tmp_path / "model")]


def test_a_model_of_a_painted_section_makes_neurons(options, tmp_path):
    """One command gives a model with the bundled network of stacks behind it, and a run takes it like any other."""
    trained = petaseg("train", *options, *SETS)
    assert trained.returncode == 0, trained.stderr
    assert f"model of both networks in {tmp_path}/model" in trained.stdout
    card = load_card(tmp_path / "model")
    assert card.architecture == "sections_to_volume"
    inference = {"model": str(tmp_path / "model"), "patch_shape": [4, 96, 96], "overlap": [0, 0, 0]}
    file = write_run(tmp_path / "run", input={"image": options[3]}, inference=inference)
    done = petaseg("run", file, "--quiet")
    assert done.returncode == 0, done.stderr
    assert open_volume(str(tmp_path / "run/run/affinities.zarr")).shape == (3, 4, 96, 96)


def test_a_dry_run_on_painted_sections_writes_nothing(options, tmp_path):
    """``--dry-run`` names the volume of the labels and what would be trained; the folder of the model is not made."""
    said = petaseg("train", *options, *SETS, "--dry-run")
    assert said.returncode == 0, said.stderr
    assert f"{options[1]} is sound. It would train plain_unet" in said.stdout
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image": "image.zarr"}, "--image belongs to --sections LABELS: add that, or leave it out"),
        ({"labels": "a", "image": "b"}, "--sections needs --image IMAGE, the stack, and --output FOLDER"),
        ({"labels": "a", "image": "b", "output": "c", "file": "other.yaml"}, "leave the file out, use --set"),
        ({"labels": "a", "image": "b", "output": "c", "at": "1;2"}, "must be numbers of sections, such as"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(given, words):
    """The message says which options belong together, and nothing is opened."""
    options = {"file": FILE, "labels": None, "image": None, "output": None, "at": None, "gap": 10, "stack": "stack"}
    with pytest.raises(typer.BadParameter, match=words):
        painted_of(**options | given)


def test_sections_are_named_by_number():
    """``--at 12,40`` names two sections; without it there is no list."""
    assert painted_of(FILE, "a", "b", "c", "12,40", 10, "stack").at == (12, 40)
    assert painted_of(FILE, "a", "b", "c", None, 10, "stack").at is None
    assert painted_of(FILE, None, None, None, None, 10, "stack") is None
