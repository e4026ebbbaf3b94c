import numpy as np
import pytest
import torch

from pipeline.training.losses import LEAST_SHARE, balanced_bce, cut_f1


def example(shape=(2, 4, 3, 4, 5), rare=0.2, seed=0):
    """Logits, targets (few ones) and mask (half)."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(0, 3, shape).astype(np.float32),
        (rng.random(shape) < rare).astype(np.float32),
        (rng.random(shape) < 0.5).astype(np.float32),
    )


def tensors(*values):
    return tuple(torch.from_numpy(value) for value in values)


def balanced_by_numpy(logits, targets, mask):
    """The definition: in each channel, the masked voxels of each class have a weight of one half together."""
    found = []
    for k in range(logits.shape[1]):
        asked = mask[:, k] > 0
        x, y = logits[:, k][asked].astype(float), targets[:, k][asked]
        p = 1 / (1 + np.exp(-x))
        share = min(max(y.mean(), LEAST_SHARE), 1 - LEAST_SHARE)
        found.append(np.mean(np.where(y > 0, -np.log(p) / share, -np.log(1 - p) / (1 - share)) / 2))
    return np.mean(found)


@pytest.mark.parametrize("rare", [0.01, 0.2, 0.5, 0.99])
def test_the_loss_is_that_of_the_definition(rare):
    """Would weigh classes, channels or masked voxels otherwise."""
    values = example(rare=rare)
    assert balanced_bce(*tensors(*values)).item() == pytest.approx(balanced_by_numpy(*values), rel=1e-5)


def test_saying_nothing_costs_the_same_for_any_share_of_the_classes():
    """Would let the common class win: logits 0 cost log 2, however rare membranes are."""
    for rare in (0.1, 0.5, 0.8):
        _, targets, mask = example((1, 2, 16, 16, 16), rare)
        loss = balanced_bce(*tensors(np.zeros_like(targets), targets, mask))
        assert loss.item() == pytest.approx(np.log(2), rel=1e-5)


def test_masked_voxels_have_exactly_no_gradient_and_all_others_one():
    """Would train on voxels whose label is not known."""
    logits, targets, mask = tensors(*example())
    logits.requires_grad_()
    balanced_bce(logits, targets, mask).backward()
    assert torch.equal(logits.grad != 0, mask > 0)


def test_what_masked_voxels_say_changes_no_bit():
    """Would train on voxels whose label is not known, through the shares of the classes."""
    logits, targets, mask = tensors(*example())
    other = torch.where(mask > 0, targets, 1 - targets)
    assert balanced_bce(logits, targets, mask) == balanced_bce(logits + (1 - mask), other, mask)


def test_a_patch_without_known_voxels_costs_nothing():
    """Would divide by zero."""
    logits, targets, mask = tensors(*example())
    logits.requires_grad_()
    loss = balanced_bce(logits, targets, mask * 0)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_the_loss_of_half_precision_logits_is_computed_in_full():
    """Would lose the loss of sure voxels under bfloat16."""
    logits, targets, mask = tensors(*example())
    short = logits.bfloat16()
    assert balanced_bce(short, targets, mask) == balanced_bce(short.float(), targets, mask)


def test_cut_f1_counts_cut_edges_of_nearest_neighbours_only():
    """Would score other edges, or masked ones; sets of edges are counted one by one here."""
    logits, targets, mask = example(rare=0.7)
    said, true = set(), set()
    for v in np.ndindex(logits.shape):
        if mask[v] and v[1] < 3:
            said |= {v} if logits[v] < 0 else set()
            true |= {v} if targets[v] == 0 else set()
    expected = 2 * len(said & true) / (len(said) + len(true))
    assert cut_f1(*tensors(logits, targets, mask)) == pytest.approx(expected)


def test_cut_f1_of_perfect_wrong_and_empty_answers():
    """Would give the best score to a network that cuts nothing, or none to one that is right."""
    _, targets, mask = tensors(*example())
    assert cut_f1(targets * 2 - 1, targets, mask) == 1
    assert cut_f1(1 - targets * 2, targets, mask) == 0
    assert cut_f1(targets * 0 + 1, targets, mask) == 0
    assert cut_f1(targets * 0 + 1, targets * 0 + 1, mask) == 1
