"""The README's program runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.runs.run import Run
from tests.runs import write_run, write_volume


def test_the_program_of_the_readme_makes_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Every stage of the run file beside it is complete afterwards."""
    (program,) = re.findall(r"```python\n(.*?)```", (request.config.rootpath / "README.md").read_text(), re.DOTALL)
    affinities = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 8)).astype(np.uint8)
    given = {"affinities": write_volume(tmp_path / "affinities.zarr", affinities)}
    write_run(tmp_path, input=given, chunk_shape=[8, 8, 4], storage_chunk_shape=[8, 8, 4])
    rng = np.random.default_rng(0)
    write_volume(tmp_path / "image.zarr", rng.integers(0, 256, (64, 64, 64), np.uint8))
    write_volume(tmp_path / "truth.zarr", rng.integers(1, 9, (64, 64, 64), np.uint64))
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    run = Run.open("run.yaml")
    assert all(map(run.is_complete, run.stages))
