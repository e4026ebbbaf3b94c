"""`petaseg synthesize` writes made-up data sets to disk."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from matplotlib.image import imread

from pipeline.errors import ConfigError
from pipeline.synthetic import KINDS
from pipeline.synthetic.dataset import synthesize
from pipeline.synthetic.kinds import find_kind
from pipeline.volumes import open_volume
from tests.runs import petaseg

SMALL = {
    "tissue": ["shape=[6,24,28]", "resolution_nm=[30,8,8]"],
    "mitochondria": ["shape=[6,24,28]", "resolution_nm=[30,8,8]"],
    "organelles": ["shape=[6,48,48]", "resolution_nm=[30,8,8]"],
    "challenge": ["size=96", "crop=80"],
    "pathfinder": ["paddles=4", "distractors=2"],
    "tilt": ["size=64", "radius=[10,30]", "wavelength=[6,12]"],
}


def stored(folder, name):
    volume = open_volume(str(folder / name))
    return volume.read(volume.spec.bounds)


@pytest.mark.parametrize("kind", ["challenge", "pathfinder", "tilt"])
def test_pictures_are_stacked_along_z_in_order(tmp_path, kind):
    """Pictures are stacked along z in the order of the samples, and so are their targets and facts."""
    report = synthesize(kind, tmp_path / "made", count=3, seed=2, overrides=SMALL[kind])
    images, targets = stored(report.folder, "image.zarr"), stored(report.folder, "target.zarr")
    generator = find_kind(kind)
    facts = [json.loads(line) for line in (report.folder / "samples.jsonl").read_text().splitlines()]
    config = generator.settings.model_validate_json(
        json.dumps(yaml.safe_load((report.folder / "parameters.yaml").read_text())["parameters"])
    )
    for index in range(3):
        sample = generator.make(index, seed=2, config=config)
        assert np.array_equal(images[index], generator.as_uint8(sample.image))
        target = targets[:, index, 0, 0] if kind == "tilt" else targets[index]
        assert np.array_equal(target, sample.target)
        assert facts[index] == {"index": index, **sample.more}
    assert images.dtype == np.uint8


def test_volumes_are_stored_one_by_one(tmp_path):
    report = synthesize("tissue", tmp_path / "made", count=2, overrides=SMALL["tissue"])
    assert report.volumes == ("image-0000.zarr", "image-0001.zarr", "target-0000.zarr", "target-0001.zarr")
    volume = open_volume(str(report.folder / "target-0001.zarr"))
    assert volume.spec.resolution_nm == (30, 8, 8)
    assert volume.spec.bounds.shape == (6, 24, 28)
    assert stored(report.folder, "target-0000.zarr").min() == 1
    assert not np.array_equal(stored(report.folder, "image-0000.zarr"), stored(report.folder, "image-0001.zarr"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_writes_the_same_bytes(tmp_path, kind):
    """A command that is repeated writes the same files with the same bytes."""
    first, second = (synthesize(kind, tmp_path / name, count=2, seed=7, overrides=SMALL[kind]) for name in "ab")
    files = sorted(path.relative_to(first.folder) for path in first.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second.folder) for path in second.folder.rglob("*") if path.is_file())
    for file in files:
        assert (first.folder / file).read_bytes() == (second.folder / file).read_bytes(), file


def test_more_samples_begin_with_the_same_ones(tmp_path):
    few, many = (synthesize("tilt", tmp_path / str(n), count=n, overrides=SMALL["tilt"]).folder for n in (2, 4))
    assert np.array_equal(stored(many, "image.zarr")[:2], stored(few, "image.zarr"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_contact_sheet_shows_images_and_targets(tmp_path, kind):
    folder = synthesize(kind, tmp_path / "made", count=3, overrides=SMALL[kind]).folder
    sheet = imread(folder / "contact_sheet.png")
    assert sheet.shape[0] > 300
    assert sheet.shape[1] > 600
    assert sheet[..., :3].std() > 0.1


def test_everything_that_was_chosen_is_written_down(tmp_path):
    folder = synthesize("challenge", tmp_path / "made", count=1, seed=5, overrides=SMALL["challenge"]).folder
    written = yaml.safe_load((folder / "parameters.yaml").read_text())
    assert written["kind"] == "challenge"
    assert written["seed"] == 5
    assert written["parameters"]["crop"] == 80
    assert written["parameters"]["noise"] == 0.5
    assert written["parameters"].keys() == find_kind("challenge").settings.model_fields.keys()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        synthesize("tilt", tmp_path, count=1, overrides=SMALL["tilt"])
    with pytest.raises(ConfigError, match="not empty"):
        synthesize("tilt", tmp_path / "mine.txt", count=1, overrides=SMALL["tilt"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    synthesize("tilt", tmp_path / "empty", count=1, overrides=SMALL["tilt"])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("curves", {}, "tissue, mitochondria, organelles, challenge, pathfinder, tilt"),
        ("tilt", {"count": 0}, "make 1 to 10,000,000 samples"),
        ("tilt", {"count": 10**11}, "make 1 to 10,000,000 samples"),
        ("tilt", {"seed": -1}, "seed"),
        ("tilt", {"overrides": ["contrst=0.5"]}, "did you mean 'contrast'"),
        ("tilt", {"overrides": ["contrast=2"]}, "less than or equal to 1"),
        ("pathfinder", {"overrides": ["size=149"]}, "must divide"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(tmp_path, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        synthesize(kind, tmp_path / "made", **{"count": 2, **options})
    assert not any(tmp_path.iterdir())


def test_an_interrupted_command_leaves_nothing(tmp_path):
    """An interrupted command leaves no file, so half a data set is never taken for a whole one."""
    command = [sys.executable, "-m", "workflows.cli", "synthesize", "tilt", str(tmp_path / "made"), "--count", "5000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not any(tmp_path.glob(".made-*/image.zarr")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode != 0
    assert not any(tmp_path.iterdir())


def test_the_command_says_what_it_wrote_and_explains_itself(tmp_path):
    done = petaseg("synthesize", "tilt", tmp_path / "made", "--count", 1, *(f"--set={s}" for s in SMALL["tilt"]))
    assert done.returncode == 0, done.stderr
    assert "wrote 1 samples (tilt)" in done.stdout
    refused = petaseg("synthesize", "tilt", tmp_path / "made")
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    shown = petaseg("synthesize", "--help")
    assert f"{', '.join(KINDS)}." in " ".join(shown.stdout.replace("│", " ").split())
