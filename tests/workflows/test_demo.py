"""The demo touches only folders that it has made, and in them only its own files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, PetasegError
from pipeline.runs.directory import KEY
from pipeline.volumes import open_volume
from tests.runs import write_volume
from tests.volumes.test_hostile_targets import state
from workflows.commands import demo


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tissue that is made at once."""
    monkeypatch.setattr(demo, "SHAPE", (8, 24, 24))


def a_project(folder: Path) -> None:
    folder.mkdir()
    (folder / "stack.raw").write_text("precious")
    (folder / "run.yaml").write_text("run_directory: runs/first\ninput: {image: image.zarr}\n")


def a_run_file_like_the_demos(folder: Path) -> None:
    folder.mkdir()
    (folder / "run.yaml").write_text(demo.DEMO_TEXT)
    write_volume(folder / "image.zarr", np.ones((8, 8, 8), np.uint8))


def files_of_mine(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def a_file(folder: Path) -> None:
    folder.write_text("mine")


def a_link_to_a_project(folder: Path) -> None:
    a_project(folder.parent / "project")
    folder.symlink_to("project")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("make", [a_project, a_run_file_like_the_demos, files_of_mine, a_file, a_link_to_a_project])
def test_a_folder_that_is_no_demo_is_refused_and_stays(tmp_path: Path, make, force: bool) -> None:
    """Whatever is in a folder that the demo has not made, nothing of it is used, replaced or deleted."""
    make(tmp_path / "folder")
    before = state(tmp_path)
    with pytest.raises(ConfigError, match="petaseg demo my-demo"):
        demo.prepare(tmp_path / "folder", force=force)
    assert state(tmp_path) == before


def test_force_starts_a_demo_anew_and_spares_the_rest(tmp_path: Path) -> None:
    """``--force`` replaces image, truth, run file and results; files of somebody's in the folder stay."""
    folder = tmp_path / "demo"
    demo.prepare(folder, force=False)
    image = open_volume(str(folder / "image.zarr"))
    pixels = image.read(image.spec.bounds)
    write_volume(folder / "mine.zarr", pixels)
    (folder / "run").mkdir()
    (folder / "run" / KEY).write_text('{"input": "x", "fingerprint": "y"}')
    (folder / "run" / "parts" / "relabel").mkdir(parents=True)
    (folder / "run" / "parts" / "relabel" / "0_0_0").write_text("old")
    (folder / "run" / "notes.txt").write_text("mine")
    mine = state(folder / "mine.zarr")
    assert demo.prepare(folder, force=False) == folder / "run.yaml"
    demo.prepare(folder, force=True)
    assert state(folder / "mine.zarr") == mine
    assert (folder / "run" / "notes.txt").read_text() == "mine"
    assert not (folder / "run" / "parts" / "relabel" / "0_0_0").exists()
    assert (open_volume(str(folder / "image.zarr")).read(image.spec.bounds) == pixels).all()


def test_an_interrupted_demo_goes_on(tmp_path: Path) -> None:
    """A demo that was killed while it made its tissue is still known as one."""
    demo.prepare(tmp_path / "demo", force=False)
    (tmp_path / "demo" / "run.yaml").unlink()
    shutil.rmtree(tmp_path / "demo" / "truth.zarr")
    assert demo.prepare(tmp_path / "demo", force=False).read_text() == demo.DEMO_TEXT
    assert open_volume(str(tmp_path / "demo" / "truth.zarr")).spec.bounds.shape == (8, 24, 24)


def test_what_somebody_has_changed_in_a_demo_is_not_replaced(tmp_path: Path) -> None:
    """A run file with other values, and an image that petaseg did not make, are refused by ``--force``."""
    folder = tmp_path / "demo"
    demo.prepare(folder, force=False)
    (folder / "run.yaml").write_text(demo.DEMO_TEXT + "# my notes\n")
    before = state(folder)
    with pytest.raises(ConfigError, match="move it away"):
        demo.prepare(folder, force=True)
    assert state(folder) == before
    (folder / "run.yaml").write_text(demo.DEMO_TEXT)
    shutil.rmtree(folder / "image.zarr")
    (folder / "image.zarr").mkdir()
    (folder / "image.zarr" / "raw.dat").write_text("mine")
    with pytest.raises(PetasegError, match="delete it yourself"):
        demo.prepare(folder, force=True)
    assert (folder / "image.zarr" / "raw.dat").read_text() == "mine"
