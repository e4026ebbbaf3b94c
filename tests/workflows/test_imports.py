"""What commands do not import: to load torch, numba, matplotlib or Luigi takes longer than all else that they do."""

import subprocess
import sys

import numpy as np
import pytest

from pipeline.models.spec import load_card
from tests.runs import petaseg, write_run, write_volume

HEAVY = ("torch", "numba", "matplotlib", "luigi", "dask", "distributed", "cloudvolume", "skimage", "lightning", "monai")
LIST = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr))
sys.argv[0] = "petaseg"
from workflows.cli import main
main()
"""


@pytest.fixture(scope="module")
def done_run(tmp_path_factory):
    """The run file of a complete run, from an image to scores."""
    folder = tmp_path_factory.mktemp("done")
    rng = np.random.default_rng(5)
    image = write_volume(folder / "image.zarr", rng.integers(1, 255, (32, 40, 48), np.uint8))
    truth = write_volume(folder / "truth.zarr", rng.integers(1, 9, (32, 40, 48)).astype(np.uint64))
    evaluation, inference = {"labels": truth}, {"model": "synthetic-tiny", "any_resolution": True}
    file = write_run(folder, input={"image": image}, inference=inference, evaluation=evaluation)
    done = petaseg("run", file, "--quiet")
    assert done.returncode == 0, done.stderr
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "run --help",
        "status {folder}/run",
        "status {folder}/run.yaml",
        "run {folder}/run.yaml --dry-run",
        "run {folder}/run.yaml",
        "run {folder}/run",
        "relabel {folder}/run.yaml --threshold {threshold}",
    ],
)
def test_a_command_with_nothing_to_compute_loads_no_heavy_library(done_run, command):
    """Help, status, and a run that is done load no library that computes, draws, or orders stages."""
    words = command.format(folder=done_run.parent, threshold=load_card("synthetic-tiny").threshold).split()
    said = subprocess.run([sys.executable, "-c", LIST, *words], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stderr.splitlines()[-1] == "loaded:", said.stderr
