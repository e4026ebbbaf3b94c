"""Contours are scored as the Berkeley benchmark does, with a matching that is as large as possible."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pipeline.evaluation.contours import (
    RECALLS,
    average_precision,
    contour_scores,
    f_score,
    hits,
    matched,
    thinned,
)


def line(row, shape=(60, 80), columns=slice(10, 70)):
    """A horizontal line, bool (y, x)."""
    picture = np.zeros(shape, bool)
    picture[row, columns] = True
    return picture


def noise(seed, shape=(14, 15), share=0.12):
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("reach", [0.0, 1.0, 1.5, 3.0])
def test_the_matching_is_as_large_as_possible_and_one_to_one(seed, reach):
    """As many pixels have a partner as in an optimal assignment, equally many on both sides."""
    ours, theirs = noise(seed), noise(seed + 100)
    one, other = matched(ours, theirs, reach)
    apart = np.sqrt(((np.argwhere(ours)[:, None] - np.argwhere(theirs)[None]) ** 2).sum(-1))
    allowed = (apart <= reach).astype(int)
    best = allowed[linear_sum_assignment(allowed, maximize=True)].sum()
    assert one.sum() == other.sum() == best
    assert (one.shape, other.shape) == ((ours.sum(),), (theirs.sum(),))


def test_no_pixel_has_two_partners():
    """Two lines beside one true line: only as many of their pixels are right as the true line has."""
    truth = line(30)
    found, predicted, partners, true = hits(line(29) | line(33), [truth], tolerance=0.05)
    assert (found, predicted, partners, true) == (60, 120, 60, 60)


def test_lines_within_the_tolerance_are_right_and_others_wrong():
    """With a diagonal of 100 pixels and a tolerance of 0.0175, a shift of 1 pixel is right and one of 2 is not."""
    for shift, wanted in ((0, 1), (1, 1), (2, 0)):
        scores = contour_scores([(line(30 + shift).astype(float), [line(30)])], tolerance=0.0175, thresholds=3)
        assert (scores.ods, scores.ois) == (wanted, wanted)


def test_precision_counts_any_annotator_and_recall_all_of_them():
    """Two annotators drew two lines, one of which is predicted: precision 1, recall one half, F two thirds."""
    counts = hits(line(20), [line(20), line(40)])
    assert counts == (60, 60, 60, 120)
    assert f_score(np.array(counts)) == pytest.approx(2 / 3)
    assert hits(line(20), [line(20), line(20)]) == (60, 60, 120, 120)


def test_thick_predictions_are_thinned_before_they_are_counted():
    """A band of five pixels is one line, and has no more false pixels than a line."""
    band = np.zeros((60, 80))
    band[28:33, 10:70] = 1
    assert thinned(band).sum() <= 60
    assert contour_scores([(band, [line(30)])], tolerance=0.03, thresholds=1).ods > 0.95


def test_one_threshold_for_all_pictures_is_no_better_than_one_for_each():
    """Two pictures whose best thresholds differ: ODS has to choose one, OIS takes both."""
    first, second = 0.9 * line(20) + 0.3 * line(40), 0.3 * line(20)
    truths = [line(20)]
    scores = contour_scores([(first, truths), (second, truths)], thresholds=9)
    assert scores.ois == 1
    assert scores.ods == pytest.approx(0.8)
    assert scores.threshold == pytest.approx(0.1)


def test_the_area_is_that_under_the_curve():
    """Precision 1 up to recall one half, nothing beyond: the area of the recalls that occur."""
    found = average_precision(np.array([1.0, 1.0]), np.array([0.0, 0.5]))
    assert found == pytest.approx((RECALLS <= 0.5).mean())
    assert average_precision(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(0.5)


def test_mirrored_pictures_match_alike():
    """Mirroring both pictures, or exchanging them, changes no number of partners."""
    ours, theirs = noise(3), noise(4)
    count = matched(ours, theirs, 2.0)[0].sum()
    assert matched(ours[::-1], theirs[::-1], 2.0)[0].sum() == count
    assert matched(theirs, ours, 2.0)[0].sum() == count


@pytest.mark.parametrize(("predicted", "true", "wanted"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0)])
def test_pictures_without_contours_have_scores(predicted, true, wanted):
    """Nothing predicted where nothing is drawn is right; one without the other is wrong."""
    pictures = [(predicted * line(20).astype(float), [line(20) & bool(true)])]
    assert contour_scores(pictures, thresholds=1).ods == wanted
