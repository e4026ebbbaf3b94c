"""Masks and objects from given heads: exact in any chunks, decided on tables, equal to libraries on small volumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cc3d
import distributed  # noqa: F401  (its defaults are there before the first test, so that they stay)
import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import rank
from skimage.segmentation import watershed

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from tests.object_runs import CONTOURS, FOREGROUND, SEEDS, TRUTH, result_of, write
from tests.runs import run
from workflows.driver import segment


def partition(labels: np.ndarray) -> np.ndarray:
    """Labels numbered in the order in which they are met, so that two names of one partition are equal."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[place].reshape(labels.shape)


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("objects", {**SEEDS, "min_seed_size": 5, "min_size": 30}),
        ("objects", {"threshold": 0.6, "min_size": 10}),
        ("mask", {"threshold": 0.6, "median": [3, 5, 3], "min_size": 40, "connectivity": 26}),
    ],
)
def test_chunks_and_executors_change_no_byte(tmp_path: Path, kind: str, table: dict[str, Any]) -> None:
    """Any chunk shape and any executor give the same bytes, and the run is proven."""
    file = write(tmp_path, kind, **table)
    first = result_of(run(file, "execution.executor=serial"))
    assert 0 < np.count_nonzero(first) < first.size
    for name, settings in {
        "whole": ["chunk_shape=[24,30,36]"],
        "slabs": ["chunk_shape=[8,30,36]", "storage_chunk_shape=[4,10,12]", "execution.executor=threads"],
        "dask": ["execution.executor=dask", "execution.workers=2"],
    }.items():
        other = run(file, f"run_directory={tmp_path}/{name}", *settings)
        np.testing.assert_array_equal(result_of(other), first)
        assert all(proof.proven for proof in verify_run(other, None, seed=0))


@pytest.mark.parametrize("connectivity", [6, 26])
def test_objects_without_seeds_are_connected_components(tmp_path: Path, connectivity: int) -> None:
    """Without a key that speaks of seeds, objects are the pieces that scipy finds, less those that are too small."""
    found = result_of(run(write(tmp_path, "objects", threshold=0.6, min_size=25, connectivity=connectivity)))
    pieces, _ = ndimage.label(FOREGROUND > 153, ndimage.generate_binary_structure(3, {6: 1, 26: 3}[connectivity]))
    large = np.bincount(pieces.ravel()) >= 25
    np.testing.assert_array_equal(partition(found), partition(np.where(large[pieces], pieces, 0)))


@pytest.mark.parametrize("connectivity", [6, 26])
@pytest.mark.parametrize("kind", ["mask", "objects"])
def test_runs_find_the_components_of_cc3d(tmp_path: Path, kind: str, connectivity: int) -> None:
    """A mask is what ``cc3d.dust`` leaves above the threshold, and objects are its components."""
    found = result_of(run(write(tmp_path, kind, threshold=0.55, min_size=25, connectivity=connectivity)))
    above = (FOREGROUND > 140).astype(np.uint8)
    large = cc3d.dust(above, threshold=25, connectivity=connectivity)
    wanted = large if kind == "mask" else cc3d.connected_components(large, connectivity=connectivity)
    assert 0 < np.count_nonzero(large) < np.count_nonzero(above)
    np.testing.assert_array_equal(partition(found), partition(wanted))


def test_each_object_grows_from_one_seed(tmp_path: Path) -> None:
    """Objects cover the same voxels as flooding from the seeds does, and each object is one piece with one seed."""
    found = result_of(run(write(tmp_path, "objects", **SEEDS)))
    seeds, count = ndimage.label((FOREGROUND > 178) & (CONTOURS < 128))
    flooded = watershed(-FOREGROUND.astype(int), seeds, mask=FOREGROUND > 102)
    assert count > 5
    np.testing.assert_array_equal(found != 0, flooded != 0)
    pairs = np.unique(np.stack([found[seeds > 0], seeds[seeds > 0]]), axis=1)
    assert pairs.shape[1] == count == len(np.unique(found)) - 1
    assert all(ndimage.label(found == name)[1] == 1 for name in pairs[0])


def test_a_mask_is_the_median_above_the_threshold(tmp_path: Path) -> None:
    """A mask is where the median of the head exceeds the threshold, in pieces that are large enough."""
    found = result_of(run(write(tmp_path, "mask", threshold=0.5, median=[3, 3, 5], min_size=30)))
    above = rank.median(FOREGROUND, np.ones((3, 3, 5), np.uint8)) > 127
    pieces, _ = ndimage.label(above)
    np.testing.assert_array_equal(found, (np.bincount(pieces.ravel()) >= 30)[pieces] & above)
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    "setting",
    ["threshold=0.5", "seed_threshold=0.8", "min_size=100", "min_seed_size=40", "seedless=keep"],
)
def test_another_rule_touches_no_prediction_and_no_basin(tmp_path: Path, setting: str) -> None:
    """Relabel decides on stored tables: basins and their graph stay, and the result is that of a new run."""
    file = write(tmp_path, "objects", **SEEDS)
    before = run(file)
    marks = {name: before.ledger(before.stage(name)).summary() for name in ("extract_basins", "build_basin_graph")}
    rule = f"segmentation.{setting}"
    after = segment(str(file), [rule], only_after="tables").run
    for name, mark in marks.items():
        assert after.stage(name).fingerprint == before.stage(name).fingerprint
        assert after.ledger(after.stage(name)).summary() == mark
    fresh = run(file, f"run_directory={tmp_path}/fresh", rule)
    np.testing.assert_array_equal(result_of(after), result_of(fresh))


def test_a_second_result_lies_beside_the_first(tmp_path: Path) -> None:
    """``relabel --output`` keeps the first objects and writes others beside them."""
    file = write(tmp_path, "objects", **SEEDS)
    first = result_of(run(file))
    other = segment(str(file), ["segmentation.threshold=0.6"], only_after="tables", beside="strict").run
    assert other.result_url.endswith("strict.zarr")
    assert np.count_nonzero(result_of(other)) < np.count_nonzero(first)
    np.testing.assert_array_equal(result_of(Run.open(file)), first)


def test_a_run_counts_and_scores_its_objects(tmp_path: Path) -> None:
    """The report of a run has the number of objects, their scores and pictures."""
    session = segment(str(write(tmp_path, "objects", **SEEDS)), report=True)
    report, found = session.report, result_of(session.run)
    assert report is not None
    assert report.summary.segments == len(np.unique(found)) - 1
    assert report.summary.labelled == np.count_nonzero(found)
    stored = json.loads((tmp_path / "run" / "report" / "scores.json").read_text())["scores"]
    assert stored["objects"] == TRUTH.max()
    assert (tmp_path / "run" / "report" / "overview.png").is_file()
    assert (tmp_path / "run" / "report" / "sweep.png").is_file()


def test_a_mask_is_scored_with_its_background(tmp_path: Path) -> None:
    """Voxels outside of the true mask count, since a mask says something of them."""
    session = segment(str(write(tmp_path, "mask", threshold=0.5)), report=True)
    scores, found = session.report.scores, result_of(session.run) != 0
    assert scores.counts.total == found.size
    assert (scores.mask.tp, scores.mask.fp) == ((found & (TRUTH > 0)).sum(), (found & (TRUTH == 0)).sum())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"head": "nuclei"}, r"this run has no head 'nuclei'; it has contours, foreground"),
        ({"head": "foreground:1"}, r"'foreground:1' names a channel of head foreground, which has only one"),
        (
            {"head": None, "seeds_within": {"foreground": {"above": 0.5}}, "within": {"contours": {"above": 0.1}}},
            "none",
        ),
        ({"lowest_threshold": 0.7}, r"lowest_threshold is 0.7 and segmentation.threshold 0.5; .* must rise"),
    ],
)
def test_heads_and_levels_that_do_not_fit_are_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    """A head that there is not, and a default threshold below the lowest, are refused before anything is computed."""
    with pytest.raises(ConfigError, match=message):
        Run.open(write(tmp_path, "objects", **table))
    assert not (tmp_path / "run").exists()
