import numpy as np
import pytest
import torch

from pipeline.training.scores import (
    THRESHOLDS,
    Hits,
    cut_edges,
    f1,
    found_classes,
    found_voxels,
    hits_of,
    score_name,
    score_of,
)
from pipeline.training.target_classes import Classes, ContourMap
from pipeline.training.target_kinds import Affinities, Contours, SignedDistance

NEAREST = Affinities(offsets=((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0)))


def example(shape=(2, 4, 3, 4, 5)):
    """Logits, targets and mask (half)."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(0, 3, shape), rng.random(shape) < 0.7, rng.random(shape) < 0.5
    return tuple(torch.from_numpy(array.astype(np.float32)) for array in arrays)


def test_hits_are_cut_edges_of_nearest_neighbours_only():
    """Hits count the cut edges between nearest neighbours inside the mask, as counting one by one does."""
    logits, targets, mask = example()
    said, true = set(), set()
    for v in np.ndindex(logits.shape):
        if mask[v] and v[1] < 3:
            said |= {v} if logits[v] < 0 else set()
            true |= {v} if targets[v] == 0 else set()
    assert hits_of([NEAREST], logits, targets, mask) == (len(said & true), len(said) + len(true))


def test_f1_of_perfect_wrong_and_empty_answers():
    """F1 is 1 for a perfect answer, 0 for a wrong or empty one, and 1 if nothing is to cut and nothing is cut."""
    _, targets, mask = example()
    assert f1(cut_edges(targets * 2 - 1, targets, mask)) == 1
    assert f1(cut_edges(1 - targets * 2, targets, mask)) == 0
    assert f1(cut_edges(targets * 0 + 1, targets, mask)) == 0
    assert f1(cut_edges(targets * 0 + 1, targets * 0 + 1, mask)) == 1


def test_found_classes_are_right_ones_that_are_no_background():
    """A voxel counts as found if its class is right and not 0; confused ones count against it, masked ones do not."""
    predicted, true = torch.tensor([1, 2, 0, 2, 0, 1]), torch.tensor([[[1.0, 1.0, 2.0, 2.0, 0.0, 0.0]]])
    logits = torch.nn.functional.one_hot(predicted, 3).T[None].float()
    weights = torch.tensor([[[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]])
    assert found_classes(logits, true, weights) == Hits(2, 3 + 4)
    chosen = [Classes(count=3)]
    assert hits_of(chosen, logits, true, weights) == Hits(2, 7)
    assert score_name(chosen) == "class F1"


def test_contours_are_scored_within_the_tolerance_at_the_best_threshold():
    """Contours that are one pixel off are found; the score is that of the best threshold of all patches together."""
    true, weights = torch.zeros(1, 1, 2, 120, 120), torch.ones(1, 1, 2, 120, 120)
    true[..., 60, 10:110] = 1
    logits = torch.full_like(true, -5.0)
    logits[..., 61, 10:110] = 0.5
    logits[:, :, 1, 20, 10:110] = -0.5
    chosen = [ContourMap()]
    found = hits_of(chosen, logits, true, weights)
    assert (found.both == np.where(THRESHOLDS < 0.62, 200, 0)).all()
    assert (found.either - 200 == np.select([THRESHOLDS < 0.37, THRESHOLDS < 0.62], [300, 200], 0)).all()
    assert score_of(chosen, [found, found], 0.5) == 1
    weights[:, :, :, 61] = 0
    assert not hits_of(chosen, logits, true, weights).both.any()
    assert score_name(chosen) == "contour ODS F1"


def test_found_voxels_are_those_that_are_one():
    logits, target = torch.tensor([[[2.0, 2.0, -1.0, 1.0]]]), torch.tensor([[[1.0, 0.0, 1.0, 1.0]]])
    weights = torch.tensor([[[1.0, 0.5, 2.0, 0.0]]])
    assert f1(found_voxels(logits, target, weights)) == pytest.approx(0.5)
    assert f1(found_voxels(logits, target, 0 * weights)) == 1.0


def test_patches_are_scored_together():
    """The score sums the hits of all patches, so one false voxel in an empty patch costs almost nothing."""
    usual, nothing_to_find, one_voxel_predicted = Hits(40, 100), Hits(0, 0), Hits(0, 1)
    clean, dirty = (score_of([Contours()], [usual, other], 0.3) for other in (nothing_to_find, one_voxel_predicted))
    assert clean == pytest.approx(0.8)
    assert dirty == pytest.approx(80 / 101)


def test_what_has_no_f1_is_scored_by_its_loss():
    hits = [hits_of([SignedDistance()], *example())]
    assert hits == [Hits()]
    assert score_of([SignedDistance()], hits, 0.25) == 0.8
