"""The experiments on few labels train all arms from the same first weights, and compare them seed by seed."""

import csv

import numpy as np
import pytest

from pipeline.experiments import self_training, suggested_boxes
from pipeline.experiments.base import Scale, Trials, find_experiment, run_experiment
from pipeline.few_labels import rounds
from pipeline.few_labels import self_training as steps_of_rounds
from pipeline.few_labels.candidates import Candidates
from pipeline.geometry import BoundingBox

TINY = Scale(seeds=(0,), tiny=True)


@pytest.fixture(autouse=True)
def real_data(shared_data, monkeypatch):
    monkeypatch.setenv("PETASEG_DATA", str(shared_data))


def test_both_experiments_share_their_first_training(tmp_path, monkeypatch):
    """Each arm has its row, and the second experiment trains only the arms that the first has not."""
    for module in (rounds, steps_of_rounds):  # after four updates, copies agree nowhere
        monkeypatch.setattr(module, "VALID", 0.0)
    folder = run_experiment(find_experiment("self-training"), tmp_path, TINY)
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == [*self_training.ARMS] * 2
    assert all(0 < float(row["AP"]) < 1 for row in rows)
    said = []
    folder = run_experiment(find_experiment("suggested-boxes"), tmp_path, TINY, said.append)
    with (folder / "table.csv").open(newline="") as file:
        assert [row["boxes"] for row in csv.DictReader(file)] == [*suggested_boxes.ARMS]
    assert sum(line.startswith("known") for line in said) == 2
    assert sum("suggested-boxes" in line for line in said) == 4


def test_the_unlabelled_tissue_and_the_candidates_are_of_the_training_part(tmp_path):
    """Neither self-training nor suggestions ever see planes of validation or test."""
    for full in (False, True):
        assert self_training.Sizes.of(Scale(full=full)).unlabelled[0] <= 169
        assert suggested_boxes.region(Scale(full=full)).stop == (169, 250, 250)
    assert Trials(tmp_path).name(self_training.first_key(1, 0, self_training.Sizes.of(TINY)))


@pytest.mark.parametrize(("arm", "expected"), [("most unsure boxes", [3, 2]), ("random boxes", None)])
def test_the_arms_choose_among_the_same_boxes(arm, expected):
    boxes = tuple(BoundingBox.from_shape((1, 1, 1), (0, 0, x)) for x in range(4))
    unsure = np.array([0.1, 0.2, 0.3, 0.4])
    described = Candidates(boxes, unsure, unsure, unsure[:, None], np.zeros((4, 80)))
    chosen = suggested_boxes.chosen_by(arm, described, 2, 0)
    assert expected in (None, chosen)
    assert len(set(chosen)) == 2
    assert chosen == suggested_boxes.chosen_by(arm, described, 2, 0)
