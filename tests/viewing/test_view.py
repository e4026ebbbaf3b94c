"""``petaseg view`` in a real browser, and as a process that is ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.runs.run import Run
from pipeline.viewing.layers import layers_of_run
from tests.runs import affinity_run, petaseg, run, write_volume


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The run file of a finished run."""
    file = affinity_run(tmp_path)
    run(file)
    return file


def colours(picture: Path) -> int:
    """The number of pixels that are clearly coloured."""
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((pixels.max(-1) - pixels.min(-1) > 40).sum())


def test_a_run_is_drawn_by_a_real_browser(finished: Path, tmp_path: Path) -> None:
    """A screenshot has the pixels that were asked for, and shows segments in colour."""
    look = tmp_path / "look.png"
    done = petaseg("view", finished, "--screenshot", look, "--size", "640x480")
    assert done.returncode == 0, done.stderr
    assert "labels" in done.stdout
    with Image.open(look) as image:
        assert image.size == (640, 480)
    assert colours(look) > 5000


def test_volumes_that_are_no_run_are_drawn(tmp_path: Path) -> None:
    """An image and labels of one segment are shown at their common place."""
    write_volume(tmp_path / "image.zarr", np.full((16, 16, 16), 90, np.uint8), start=(3, 4, 5))
    write_volume(tmp_path / "labels.zarr", np.full((16, 16, 16), 7, np.uint64), start=(3, 4, 5))
    look = tmp_path / "look.png"
    done = petaseg("view", tmp_path / "image.zarr", tmp_path / "labels.zarr", "--screenshot", look, "--size", "400x300")
    assert done.stdout.strip() == f"{look} shows image.zarr, labels.zarr"
    assert colours(look) > 5000


def test_ctrl_c_keeps_where_one_looked(finished: Path) -> None:
    """The page and the layers are served until Ctrl-C; the state is then in the run directory, without an address."""
    command = [sys.executable, "-m", "workflows.cli", "view", str(finished), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as viewer:
        assert viewer.stdout is not None
        address = re.findall(r"look at (http://127\.0\.0\.1:\S+)", viewer.stdout.readline())[0]
        assert b"neuroglancer" in urllib.request.urlopen(address).read().lower()
        viewer.stdout.readline()
        viewer.send_signal(signal.SIGINT)
        assert "where you looked is kept" in viewer.communicate(timeout=60)[0]
        assert viewer.returncode == 0
    kept = json.loads((finished.parent / "run" / "view.json").read_text())
    assert kept["version"] == 1
    assert "127.0.0.1" not in json.dumps(kept)
    assert [layer["name"] for layer in kept["state"]["layers"]] == ["affinities", "supervoxels", "labels"]


def test_only_what_is_stored_is_a_layer(tmp_path: Path) -> None:
    """A run that has computed nothing yet shows what it was given."""
    assert [layer.name for layer in layers_of_run(Run.open(affinity_run(tmp_path)))] == ["affinities"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.zarr"], "nothing.zarr"),
        (["run.yaml", "--size", "big"], "--size is 'big'; it must be WIDTHxHEIGHT"),
        (["run.yaml", "--at", "1,2"], "--at"),
        (["run.yaml", "--at", "5000,0,-1"], "--at is 5000,0,-1, and the layer to look at has 0.."),
        (["affinities.zarr", "--edit"], "--edit is about the neurons of a run: name one"),
        (["run.yaml", "--layout", "5panel"], "--layout is '5panel'; it must be one of 4panel, 3d"),
    ],
)
def test_what_cannot_be_shown_is_refused(finished: Path, arguments: list[str], words: str) -> None:
    """A place or a number that makes no sense is refused with its rule, before a browser is started."""
    done = petaseg("view", *arguments, "--no-browser", cwd=finished.parent)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_without_a_browser_is_told_what_to_install(finished: Path, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = petaseg("view", finished, "--screenshot", tmp_path / "x.png", env=bare)
    assert done.returncode == 1
    assert "apt-get install chromium" in done.stderr.replace("\n", " ")


def test_segments_without_shapes_are_not_selected(tmp_path: Path) -> None:
    """No segment that is too small for a mesh is selected at first, since the viewer would wait for its mesh."""
    file = affinity_run(tmp_path)
    words = file.read_text()
    for smallest, some in ((1, True), (10**9, False)):
        file.write_text(f"{words}\nmeshes: {{smallest_voxels: {smallest}}}\n")
        assert petaseg("run", file, cwd=tmp_path).returncode == 0
        assert bool(layers_of_run(Run.open(file))[-1].selected) == some
