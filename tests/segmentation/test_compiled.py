"""The machine code of the kernels: compiled once, kept, and carried by an image."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.segmentation.compiled import SHIPPED, unpack_shipped

ROOT = Path(__file__).resolve().parents[2]
COMPILED = """
from numba.core import event
import sys
from pipeline.segmentation.warm_up import warm_up
with event.install_recorder("numba:compile") as recorder:
    warm_up()
print(len(recorder.buffer))
"""


def compilations(**variables):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    run = [sys.executable, "-c", COMPILED]
    return int(subprocess.run(run, capture_output=True, text=True, check=True, env=env).stdout)


@pytest.mark.slow
def test_kernels_are_compiled_once_and_an_image_carries_them(tmp_path):
    """A second process compiles nothing, and neither does one that has only the read-only folder of an image."""
    shipped, fresh = tmp_path / "shipped", tmp_path / "a" / "fresh"
    assert compilations(NUMBA_CACHE_DIR=str(shipped)) > 0
    assert compilations(NUMBA_CACHE_DIR=str(shipped)) == 0
    assert compilations(NUMBA_CACHE_DIR=str(fresh), **{SHIPPED: str(shipped)}) == 0


def test_what_an_image_carries_is_copied_once(tmp_path, monkeypatch):
    shipped, folder = tmp_path / "shipped", tmp_path / "numba"
    shipped.mkdir()
    (shipped / "code").write_text("old")
    monkeypatch.setenv(SHIPPED, str(shipped))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    unpack_shipped()
    (folder / "code").write_text("newer")
    unpack_shipped()
    assert (folder / "code").read_text() == "newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numba", "shipped"]
