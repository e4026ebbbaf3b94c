"""The three experiments on Pathfinder, at a scale that only shows that they run."""

import json

import pytest

from pipeline.experiments.base import Scale, find_experiment, run_experiment

SCALE = Scale(tiny=True, seeds=(0,))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """One folder for all, as a user would have it: trials are shared."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize("name", ["steps", "crbp-pathfinder", "stability"])
def test_a_tiny_scale_ends_in_a_report(output, name):
    folder = run_experiment(find_experiment(name), output, SCALE)
    result = json.loads((folder / "result.json").read_text())
    assert all(len(row) == len(result["columns"]) for row in result["rows"])
    assert (folder / "plot.png").stat().st_size > 10_000
