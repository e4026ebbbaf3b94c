"""Label efficiency, RIGNet iterations and the comparison run to their report, here with a few updates of each."""

import csv
import json

import pytest
import torch

from pipeline.experiments import comparison, label_efficiency, rignet_iterations
from pipeline.experiments.base import Scale, Trials, find_experiment, run_experiment

TINY = Scale(seeds=(0,), tiny=True)


@pytest.fixture(autouse=True)
def real_data(shared_data, monkeypatch):
    monkeypatch.setenv("PETASEG_DATA", str(shared_data))


def table(folder):
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_label_efficiency_compares_at_equal_updates_and_at_equal_time(tmp_path, monkeypatch):
    monkeypatch.setattr(label_efficiency, "PERCENTS", (1, 100))
    folder = run_experiment(find_experiment("label-efficiency"), tmp_path, TINY)
    rows = table(folder)
    assert [(row["data"], row["network"]) for row in rows] == [
        (data, arm) for data in ("challenge", "tissue") for arm in label_efficiency.ARMS
    ]
    for gamma, equal_updates, equal_time in (rows[:3], rows[3:]):
        assert gamma["updates"] == equal_updates["updates"]
        assert int(equal_time["updates"]) > int(gamma["updates"]), "the U-Net is cheaper"
        assert abs(int(gamma["parameters"]) / int(equal_time["parameters"]) - 1) < 0.1
    assert (folder / "plot.png").stat().st_size > 5000


def test_rignet_with_one_iteration_is_the_plain_network(tmp_path):
    """One iteration has no gates, so it has fewer parameters, less work, and more updates in the same time."""
    rows = table(run_experiment(find_experiment("rignet-iterations"), tmp_path, TINY))
    assert [int(row["iterations"]) for row in rows] == list(rignet_iterations.ITERATIONS)
    assert [row["updates"] for row in rows] == ["3"] * 4
    assert int(rows[0]["its updates"]) > int(rows[3]["its updates"]) == 3
    assert int(rows[0]["parameters"]) < int(rows[1]["parameters"]) == int(rows[3]["parameters"])
    assert float(rows[3]["kMAC a pixel"]) > 3 * float(rows[0]["kMAC a pixel"])


def test_rignet_at_full_scale_trains_on_the_device_of_the_scale(tmp_path, monkeypatch):
    """At full scale every network of RIGNet is trained on the device that the scale names, and its trials say so."""
    monkeypatch.setattr(Scale, "device", property(lambda self: torch.device("meta")))
    used = []
    monkeypatch.setattr(rignet_iterations, "Learner", lambda *given: used.append(given[-1].type))
    monkeypatch.setattr(rignet_iterations, "seconds_per_update", lambda learners: [1.0] * len(learners))
    setting = rignet_iterations.setting_of(Scale(full=True))
    rignet_iterations.paces(setting, Trials(tmp_path))
    assert used == ["meta"] * 4
    with pytest.raises(AttributeError):  # the stand-in for a learner cannot run
        rignet_iterations.trial(2, 5, 0, setting, Trials(tmp_path))
    assert used == ["meta"] * 5
    assert setting.key == {"device": "meta"}
    assert rignet_iterations.Setting(setting.fit).key == {}


def test_the_comparison_has_a_row_a_network_with_all_its_seeds():
    """A row of the comparison gives mean and spread over all seeds, and the VOI of each seed."""
    test = {"voi": 2.0, "voi_split": 0.5, "voi_merge": 1.5, "adapted_rand_error": 0.25}
    result = {"parameters": 7, "steps": 600, "pace": 0.5, "validation_f1": 0.5, "threshold": 0.25, "test": test}
    results = [{**result, "best_test_voi": voi, "test": {**test, "voi": voi}} for voi in (2.0, 2.2)]
    row = dict(zip(comparison.COLUMNS, comparison.row(comparison.NETWORKS[0], results), strict=True))
    assert (row["VOI"], row["VOI of each seed"], row["ARE"]) == ("2.100 ± 0.141", "2.000, 2.200", "0.250 ± 0.000")
    assert (row["parameters"], row["updates"], row["min"]) == (7, 600, 5.0)


def test_the_comparison_trains_segments_and_scores_and_goes_on_where_it_was(tmp_path):
    folder = run_experiment(comparison.EXPERIMENT, tmp_path, TINY)
    rows = table(folder)
    assert [row["network"] for row in rows] == [network.label for network in comparison.TINY]
    for row in rows:
        assert float(row["VOI"]) == pytest.approx(float(row["VOI split"]) + float(row["VOI merge"]), abs=2e-3)
        assert float(row["best VOI"]) <= float(row["VOI"]) + 1e-3
    said: list[str] = []
    comparison.run(TINY, Trials(tmp_path / "trials", said.append))
    assert said
    assert all(line.startswith("known") for line in said)
    assert json.loads((folder / "result.json").read_text())["experiment"] == "comparison"
