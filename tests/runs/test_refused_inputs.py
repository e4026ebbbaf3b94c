"""Inputs and paths of a run that mean nothing are refused before anything is computed, with commands that work."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, PetasegError, VolumeError
from pipeline.runs.run import Run
from tests.runs import write_run, write_volume

SHAPE = (8, 16, 16)
SHAPES: dict[str, Any] = {"chunk_shape": [8, 16, 16], "storage_chunk_shape": [8, 8, 8]}


def opened(folder: Path, array: np.ndarray | None = None, **tables: Any) -> Run:
    """A run on affinities, or on another array, opened and not run."""
    data = np.full((3, *SHAPE), 200, np.uint8) if array is None else array
    source = write_volume(folder / "my data & more.zarr", data)
    given = {"input": {"affinities": source}, **SHAPES, **tables}
    given["input"] = {"affinities": source, **tables.get("input", {})}
    return Run.open(write_run(folder, **given))


@pytest.mark.parametrize("key", ["start", "stop"])
def test_a_part_to_score_needs_truth(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no ground truth"):
        opened(tmp_path, evaluation={key: [4, 4, 4]})


@pytest.mark.parametrize("least", [-4, -100])
def test_truth_with_other_negative_ids_is_refused_before_anything_is_computed(least: int, tmp_path: Path) -> None:
    truth = write_volume(tmp_path / "truth.zarr", np.full(SHAPE, least, np.int32))
    with pytest.raises(VolumeError, match=f"holds {least}; labels are 0 or more, and -1 to -3"):
        opened(tmp_path, evaluation={"labels": truth})


def test_a_mask_of_nan_is_refused(tmp_path: Path) -> None:
    """NaN is not 0, so that everything would be tissue."""
    mask = write_volume(tmp_path / "mask.zarr", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(VolumeError, match="holds NaN, which is neither tissue nor none"):
        opened(tmp_path, input={"mask": mask})


def test_commands_in_messages_can_be_pasted(tmp_path: Path) -> None:
    """A path with blanks and & is in quotes, in every command that a refusal names."""
    with pytest.raises(PetasegError) as refusal:
        opened(tmp_path, np.ones((3, *SHAPE), np.uint8))
    command = str(refusal.value).split("`")[1]
    assert shlex.split(command)[:3] == ["petaseg", "ingest", str(tmp_path / "my data & more.zarr")]


@pytest.mark.parametrize("path", ["$HOME/out", "${DATA}/out", "$SCRATCH", "file://$HOME/out"])
def test_a_path_with_a_variable_is_refused(path: str, tmp_path: Path) -> None:
    """Nothing replaces it, and the run would write into a folder of that name."""
    with pytest.raises(ConfigError, match="begins with the name of a variable"):
        opened(tmp_path, run_directory=path)


@pytest.mark.parametrize("path", ["./$HOME/out", "a$b", "$", "cost$/out"])
def test_a_dollar_in_a_name_stays(path: str, tmp_path: Path) -> None:
    assert opened(tmp_path, run_directory=path).url.endswith(path.removeprefix("./"))
