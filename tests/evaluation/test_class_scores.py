"""Scores of maps of classes: those that numpy gives, in any blocks, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import petaseg
from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.compare_classes import compare_classes
from pipeline.evaluation.kinds import CLASSES, Settings, pair_of
from pipeline.geometry import Vec
from pipeline.volumes import open_volume
from tests.runs import write_volume
from workflows.app import app


def maps(dtype: str = "uint8") -> tuple[np.ndarray, np.ndarray]:
    """A true map of the classes 0, 1, 2 and 7 in blocks, and one that differs from it in a third of the rows."""
    random = np.random.default_rng(3)
    true = np.kron(random.choice([0, 1, 2, 7], (3, 4, 4)), np.ones((4, 5, 5))).astype(dtype)
    predicted = true.copy()
    predicted[:, ::3] = np.roll(true, 6, axis=2)[:, ::3]
    predicted[:2, :, :7] = 3
    return true, predicted


def test_scores_are_those_of_numpy() -> None:
    """IoU of each class, their mean and the accuracy equal what numpy computes from the arrays."""
    true, predicted = maps()
    found = petaseg.evaluate(predicted, true, as_="classes")
    each = {
        int(n): ((true == n) & (predicted == n)).sum() / ((true == n) | (predicted == n)).sum()
        for n in np.union1d(true, predicted)
    }
    assert {number: counts.iou for number, counts in found.classes.items()} == each
    assert found.classes[3].iou == 0
    assert found.mean_iou == pytest.approx(np.mean(list(each.values())), abs=1e-15)
    assert found.accuracy == (true == predicted).mean()
    assert (found.voxels, found.not_scored) == (true.size, 0)


@pytest.mark.parametrize("block", [Vec(1, 1, 20), Vec(5, 7, 3), Vec(64, 64, 64)])
def test_no_score_depends_on_the_blocks(block: Vec, tmp_path: Path) -> None:
    """Blocks of any shape give the same scores to the last bit."""
    true, predicted = maps()
    volumes = [open_volume(write_volume(tmp_path / f"{n}.zarr", a)) for n, a in enumerate((true, predicted))]
    pair = pair_of(CLASSES, volumes[0], volumes[1], None, Settings())
    found = compare_classes(pair, block=block)
    assert found == petaseg.evaluate(predicted, true, as_="classes")


def test_marks_of_the_truth_are_not_scored() -> None:
    """Voxels of truth -1 count for no class, unless -1 is said to be the background."""
    true, predicted = maps("int32")
    true[0] = -1
    found = petaseg.evaluate(predicted, true, as_="classes")
    assert found.not_scored == true[0].size
    assert found.to_dict() | {"not_scored": 0} == petaseg.evaluate(predicted[1:], true[1:], as_="classes").to_dict()
    background = petaseg.evaluate(predicted, true, as_="classes", minus_one_is_background=True)
    assert background == petaseg.evaluate(predicted, np.where(true == -1, 0, true), as_="classes")


def test_ids_that_are_no_classes_are_refused() -> None:
    """An id above 255 is refused with the kind that scores ids; 255 is a class."""
    true, predicted = maps("uint16")
    predicted[predicted == 7] = 255
    assert 255 in petaseg.evaluate(predicted, true, as_="classes").classes
    predicted[predicted == 255] = 256
    with pytest.raises(VolumeError, match=r"holds 256; classes are from 0 to 255: .*--as objects"):
        petaseg.evaluate(predicted, true, as_="classes")


@pytest.mark.parametrize("settings", [Settings(threshold=0.5), Settings(sections=True), Settings(cap_nm=500.0)])
def test_settings_of_other_kinds_are_refused(settings: Settings) -> None:
    """Thresholds, sections and distances are not for classes."""
    with pytest.raises(ConfigError, match="and these are classes: leave it out"):
        settings.require_fit(CLASSES)


def test_the_command_prints_the_scores(tmp_path: Path) -> None:
    """``--as classes`` prints a row for each class, and numbers with ``--json``; a report is refused."""
    true, predicted = maps()
    volumes = [write_volume(tmp_path / f"{n}.zarr", a) for n, a in enumerate((true, predicted))]
    command = ["evaluate", *volumes, "--as", "classes"]
    scores = petaseg.evaluate(predicted, true, as_="classes")
    shown = CliRunner().invoke(app, command).stdout
    assert f"{scores.mean_iou:.3f}" in shown
    assert f"accuracy {scores.accuracy:.3f}" in shown
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout) == scores.to_dict()
    refused = CliRunner().invoke(app, [*command, "--report", f"{tmp_path}/report"]).exception
    assert isinstance(refused, ConfigError)
    assert "classes have no pictures" in str(refused)
    assert not (tmp_path / "report").exists()
