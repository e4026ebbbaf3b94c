"""What ``petaseg add`` adds to a run holds until the run file itself says something about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.errors import ConfigError, CorruptError
from pipeline.runs.added import KEY, read_added
from pipeline.runs.run import Run
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from tests.runs import petaseg, write_run, write_volume
from workflows.commands.add import remember
from workflows.driver import segment


def add(place: Path, *sets: str) -> Any:
    """What ``petaseg add PLACE downsample`` does, in this process."""
    overrides, _ = remember(str(place), "downsample", sets)
    return segment(str(place), overrides, only_after="result")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A finished run of two chunks."""
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 16), np.uint8)
    source = write_volume(tmp_path / "affinities.zarr", values)
    chunks = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}
    made = write_run(tmp_path, input={"affinities": source}, segmentation={"threshold": 0.5}, **chunks)
    segment(str(made))
    return made


def rewritten(file: Path, **tables: object) -> Path:
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **tables}))
    return file


def levels(place: Path) -> int | None:
    """The number of levels that a run makes; ``None`` if it makes none."""
    table = Run.open(place).config.downsample
    return None if table is None else table.levels or 1


@pytest.mark.parametrize("named", ["run.yaml", "run"])
def test_what_is_added_holds_for_the_unchanged_run_file(file: Path, named: str) -> None:
    """Whichever of the two ``add`` was given: the file stays as it is, and nothing but the levels is computed."""
    before = file.read_bytes()
    assert set(add(file.parent / named, "downsample.levels=2").seconds) == {"downsample_result"}
    assert (levels(file), levels(file.parent / "run")) == (2, 2)
    assert not segment(str(file)).seconds
    assert not segment(str(file.parent / "run")).seconds
    assert open_volume(f"{file.parent}/run/labels.zarr#mip=2").shape == (2, 2, 4)
    assert file.read_bytes() == before


def test_a_second_add_changes_the_keys_that_it_names(file: Path) -> None:
    add(file, "downsample.levels=3")
    add(file, 'downsample.volumes=["result"]')
    assert levels(file) == 3
    add(file, "downsample.levels=1")
    assert levels(file) == levels(file.parent / "run") == 1
    assert Run.open(file).config.downsample.volumes == ("result",)


def test_the_run_file_wins(file: Path) -> None:
    """A table of the run file replaces what was added, and ``null`` turns it off; ``--set`` goes before both."""
    add(file, "downsample.levels=3")
    assert Run.open(file, ["downsample.levels=2"]).config.downsample.levels == 2
    assert Run.open(file, ["downsample=null"]).config.downsample is None
    assert levels(rewritten(file, downsample={"levels": 2})) == 2
    with pytest.raises(ConfigError, match=r"run.yaml says downsample itself, and the run file wins: change it there"):
        add(file, "downsample.levels=1")
    assert set(add(file).seconds) == {"downsample_result"}, "the levels that the file wants are computed"
    assert levels(rewritten(file, downsample=None)) is None
    with pytest.raises(ConfigError, match="the run file wins"):
        add(file)


def test_nothing_is_added_to_an_unfinished_run(tmp_path: Path, file: Path) -> None:
    """A run whose labels are not complete is refused, and nothing is recorded."""
    rewritten(file, segmentation={"threshold": 0.7})
    with pytest.raises(ConfigError, match="has no finished relabel under this configuration"):
        add(file)
    assert not (tmp_path / "run" / KEY).exists()


def test_a_wrong_value_is_refused_before_it_is_recorded(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"downsample\.levels"):
        add(file, "downsample.levels=0")
    with pytest.raises(ConfigError, match="'meshs' cannot be added to a run; there are downsample"):
        remember(str(file), "meshs", [])
    assert not (tmp_path / "run" / KEY).exists()


def test_a_damaged_record_is_named_with_its_remedy(tmp_path: Path, file: Path) -> None:
    (tmp_path / "run" / KEY).write_text("{")
    with pytest.raises(CorruptError, match=r"added\.json cannot be read .*; delete it, and give `petaseg add` again"):
        Run.open(file)


def test_the_command_says_what_it_did_and_how_a_run_file_says_it(file: Path) -> None:
    done = petaseg("add", file, "downsample", "--set", "downsample.levels=2")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "computed downsample_result" in said
    assert said.endswith("added.json says it from now on; a run file says it with: downsample: levels: 2")
    assert read_added(ObjectStore(file.parent / "run")).tables == {"downsample": {"levels": 2}}
    again = petaseg("add", file.parent / "run", "downsample")
    assert "computed nothing, since all of it was there" in " ".join(again.stdout.split())


def test_another_threshold_keeps_what_was_added(file: Path) -> None:
    """``relabel`` computes the levels of the new labels, also those of a second segmentation beside the first."""
    add(file)
    done = petaseg("relabel", file, "--threshold", "0.6", "--output", "other.zarr")
    assert done.returncode == 0, done.stderr
    assert open_volume(f"{file.parent}/run/other.zarr#mip=1").shape == (4, 4, 8)
    assert not segment(str(file)).seconds
