"""Objects are matched one to one, and their average precision is COCO's, as written out here in plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import ConfigError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.objects import IOUS, Overlaps, average_precision, score_classes, score_objects, score_overlaps


def table_of(truth, predicted):
    return Contingency.from_labels(np.asarray(truth), np.asarray(predicted), background=True)


def runs(*pairs):
    """A truth and a prediction made of runs (true id, predicted id, voxels)."""
    lengths = [length for _, _, length in pairs]
    return np.repeat([a for a, _, _ in pairs], lengths), np.repeat([b for _, b, _ in pairs], lengths)


@st.composite
def labels(draw):
    shape = (2, 3, draw(st.integers(1, 9)))
    ids = [0, 1, 2, 3, 2**63 + 1]
    return tuple(draw(arrays.arrays(np.uint64, shape, elements=st.sampled_from(ids))) for _ in range(2))


def slow_scores(truth, predicted, least_iou, confidence, smallest=1, largest=10**9):
    """Objects, counted predictions, hits and COCO's average precision by loops over objects, as COCO defines them."""
    true_sizes = {i: int((truth == i).sum()) for i in np.unique(truth).tolist() if i}
    sizes = {i: int((predicted == i).sum()) for i in np.unique(predicted).tolist() if i}
    counts = {i: smallest <= size <= largest for i, size in true_sizes.items()}
    free, hits = set(true_sizes), []
    for p in sorted(sizes, key=lambda i: (-confidence(i, sizes[i]), i)):
        best, best_iou = None, -1.0
        for t in sorted(free):
            shared = int(((truth == t) & (predicted == p)).sum())
            iou = shared / (true_sizes[t] + sizes[p] - shared)
            if iou >= least_iou and iou > best_iou:
                best, best_iou = t, iou
        free.discard(best)
        if counts[best] if best is not None else smallest <= sizes[p] <= largest:
            hits.append(best is not None)
    objects = sum(counts.values())
    return objects, len(hits), sum(hits), slow_ap(hits, objects)


def slow_ap(hits, objects):
    if not objects:
        return None
    total = 0.0
    for percent in range(101):
        at_least = [sum(hits[:n]) / n for n in range(1, len(hits) + 1) if 100 * sum(hits[:n]) >= percent * objects]
        total += max(at_least, default=0.0)
    return total / 101


@given(labels(), st.sampled_from([(1, 10**9), (1, 3), (4, 8), (9, 10**9)]), st.booleans())
@settings(max_examples=150)
def test_objects_are_scored_as_coco_defines_it(pair, sizes, with_table):
    """Matching, size classes and average precision are those of loops over objects, at every level."""
    truth, predicted = pair
    numbers = {0: 0.0, 1: 0.5, 2: 0.9, 3: 0.5, 2**63 + 1: 0.1}
    confidence = (lambda i, size: numbers[i]) if with_table else (lambda i, size: size)
    given_table = (lambda ids: np.array([numbers[i] for i in ids.tolist()], float)) if with_table else None
    overlaps = Overlaps.of(table_of(truth, predicted), given_table)
    for level in score_overlaps(overlaps, *sizes).levels:
        objects, counted, found, ap = slow_scores(truth, predicted, level.iou, confidence, *sizes)
        assert (level.objects, level.predicted, level.found) == (objects, counted, found)
        assert level.ap == (None if ap is None else pytest.approx(ap, abs=1e-12))


@given(labels(), st.sampled_from(IOUS))
def test_partners_are_as_many_as_possible(pair, least_iou):
    """No other matching one to one has more pairs of that IoU: found objects are the maximum."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    overlaps = Overlaps.of(table_of(*pair))
    partner, _ = overlaps.partners(least_iou)
    fits = overlaps.iou >= least_iou
    shape = (len(overlaps.true_voxels) + 1, len(overlaps.predicted_voxels) + 1)
    graph = coo_array((np.ones(fits.sum()), (overlaps.true[fits], overlaps.predicted[fits])), shape=shape).tocsr()
    assert (partner >= 0).sum() == (maximum_bipartite_matching(graph) >= 0).sum()
    assert len(np.unique(partner[partner >= 0])) == (partner >= 0).sum()


def test_known_objects_have_known_scores():
    """Two found, one missed, one invented: the numbers of a small example by hand."""
    truth, predicted = runs((1, 10, 80), (1, 0, 20), (2, 20, 90), (0, 20, 10), (3, 0, 50), (0, 30, 40), (0, 0, 999))
    levels = score_objects(table_of(truth, predicted))
    half, strict = levels.at(0.5), levels.at(0.85)
    assert (half.found, half.objects, half.predicted) == (2, 3, 3)
    assert (half.precision, half.recall, half.f1, half.accuracy) == (2 / 3, 2 / 3, 2 / 3, 2 / 4)
    assert half.panoptic_quality == pytest.approx((0.8 + 0.9) / (2 + 0.5 + 0.5))
    assert half.ap == pytest.approx(67 / 101)  # largest first: 20 and 10 are right, so recall 0 .. 0.66 at precision 1
    assert (strict.found, strict.ap) == (1, pytest.approx(34 / 101))
    assert levels.at(0.8).found == 2
    assert levels.at(0.95).ap == 0
    assert levels.ap == pytest.approx(sum(level.ap for level in levels.levels) / 10)


def test_an_invention_of_high_confidence_lowers_average_precision():
    """The order decides: without a table the largest comes first, with one the surest."""
    truth, predicted = runs((1, 10, 80), (0, 30, 400))
    assert score_objects(table_of(truth, predicted)).at(0.5).ap == 0.5
    sure = score_objects(table_of(truth, predicted), lambda ids: np.where(ids == 10, 0.9, 0.1))
    assert sure.at(0.5).ap == 1
    assert sure.at(0.5).accuracy == score_objects(table_of(truth, predicted)).at(0.5).accuracy == 0.5


def test_an_object_that_is_halved_is_found_once():
    """Of two halves with an IoU of exactly 0.5 the surer one is the partner; of equally sure ones the smaller id."""
    halved = Overlaps.of(table_of(*runs((1, 7, 40), (1, 5, 40))))
    partner, iou = halved.partners(0.5)
    assert halved.predicted_ids.tolist() == [5, 7]
    assert (partner.tolist(), iou.tolist()) == ([0, -1], [0.5, 0])
    merged, _ = Overlaps.of(table_of(*runs((4, 9, 40), (2, 9, 40)))).partners(0.5)
    assert merged.tolist() == [0]
    surer, _ = Overlaps.of(table_of(*runs((1, 7, 40), (1, 5, 40))), lambda ids: np.array([0.2, 0.6])).partners(0.5)
    assert surer.tolist() == [0, -1]
    with pytest.raises(ConfigError, match=r"IoU 0\.4: partners are unique only from 0\.5"):
        halved.partners(0.4)


def test_an_iou_of_exactly_the_level_is_enough():
    """An IoU of 11 / 20 reaches the level 0.55, and one voxel less does not."""
    assert score_objects(table_of(*runs((1, 1, 11), (1, 0, 9)))).at(0.55).found == 1
    assert score_objects(table_of(*runs((1, 1, 10999), (1, 0, 9001)))).at(0.55).found == 0


def test_sizes_are_those_of_mitoem():
    """5000 voxels are small, 5001 and 15000 medium, 15001 large; what found an object is of the object's class."""
    truth, predicted = runs((1, 1, 5000), (2, 2, 5001), (3, 3, 15000), (4, 4, 14900), (4, 0, 101), (0, 5, 3), (0, 0, 9))
    classes = score_classes(Overlaps.of(table_of(truth, predicted)))
    assert {name: levels.at(0.5).objects for name, levels in classes.items()} == {"small": 1, "medium": 2, "large": 1}
    assert {name: levels.at(0.5).predicted for name, levels in classes.items()} == {"small": 2, "medium": 2, "large": 1}
    assert all(levels.at(0.5).found == levels.at(0.5).objects for levels in classes.values())
    assert classes["small"].at(0.5).precision == 0.5


def test_what_is_not_scored_belongs_to_no_object():
    """Voxels of truth -1 count in no size: an object that lies there is not invented."""
    truth = np.array([-1, -1, -1, 1, 1, 0, 0])
    predicted = np.array([8, 8, 9, 9, 9, 0, 0])
    half = score_objects(table_of(truth, predicted)).at(0.5)
    assert (half.objects, half.predicted, half.found, half.quality) == (1, 1, 1, 1.0)


def test_scores_without_objects_are_not_defined():
    """Without a true object there is no recall and no average precision; without a predicted one no precision."""
    nothing_true = score_objects(table_of([0, 0, 0], [0, 4, 4])).at(0.5)
    assert (nothing_true.ap, nothing_true.recall, nothing_true.precision, nothing_true.f1) == (None, None, 0, 0)
    nothing_found = score_objects(table_of([0, 4, 4], [0, 0, 0])).at(0.5)
    assert (nothing_found.ap, nothing_found.recall, nothing_found.precision) == (0, 0, None)
    assert score_objects(table_of([0, 0], [0, 0])).to_dict()["ap"] is None
    assert average_precision(np.zeros(0, bool), 0) is None
