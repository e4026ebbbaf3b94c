"""Label efficiency, RIGNet iterations and the comparison: a few updates of each, to show that the code runs."""

import csv
import json

import pytest

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
    """Would compare networks that differ in more than the iterations."""
    rows = table(run_experiment(find_experiment("rignet-iterations"), tmp_path, TINY))
    assert [int(row["iterations"]) for row in rows] == list(rignet_iterations.ITERATIONS)
    assert [row["updates"] for row in rows] == ["3"] * 4
    assert int(rows[0]["its updates"]) > int(rows[3]["its updates"]) == 3
    assert int(rows[0]["parameters"]) < int(rows[1]["parameters"]) == int(rows[3]["parameters"])
    assert float(rows[3]["kMAC a pixel"]) > 3 * float(rows[0]["kMAC a pixel"])


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
