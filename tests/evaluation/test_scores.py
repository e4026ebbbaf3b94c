"""Scores computed from the table equal those that scikit-image computes from the voxels."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.metrics import adapted_rand_error, variation_of_information

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import score


@st.composite
def label_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
    truth = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 5)))
    truth.flat[0] = 1
    return truth, draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 5)))


@given(label_pairs())
def test_voi_is_that_of_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    split, merge = variation_of_information(*pair, ignore_labels=(0,))
    scores = score(Contingency.from_labels(*pair))
    assert scores.voi_split == pytest.approx(split, abs=1e-12)
    assert scores.voi_merge == pytest.approx(merge, abs=1e-12)
    assert scores.voi == scores.voi_split + scores.voi_merge


@given(label_pairs())
def test_adapted_rand_is_that_of_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores = score(Contingency.from_labels(*pair))
    with np.errstate(invalid="ignore", divide="ignore"):
        error, of_objects, of_segments = adapted_rand_error(*pair, ignore_labels=(0,))
    # scikit-image 0.26 divides "precision" by the pairs of the truth, against its own documentation
    expected = np.nan_to_num([error, of_segments, of_objects], nan=-1)
    for value, reference, empty in zip(
        (scores.adapted_rand_error, scores.precision, scores.recall), expected, (0.0, 1.0, 1.0), strict=True
    ):
        assert value == pytest.approx(empty if reference == -1 else reference, abs=1e-12)


def test_scores_on_real_tissue_are_those_of_scikit_image(shared_data: Path) -> None:
    with h5py.File(shared_data / "fib25_train2.h5") as file:
        truth, predicted = (file[name][:40, :80, :80].astype(np.int64) for name in ("labels", "supervoxels"))
    scores = score(Contingency.from_labels(truth, predicted))
    assert truth.min() == 0, "0 must be ignored by both"
    predicted = np.unique(predicted, return_inverse=True)[1]
    expected = variation_of_information(truth, predicted, ignore_labels=(0,))
    assert (scores.voi_split, scores.voi_merge) == pytest.approx(expected, abs=1e-12)
    assert scores.adapted_rand_error == pytest.approx(adapted_rand_error(truth, predicted)[0], abs=1e-12)


def test_a_false_merge_costs_precision_and_merge_only() -> None:
    scores = score(Contingency.from_labels(np.repeat([1, 2], 50), np.ones(100, int)))
    assert (scores.voi_split, scores.voi_merge) == (0, 1)
    assert scores.recall == 1
    assert scores.precision == pytest.approx(2 * 50 * 49 / (100 * 99))


def test_a_false_split_costs_recall_and_split_only() -> None:
    scores = score(Contingency.from_labels(np.ones(100, int), np.repeat([1, 2], 50)))
    assert (scores.voi_split, scores.voi_merge) == (1, 0)
    assert scores.precision == 1
    assert scores.recall == pytest.approx(2 * 50 * 49 / (100 * 99))


@given(label_pairs())
def test_the_truth_scores_perfectly_under_any_names(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth = pair[0]
    scores = score(Contingency.from_labels(truth, (truth * 977 + 3).astype(np.uint64)), min_neuron_voxels=1)
    assert (scores.voi, scores.adapted_rand_error, scores.precision, scores.recall) == (0, 0, 1, 1)
    assert scores.neurons == scores.neurons_found == scores.segments == len(np.unique(truth[truth > 0]))


def test_neurons_found_are_large_objects_with_a_segment_of_more_than_half() -> None:
    truth = np.repeat([1, 2, 3, 4], [10, 10, 10, 4])
    predicted = np.repeat([7, 8, 9, 9, 0, 5], [6, 4, 5, 5, 10, 4])
    scores = score(Contingency.from_labels(truth, predicted), min_neuron_voxels=5)
    assert scores.neurons == 3
    assert scores.neurons_found == 2, "objects 1 (IoU 0.6) and 2 (exactly one segment), not 3 (unassigned)"
    assert scores.segments == 4
    assert scores.voxels == 34


def test_an_iou_of_exactly_half_is_not_found() -> None:
    table = Contingency.from_labels(np.ones(10, int), np.repeat([1, 2], 5))
    assert score(table, min_neuron_voxels=1).neurons_found == 0


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(VolumeError, match="at least one"):
        score(Contingency.from_labels(np.zeros(5, int), np.ones(5, int)))


def test_scores_as_a_dictionary_hold_the_total() -> None:
    scores = score(Contingency.from_labels(np.repeat([1, 2], 50), np.ones(100, int)))
    assert scores.to_dict()["voi"] == 1
    assert {"voi_split", "neurons_found", "voxels"} <= set(scores.to_dict())
