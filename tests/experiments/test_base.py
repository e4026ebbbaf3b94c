"""Experiments keep their trials, write reports and are run by a command."""

import csv
import json

import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from pipeline.errors import ConfigError
from pipeline.experiments import EXPERIMENTS
from pipeline.experiments.base import (
    Experiment,
    Report,
    Scale,
    Trials,
    find_experiment,
    markdown,
    mean_spread,
    run_experiment,
)
from workflows.app import app


def squares(scale, store):
    found = [store.get({"trial": "square", "seed": s}, lambda s=s: {"value": s**2})["value"] for s in scale.seeds]
    return Report(
        ["seed", "square"], list(zip(scale.seeds, found, strict=True)), ["Small."], lambda figure: draw(figure)
    )


def draw(figure):
    figure.subplots().plot([0, 1], [0, 1])


SQUARES = Experiment(name="squares", title="How large is a square?", run=squares)


def test_a_trial_is_computed_once_and_read_afterwards(tmp_path):
    """A trial is computed once and read from its file afterwards, also by another store."""
    said, computed = [], []
    for store in [Trials(tmp_path, said.append)] * 2 + [Trials(tmp_path, said.append)]:
        assert store.get({"trial": "a", "seed": 1}, lambda: computed.append(1) or {"pair": (1, 2)}) == {"pair": [1, 2]}
    assert len(computed) == 1
    assert [line.endswith("trial=a seed=1") for line in said] == [True, True]
    assert [line.startswith("known") for line in said] == [False, True]


def test_a_trial_with_another_key_is_another_trial(tmp_path):
    store = Trials(tmp_path)
    found = [store.get({"trial": "a", "settings": {"width": w}}, lambda w=w: {"width": w})["width"] for w in (1, 2, 1)]
    assert found == [1, 2, 1]
    assert len(list(tmp_path.glob("a-*.json"))) == 2


def test_a_trial_that_fails_leaves_nothing(tmp_path):
    """A trial that fails is not stored, and the next call computes it."""
    with pytest.raises(ZeroDivisionError):
        Trials(tmp_path).get({"trial": "a"}, lambda: {"x": 1 / 0})
    assert Trials(tmp_path).get({"trial": "a"}, lambda: {"x": 1}) == {"x": 1}


def test_another_version_of_torch_is_another_trial(tmp_path, monkeypatch):
    """A trial has another name under another version of torch, whose numbers may differ."""
    name = Trials(tmp_path).name({"trial": "a"})
    monkeypatch.setattr("torch.__version__", "1.0")
    assert Trials(tmp_path).name({"trial": "a"}) != name


def test_a_report_is_table_plot_and_everything_that_made_it(tmp_path):
    folder = run_experiment(SQUARES, tmp_path, Scale(seeds=(2, 3)))
    assert list(csv.reader((folder / "table.csv").read_text().splitlines())) == [
        ["seed", "square"],
        ["2", "4"],
        ["3", "9"],
    ]
    assert "| 3 | 9 |" in (folder / "table.md").read_text()
    assert "- Small." in (folder / "table.md").read_text()
    assert imread(folder / "plot.png").ndim == 3
    result = json.loads((folder / "result.json").read_text())
    assert result["scale"]["seeds"] == [2, 3]
    assert result["trials"] == 2
    assert result["rows"] == [[2, 4], [3, 9]]


def test_an_experiment_goes_on_where_it_was(tmp_path):
    """An experiment that is run again computes only the trials that are missing (promise 2)."""
    run_experiment(SQUARES, tmp_path, Scale(seeds=(2,)))
    said = []
    run_experiment(SQUARES, tmp_path, Scale(seeds=(2, 3)), said.append)
    assert [line.split()[0] == "known" for line in said] == [True, False]


def test_numbers_of_a_table_have_four_digits():
    report = Report(["a", "b"], [[1 / 3, 12345]], [], draw)
    assert markdown(report) == "| a | b |\n| --- | --- |\n| 0.3333 | 12345 |\n"


def test_mean_and_spread_are_over_seeds():
    assert mean_spread([0.5, 0.7]) == "0.60 ± 0.14"
    assert mean_spread([0.5]) == "0.50"


@pytest.mark.parametrize(("scale", "rule"), [({"seeds": ()}, "at least one"), ({"minutes": 0}, "more than 0")])
def test_a_scale_that_trains_nothing_is_refused(scale, rule):
    with pytest.raises(ConfigError, match=rule):
        Scale(**scale)


def test_minutes_are_refused_where_updates_are_counted(tmp_path):
    """Minutes are refused for an experiment that counts updates, and nothing is written."""
    with pytest.raises(ConfigError, match="minutes is 2; squares counts updates"):
        run_experiment(SQUARES, tmp_path, Scale(seeds=(2,), minutes=2))
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_is_refused_before_anything_is_trained(tmp_path):
    """An output folder that cannot be made is refused before anything is trained, with an error of our own."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"--output is .*file/trials; no folder can be made there"):
        run_experiment(SQUARES, tmp_path / "file", Scale(seeds=(2,)))


def test_a_result_whose_folder_is_a_file_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "squares").write_text("mine")
    started = Experiment("squares", "?", lambda scale, store: pytest.fail("it was started"))
    with pytest.raises(ConfigError, match="no folder can be made there"):
        run_experiment(started, tmp_path, Scale())
    assert (tmp_path / "squares").read_text() == "mine"


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ConfigError, match="there is no experiment 'alchemy'"):
        find_experiment("alchemy")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_what_the_list_says(name):
    """Every listed experiment exists and has the listed name and title."""
    experiment, (_, title) = find_experiment(name), EXPERIMENTS[name]
    assert (experiment.name, experiment.title) == (name, title)


def test_the_command_lists_experiments():
    result = CliRunner().invoke(app, ["experiment", "--list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in EXPERIMENTS)


@pytest.fixture
def listed(monkeypatch):
    """List ``squares`` as an experiment of the command."""
    monkeypatch.setitem(EXPERIMENTS, "squares", (__name__, SQUARES.title))
    monkeypatch.setattr("pipeline.experiments.base.find_experiment", lambda name: SQUARES)


@pytest.mark.usefixtures("listed")
def test_the_command_runs_an_experiment(tmp_path):
    result = CliRunner().invoke(app, ["experiment", "squares", "--output", str(tmp_path), "--seeds", "4,5"])
    assert result.exit_code == 0, result.output
    assert "| 5 | 25 |" in result.output
    without = CliRunner().invoke(app, ["experiment", "squares", "--output", str(tmp_path)])
    assert [line for line in without.output.splitlines() if line[:3] in ("| 0", "| 1", "| 2", "| 4")] == [
        *("| 0 | 0 |", "| 1 | 1 |", "| 2 | 4 |")
    ]
    assert (tmp_path / "squares" / "plot.png").exists()


@pytest.mark.usefixtures("listed")
def test_the_command_tries_a_scale_with_one_update(tmp_path):
    """The result says that each training had one update, so nobody takes it for the experiment."""
    words = ["experiment", "squares", "--output", str(tmp_path), "--full", "--one-update"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "squares" / "result.json").read_text())["scale"]
    assert said["full"]
    assert said["one_update"]
    assert (Scale(one_update=True).updates(20_000), Scale(one_update=True).data(100)) == (1, 2)
    assert (Scale().updates(20_000), Scale().data(100)) == (20_000, 100)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(("arguments", "rule"), [([], "give --output"), (["--seeds", "one"], "--seeds 0,1,2")])
def test_the_command_refuses_what_it_cannot_do(arguments, rule):
    error = CliRunner().invoke(app, ["experiment", "squares", *arguments]).exception
    assert isinstance(error, ConfigError)
    assert rule in str(error)
