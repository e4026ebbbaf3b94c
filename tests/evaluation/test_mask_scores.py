"""Masks and probabilities are scored by counts of voxels, as their definitions say voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.masks import MaskCounts, ValueCounts, as_values, value_of
from pipeline.evaluation.published import f1_to_iou


@st.composite
def pairs(draw):
    shape = (draw(st.integers(1, 3)), 2, draw(st.integers(1, 6)))
    truth = draw(arrays.arrays(np.int32, shape, elements=st.integers(-1, 2)))
    return truth, draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 100, 128, 254, 255])))


def slow_average_precision(true, values):
    """The sum over all distinct values, from the highest, of the gain of recall times precision."""
    total, before = 0.0, 0.0
    for value in sorted(set(values.tolist()), reverse=True):
        found = values >= value
        recall = (found & true).sum() / true.sum()
        total, before = total + (recall - before) * (found & true).sum() / found.sum(), recall
    return total


@given(pairs())
def test_every_threshold_has_the_scores_of_its_mask(pair):
    """Counts, IoU, Dice, precision, recall, average precision and the best threshold are those of plain voxels."""
    truth, predicted = pair
    counts, scored = ValueCounts.of(truth, predicted), truth >= 0
    true, values = truth[scored] > 0, predicted[scored]
    assert counts.total == scored.sum()
    for value, mask in counts.curve():
        found = values >= value
        numbers = [(found & true).sum(), (found & ~true).sum(), (~found & true).sum(), (~found & ~true).sum()]
        assert [mask.tp, mask.fp, mask.fn, mask.tn] == numbers
    if not true.any():
        assert counts.average_precision() is None
        assert counts.best() is None
        return
    assert counts.average_precision() == pytest.approx(slow_average_precision(true, values), abs=1e-12)
    dice = {value: mask.dice for value, mask in counts.curve()}
    assert dice[counts.best()] == max(dice.values())
    assert counts.best() == max(value for value in dice if dice[value] == max(dice.values()))


def test_masks_are_scored_by_counts():
    """The scores of a mask are ratios of counts of voxels."""
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    found = ValueCounts.of(truth, np.array([0.9, 0.6, 0.2, 0.7, 0.4, 0.1, 0.1, 0.1])).at(value_of(0.5))
    assert (found.foreground_iou, found.precision, found.recall, found.dice) == (2 / 4, 2 / 3, 2 / 3, 2 / 3)
    assert found.mean_iou == pytest.approx((2 / 4 + 4 / 6) / 2)
    assert f1_to_iou(found.dice) == pytest.approx(found.foreground_iou)


def test_scores_without_voxels_are_not_defined():
    """A ratio of nothing is none: no precision without a predicted voxel, no recall without a true one."""
    nothing_found, nothing_true, nothing = MaskCounts(0, 0, 3, 5), MaskCounts(0, 3, 0, 5), MaskCounts(0, 0, 0, 5)
    assert (nothing_found.precision, nothing_found.recall, nothing_found.dice) == (None, 0, 0)
    assert (nothing_true.precision, nothing_true.recall, nothing_true.dice) == (0, None, 0)
    assert (nothing.dice, nothing.foreground_iou, nothing.mean_iou) == (None, None, 1)
    assert MaskCounts(4, 0, 0, 0).mean_iou == 1


@pytest.mark.parametrize(("threshold", "value"), [(0.5, 128), (1, 255), (1e-9, 1), (128 / 255, 128), (0.502, 129)])
def test_a_threshold_is_reached_by_a_stored_value(threshold, value):
    """The foreground begins at the smallest stored value whose probability is at least the threshold."""
    assert value_of(threshold) == value
    with pytest.raises(ConfigError, match=r"threshold 0: .* above 0 and up to 1"):
        value_of(0)
    with pytest.raises(ConfigError, match=r"threshold nan"):
        value_of(float("nan"))


def test_what_is_read_as_a_mask_and_what_as_probabilities():
    """uint8 with one value other than 0 is a mask; labels are a mask; floats are probabilities in steps of 1 / 255."""
    truth = np.array([0, 1, 1])
    assert ValueCounts.of(truth, np.array([0, 7, 7], np.uint8)).is_mask
    assert not ValueCounts.of(truth, np.array([0, 7, 8], np.uint8)).is_mask
    assert ValueCounts.of(truth, np.array([0, 7, 9], np.uint16)).is_mask
    assert as_values(np.array([0, 0.5, 1, 1.4 / 255], np.float32)).tolist() == [0, 128, 255, 1]
    assert ValueCounts.empty().is_mask


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.array([0, 1]), np.array([0.2, 1.5]), r"holds 1\.5; .* sigmoid"),
        (np.array([0, 1]), np.array([np.nan, 0.5]), r"holds nan"),
        (np.array([0, 1]), np.array([0, -1]), r"smallest id -1"),
        (np.array([-4, 1]), np.array([0, 1]), r"truth .* smallest id -4"),
    ],
)
def test_values_that_mean_nothing_are_refused(truth, predicted, message):
    with pytest.raises(VolumeError, match=message):
        ValueCounts.of(truth, predicted)
