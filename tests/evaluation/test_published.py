"""Scores of papers and published codes agree with their numbers and with their definitions, written out here."""

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.evaluation.published import distance_scores, f1_to_iou, mask_scores, matched_objects, snemi_rand

PATHFINDER = [
    *((0.9931, 0.98), (0.9918, 0.98), (0.8332, 0.71), (0.9804, 0.96), (0.8825, 0.78)),  # 14: BPTT, C-BPTT, ...
    *((0.8944, 0.81), (0.8466, 0.73)),  # 14, ConvLSTM: BPTT, RBP
]
"""F1 of the C-RBP logs and the printed "IoU"; the paper prints 0.95 for C-RBP, but its log says 0.96, as here."""
LOGGED = [
    *((0.9931, 0.986), (0.9918, 0.984), (0.8332, 0.714), (0.9804, 0.962), (0.8825, 0.790)),  # paths of 14
    *((0.9395, 0.886), (0.9144, 0.842), (0.7690, 0.625), (0.9725, 0.947), (0.7765, 0.635)),  # 20
    *((0.8402, 0.724), (0.8469, 0.734), (0.7424, 0.590), (0.9679, 0.938), (0.7208, 0.564)),  # 25
    *((0.8944, 0.809), (0.8466, 0.734), (0.9653, 0.933)),  # 14, ConvLSTM
]
"""F1 and IoU of the logs."""


@pytest.mark.parametrize(("f1", "printed"), PATHFINDER)
def test_the_papers_iou_is_a_function_of_f1(f1, printed):
    """The IoU that the paper prints is a function of its F1, F1 / (2 - F1)."""
    assert f1_to_iou(f1) == pytest.approx(printed, abs=0.01)


@pytest.mark.parametrize(("f1", "iou"), LOGGED)
def test_logged_f1_and_iou_belong_together(f1, iou):
    assert f1_to_iou(f1) == pytest.approx(iou, abs=0.0007)


def volumes(seed=0, shape=(4, 9, 8)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, shape), rng.integers(0, 5, shape)


def test_masks_are_scored_by_counts():
    """The scores of a mask are ratios of counts of voxels, and volumes that give no ratio are refused."""
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    prediction = np.array([0.9, 0.6, 0.2, 0.7, 0.5, 0.1, 0.1, 0.1])
    found = mask_scores(prediction, truth)
    assert (found.foreground_iou, found.precision, found.recall) == (2 / 4, 2 / 3, 2 / 3)
    assert found.iou == pytest.approx((2 / 4 + 4 / 6) / 2)
    assert f1_to_iou(2 * 2 / (2 * 2 + 1 + 1)) == pytest.approx(found.foreground_iou)
    with pytest.raises(VolumeError, match="0 voxels predicted, 3 true"):
        mask_scores(prediction, truth, threshold=2)
    with pytest.raises(VolumeError, match="same voxels"):
        mask_scores(prediction[1:], truth)


def test_distances_are_means_to_the_nearest_voxel():
    """Distances are means over the voxels of one mask, in nm, to the nearest voxel of the other.

    CREMI's score is the mean of both, as in the paper's table: (84.037 + 24.433) / 2 = 54.23.
    """
    prediction, truth = (part == 1 for part in volumes())
    places = [np.argwhere(part) * (40, 4, 4) for part in (prediction, truth)]
    apart = np.sqrt(((places[0][:, None] - places[1]) ** 2).sum(-1))
    found = distance_scores(prediction, truth)
    assert found.to_truth == pytest.approx(apart.min(1).mean(), abs=1e-10)
    assert found.to_prediction == pytest.approx(apart.min(0).mean(), abs=1e-10)
    assert found.cremi == pytest.approx((found.to_truth + found.to_prediction) / 2)
    with pytest.raises(VolumeError, match="without any voxel"):
        distance_scores(prediction, truth & False)


def test_the_rand_error_has_the_sums_of_the_snemi_script():
    """The Rand error has the sums of the SNEMI script; the pipeline's own score counts pairs of distinct voxels."""
    prediction, truth = volumes(1)
    table = np.zeros((5, 6))
    np.add.at(table, (truth.ravel(), prediction.ravel()), 1)
    labelled, alone = table[1:], table[1:, 0].sum() / truth.size
    both = (labelled[:, 1:] ** 2).sum() + alone
    precision = both / ((labelled[:, 1:].sum(0) ** 2).sum() + alone)
    recall = both / (labelled.sum(1) ** 2).sum()
    error = 1 - 2 * precision * recall / (precision + recall)
    assert snemi_rand(prediction, truth) == pytest.approx((error, precision, recall), abs=1e-12)
    assert snemi_rand(truth, truth)[0] == pytest.approx(0, abs=1e-12)
    with pytest.raises(VolumeError, match="0 voxels with a true label"):
        snemi_rand(prediction, truth * 0)


def test_objects_are_matched_one_to_one():
    """Each true object is matched with one segment at most, and only if they overlap by the threshold."""
    truth = np.repeat([1, 1, 2, 2, 0, 3, 3, 0], 5)
    prediction = np.repeat([7, 7, 8, 9, 0, 0, 6, 5], 5)
    found = matched_objects(prediction, truth)
    assert (found.found, found.invented, found.missed) == (3, 2, 0)
    assert found.average_precision == 3 / 5
    assert found.f1 == 6 / 8
    assert found.panoptic_quality == pytest.approx((1 + 0.5 + 0.5) / 4)
    strict = matched_objects(prediction, truth, 0.75)
    assert (strict.found, strict.invented, strict.missed, strict.quality) == (1, 4, 2, 1.0)
    assert matched_objects(prediction, truth * 0).invented == 5
    assert matched_objects(truth * 0, truth * 0).average_precision == 1
