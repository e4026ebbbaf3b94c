"""The script that measures a GPU, tried on a CPU: what it measures is written, and time that is over ends it."""

import json
import sys
from collections import Counter
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from pipeline.errors import ConfigError, ModelError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PEAKS = 4
"""A product of matrices and a convolution, in two precisions."""


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def run(gpu, monkeypatch, *arguments):
    """The exit status of the script."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments)])
    return gpu.main()


def rows(output):
    """The rows of a table, of which the page has as many lines."""
    found = json.loads(output.with_suffix(".json").read_text())["rows"]
    page = output.with_suffix(".md").read_text()
    assert page.startswith("device cpu, torch ")
    assert len([line for line in page.splitlines() if line.startswith("|")]) == len(found) + 2
    return found


def measured(gpu, monkeypatch, output, *measures):
    """Exit status and rows of these measurements of one network, without a limit of time."""
    limits = ("--device", "cpu", "--minutes", 60, "--networks", "gamma_net_3d/tiny", "--measures", *measures)
    status = run(gpu, monkeypatch, *limits, "--output", output)
    found = rows(output)
    assert [row["note"] for row in found if row["value"] is None] == []
    assert status == int(any(row["wrong"] for row in found))
    return found


def test_speed_and_bytes_are_measured_on_a_cpu(gpu, monkeypatch, tmp_path):
    """The network bare and through the predictor, with other settings, and its bytes over repeats and batch sizes."""
    found = measured(gpu, monkeypatch, tmp_path / "table", "usual", "bytes", "variants")
    assert Counter(row["measure"] for row in found) == {
        **{"peak": PEAKS, "bare": 1 + 5, "pipeline": 1},
        **{"bytes over repeats": 2, "bytes over batch sizes": 1},
    }
    assert all((row["share_of_peak"] is not None) == (row["measure"] == "bare") for row in found)
    assert [row["value"] for row in found if row["measure"].startswith("bytes")] == [0, 0, 0]
    assert len({row["settings"] for row in found if row["measure"] == "bare"}) == 5  # a CPU runs patch by patch


def test_a_short_training_is_measured_on_a_cpu(gpu, monkeypatch, tmp_path):
    """Updates a second, and the loss at the end, which is wrong if it is not below that of the beginning."""
    speed, loss = measured(gpu, monkeypatch, tmp_path / "table", "training")[PEAKS:]
    assert (speed["measure"], loss["measure"]) == ("training", "training loss")
    assert speed["value"] > 0
    beginning = float(loss["note"].rpartition(" ")[2])
    assert loss["wrong"] == (round(loss["value"], 3) >= beginning)


def test_where_no_time_is_left_the_table_says_what_is_missing(gpu, monkeypatch, tmp_path):
    """The peak is measured in any case, and each other measurement has a row that says that it is missing."""
    limits = ("--device", "cpu", "--minutes", 0, "--networks", "plain_unet/tiny", "fib25-tiny")
    assert run(gpu, monkeypatch, *limits, "--output", tmp_path / "table") == 0
    peaks, others = (found := rows(tmp_path / "table"))[:PEAKS], found[PEAKS:]
    assert all(row["value"] > 0 for row in peaks)
    assert {row["note"] for row in others} == {"not measured: no time was left"}
    assert {row["measure"] for row in others} == set(gpu.MEASURES)


def test_a_gpu_that_is_not_there_is_refused(gpu, monkeypatch):
    def missing(_):
        raise ConfigError("torch must find a GPU and finds none")

    monkeypatch.setattr(gpu.PredictOptions, "resolved_device", missing)
    with pytest.raises(SystemExit, match="torch must find a GPU and finds none; --device cpu tries the script"):
        run(gpu, monkeypatch, "--device", "cuda")


@pytest.mark.parametrize(
    ("error", "note", "wrong"),
    [
        (ModelError("the network\nbroke its card"), "failed: the network broke its card", True),
        (RuntimeError("CUDA error"), "failed: CUDA error", True),
        (TimeoutExpired(["python"], 1), "not measured: no time was left", False),
        ("OutOfMemoryError", "not measured: it needs more memory than this GPU has", False),
    ],
)
def test_what_fails_has_a_row_and_the_next_step_is_measured(gpu, error, note, wrong):
    import torch

    def step():
        yield gpu.Row("bare", "network", value=1.0)
        raise torch.OutOfMemoryError if error == "OutOfMemoryError" else error

    bench = gpu.Bench("cpu", 1.0, "")
    first, last = gpu.rows_of(gpu.Step("variants", "network", step, 0), bench)
    assert first.value == 1.0
    assert (last.measure, last.value, last.note, last.wrong) == ("variants", None, note, wrong)


def test_results_that_differ_are_wrong_only_where_they_are_claimed_to_be_equal(gpu):
    from on_device.rows import differing

    assert differing("repeats", "", "", ["a", "a", "a"], claimed=True).wrong is False
    found = differing("repeats", "", "", ["a", "b", "a"], claimed=True)
    assert (found.value, found.note, found.wrong) == (1, "of 2", True)
    assert differing("batch sizes", "", "", ["a", "b"], claimed=False).wrong is False
