"""``petaseg evaluate --as mask`` and ``--as objects``: numbers, tables, reports and refusals on the command line."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.runs import petaseg, write_volume
from workflows.app import app


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Truth, labels and probabilities of 6 x 24 x 24 voxels."""
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, (3, 6, 6)).repeat(2, 0).repeat(4, 1).repeat(4, 2).astype(np.uint64)
    labels = np.where(rng.random(truth.shape) < 0.9, truth, 0)
    probability = np.where(labels > 0, 190, 40).astype(np.uint8) + rng.integers(0, 60, truth.shape).astype(np.uint8)
    arrays = {"truth": truth, "labels": labels, "probability": probability}
    return {name: write_volume(folder / f"{name}.zarr", array, (40, 4, 4)) for name, array in arrays.items()}


def said(*words):
    """The output of the command, in this process; what it raises passes through."""
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_objects_are_scored_in_a_process_of_their_own(volumes, tmp_path):
    """Numbers go to the standard output as JSON alone, and the report holds the same numbers."""
    report = tmp_path / "report"
    shown = petaseg("evaluate", volumes["truth"], volumes["labels"], "--as", "objects", "--json", "--report", report)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == (report / "scores.json").read_text()
    scores = json.loads(shown.stdout)
    assert (scores["objects"], scores["found"], scores["confidence"], scores["sections"]["sections"]) == (
        5,
        5,
        "size",
        6,
    )


def test_tables_show_the_scores(volumes, tmp_path):
    """People see a table of scores and where the report is."""
    objects = said(volumes["truth"], volumes["labels"], "--as", "objects", "--size-limits", "9,400", "--sections")
    assert re.search(r"found at IoU 0\.5 +│ 5 +│ 0", objects)
    assert "small, to 9" in objects
    assert "mean of 6 sections in 2D: AP 0." in objects
    mask = said(volumes["truth"], volumes["probability"], "--as", "mask", "--sections", "--report", tmp_path / "report")
    assert re.search(r"average precision +│ 0\.\d{3}", mask)
    assert "all of the box in memory" in mask
    assert re.search(rf"errors +{re.escape(str(tmp_path))}/report/errors\.png", mask.replace("\n", ""))
    best = re.search(r"best threshold +│ (\S+)", mask)[1]
    again = said(volumes["truth"], volumes["probability"], "--as", "mask", "--threshold", best, "--cap-nm", "100")
    assert "up to 100 nm" in again
    whole = json.loads(said(volumes["truth"], volumes["probability"], "--as", "mask", "--json"))
    at_best = json.loads(said(volumes["truth"], volumes["probability"], "--as", "mask", "--threshold", best, "--json"))
    assert at_best["dice"] == whole["best"]["dice"] == at_best["best"]["dice"]


def test_a_table_of_confidences_orders_the_objects(volumes, tmp_path):
    table = tmp_path / "table.txt"
    table.write_text("\n".join(f"{i}, {i / 10}" for i in range(1, 6)))
    shown = said(volumes["truth"], volumes["labels"], "--as", "objects", "--confidence", table, "--json")
    assert json.loads(shown)["confidence"] == str(table)
    table.write_text("1, 0.5")
    with pytest.raises(Exception, match="no confidence of 4 of 5 predicted objects"):
        said(volumes["truth"], volumes["labels"], "--as", "objects", "--confidence", table)


def test_a_box_is_scored_as_objects(volumes):
    """A box counts objects with the voxels inside it."""
    boxed = json.loads(said(volumes["truth"], volumes["labels"], "--as", "objects", "--box", "0:2,0:8,0:8", "--json"))
    assert boxed["voxels"] == 128


def test_a_background_of_minus_one_is_pointed_out(tmp_path):
    """CREMI's clefts have no voxel of 0: the table says how to have the background scored."""
    truth = np.full((2, 8, 8), 2**64 - 1, np.uint64)
    truth[:, 2:5, 2:5] = 6
    labels = (truth == 6).astype(np.uint8)
    files = write_volume(tmp_path / "truth.zarr", truth), write_volume(tmp_path / "labels.zarr", labels)
    unsaid = said(*files, "--as", "mask")
    assert "110 voxels are not scored" in unsaid
    assert "--minus-one-is-background" in unsaid
    assert "not scored" not in said(*files, "--as", "mask", "--minus-one-is-background")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["{truth}", "--as", "mask"],
            r"--as mask is for two volumes, .* petaseg evaluate truth\.zarr RUN/labels\.zarr",
        ),
        (["run.yaml", "--sections"], "sections is for results scored as mask or objects"),
        (["run.yaml", "--report", "x"], "--report x is for two volumes; a run has its pictures"),
        (["{truth}", "{labels}", "--report", "x"], "--report x is for --as mask and --as objects"),
        (["{truth}", "{labels}", "--as", "mask", "--skeletons", "l.npz"], r"--skeletons l\.npz is for neurons"),
        (["{truth}", "{labels}", "--as", "mask", "--set", "a=1"], "--set 'a=1' is for a run"),
        (["{truth}", "{labels}", "--threshold", "0.5"], "threshold is for results scored as mask"),
        (["{truth}", "{labels}", "--as", "objects", "--size-limits", "5,2"], r"size_limits are \[5, 2\]"),
        (["{truth}", "{labels}", "--as", "objects", "--size-limits", "5.5,20"], "give two whole numbers of voxels"),
        (["{truth}", "{probability}", "--as", "mask", "--threshold", "2"], "threshold 2: .* above 0 and up to 1"),
        (["{truth}", "{probability}", "--as", "mask", "--cap-nm", "-1"], r"the cap is -1; .* --cap-nm 500"),
        (["{truth}", "{labels}", "--as", "mask", "--box", "0:9,0:9,0:9"], "correct --box"),
    ],
)
def test_options_that_mean_nothing_are_refused(volumes, words, message):
    """Each refusal gives the value, the rule and the remedy, before anything is read."""
    with pytest.raises(Exception, match=message) as refused:
        said(*(word.format(**volumes) for word in words))
    assert type(refused.value).__module__ == "pipeline.errors"
