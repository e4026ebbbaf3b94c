"""A threshold that relabel applies holds until the run file says another one; --set goes before both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import ConfigError, CorruptError, LedgerError
from pipeline.runs.applied import KEY, Applied, Choice, Threshold, read_applied
from pipeline.runs.run import Run
from pipeline.runs.status import open_outline
from pipeline.storage import ObjectStore
from tests.runs import petaseg, write_run, write_volume
from workflows.commands.relabel import remember
from workflows.driver import segment


def relabel(place: Path, *overrides: str) -> Run:
    """What the command does, in this process."""
    remember(str(place), overrides)
    return segment(str(place), overrides, only_after="tables").run


def rewritten(file: Path, **segmentation: object) -> Path:
    """The run file with another table ``segmentation``."""
    data = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**data, "segmentation": segmentation}))
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A finished run at the threshold 0.5 of its run file."""
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 16), np.uint8)
    source = write_volume(tmp_path / "affinities.zarr", values)
    chunks = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}
    made = write_run(tmp_path, input={"affinities": source}, segmentation={"threshold": 0.5}, **chunks)
    segment(str(made))
    return made


def thresholds(file: Path) -> tuple[float, float]:
    """Of the run file and of the run directory."""
    return Run.open(file).threshold, Run.open(file.parent / "run").threshold


@pytest.mark.parametrize("named", ["run.yaml", "run"])
def test_a_run_of_the_unchanged_file_keeps_the_threshold_of_relabel(file: Path, named: str) -> None:
    """It holds for the run file and the run directory, whichever of the two relabel was given, and labels stay."""
    relabel(file.parent / named, "segmentation.threshold=0.6")
    assert thresholds(file) == (0.6, 0.6)
    again = segment(str(file))
    assert not again.seconds, "nothing was computed"
    assert str(again.run.chosen) == "0.6 (petaseg relabel; the run file says 0.5)"
    relabel(file.parent / named, "segmentation.threshold=0.7")
    segment(str(file))
    assert thresholds(file) == (0.7, 0.7)
    assert read_applied(ObjectStore(file.parent / "run")) == Applied({"threshold": 0.7}, {"threshold": 0.5})


@pytest.mark.parametrize("named", ["run.yaml", "run"])
def test_the_run_file_wins_once_it_says_something_else(file: Path, named: str) -> None:
    """After another value in the run file the applied one is forgotten, also if the old value comes back."""
    relabel(file.parent / named, "segmentation.threshold=0.6", "segmentation.min_size=3")
    assert Run.open(rewritten(file, threshold=0.5)).config.segmentation.min_size == 3
    assert Run.open(rewritten(file)).threshold == 0.5, "the key was taken out: the default"
    changed = Run.open(rewritten(file, threshold=0.4))
    assert (changed.threshold, changed.config.segmentation.min_size) == (0.4, 3)
    assert str(changed.chosen) == "0.4 (run file)"
    segment(str(file))
    assert thresholds(file) == (0.4, 0.4)
    assert Run.open(rewritten(file, threshold=0.5)).threshold == 0.5


def test_set_goes_before_both_for_one_command(file: Path) -> None:
    relabel(file, "segmentation.threshold=0.6")
    for override in ("segmentation.threshold=0.8", "segmentation={threshold: 0.8}"):
        run = Run.open(file, [override])
        assert run.threshold == 0.8
        assert str(run.chosen) == "0.8 (command line; the run file says 0.5)"
    segment(str(file), ["segmentation.threshold=0.8"])
    assert Run.open(file).threshold == 0.6
    assert Run.open(file.parent / "run").threshold == 0.8, "a run directory has the configuration of its last run"
    segment(str(file))
    assert thresholds(file) == (0.6, 0.6)


def test_status_says_the_threshold_and_where_it_comes_from(file: Path) -> None:
    """From the run directory alone, and from the run file."""
    assert "threshold     0.5 (run file)" in petaseg("status", file.parent / "run").stdout
    done = petaseg("relabel", file, "--threshold", "0.6", "--quiet")
    assert done.returncode == 0, done.stderr
    for place in (file, file.parent / "run"):
        shown = petaseg("status", place)
        assert "threshold     0.6 (petaseg relabel; the run file says 0.5)" in shown.stdout
        assert shown.returncode == 0, "all is done at that threshold"
    told = json.loads(petaseg("status", file.parent / "run", "--json").stdout)
    assert told["threshold"] == {"value": 0.6, "source": "petaseg relabel", "file": 0.5}
    said = petaseg("run", file, "--quiet")
    assert "threshold 0.6 (petaseg relabel; the run file says 0.5)" in said.stderr
    assert petaseg("verify", file).returncode == 0


def test_a_relabel_that_is_refused_is_not_remembered(file: Path) -> None:
    """A threshold below the end of the tree, and a run without a tree, leave nothing behind."""
    before = read_applied(ObjectStore(file.parent / "run"))
    with pytest.raises(ConfigError, match="stop_score"):
        relabel(file, "segmentation.threshold=0.01")
    with pytest.raises(ConfigError, match="no finished agglomerate"):
        relabel(file, "segmentation.threshold=0.6", "agglomeration.stop_score=0.2")
    assert read_applied(ObjectStore(file.parent / "run")) == before
    assert Run.open(file).threshold == 0.5


def test_an_applied_threshold_that_no_longer_fits_names_itself(file: Path) -> None:
    relabel(file, "segmentation.threshold=0.3")
    with pytest.raises(ConfigError, match=r"`petaseg relabel` has applied \(threshold 0\.3, see .*segmentation\.json"):
        Run.open(file, ["agglomeration.stop_score=0.4"])


def test_the_results_of_another_input_do_not_lend_their_threshold(file: Path) -> None:
    """What was applied to one input holds for no other, and goes when its results are replaced."""
    relabel(file, "segmentation.threshold=0.6")
    other = write_volume(file.parent / "other.zarr", np.full((3, 8, 8, 16), 200, np.uint8))
    data = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**data, "input": {"affinities": other}}))
    assert Run.open(file).threshold == 0.5
    segment(str(file), overwrite=True)
    assert read_applied(ObjectStore(file.parent / "run")) == Applied({}, {"threshold": 0.5})


def test_a_damaged_record_is_an_error_with_a_remedy(file: Path) -> None:
    """Neither threshold is taken silently."""
    (file.parent / "run" / KEY).write_text("{")
    with pytest.raises(CorruptError, match="delete it, and give `petaseg relabel` the threshold again"):
        Run.open(file)
    (file.parent / "run" / KEY).write_text('{"version": 99}')
    with pytest.raises(LedgerError, match="newer petaseg"):
        Run.open(file)


def test_an_outline_without_a_threshold_is_read(file: Path) -> None:
    """The run directory of an earlier petaseg names none."""
    place = file.parent / "run" / "stages.json"
    data = json.loads(place.read_text())
    del data["threshold"]
    place.write_text(json.dumps(data))
    assert open_outline(str(file.parent / "run")).threshold is None


def test_the_place_of_every_value_is_said() -> None:
    """A value comes from relabel, --set, the run file, or the run directory's own file."""
    choice = Choice({"threshold": 0.5}, {"threshold": 0.6}, {})
    assert choice.source("threshold", 0.6) == "petaseg relabel"
    assert choice.source("threshold", 0.5) == "run file"
    assert choice.source("threshold", 0.55) == "run.yaml of the run directory"
    assert Choice(given={"threshold": 0.7}).source("threshold", 0.7) == "command line"
    assert str(Threshold(0.5, "default")) == "0.5 (default)"
    applied = Applied({"threshold": 0.6, "min_size": 3}, {"threshold": 0.5})
    assert applied.held_by({"threshold": 0.5}) == {"threshold": 0.6, "min_size": 3}
    assert applied.held_by({"threshold": 0.4, "min_size": 2}) == {}
