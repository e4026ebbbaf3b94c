from functools import partial

import numpy as np
import pytest
import torch

from pipeline.training.losses import (
    LEAST_SHARE,
    balanced_bce,
    contour_bce,
    cross_entropy,
    dice_loss,
    focal_loss,
    mean_absolute,
    mean_square,
    smooth_absolute,
    weighted_bce,
    weighted_dice_loss,
)

ELEMENTWISE = [
    weighted_bce,
    partial(focal_loss, gamma=2.0),
    partial(dice_loss, smooth=100.0),
    partial(mean_square, activation="none"),
    partial(mean_absolute, activation="none"),
    partial(smooth_absolute, activation="none", beta=0.5),
    partial(contour_bce, background=1.1),
    partial(weighted_dice_loss, smooth=10.0, share=0.85),
]
OF_CLASSES = [
    cross_entropy,
    partial(cross_entropy, smoothing=0.1),
    partial(cross_entropy, balanced=True),
    partial(cross_entropy, smoothing=0.2, balanced=True),
]


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
    """Balanced cross-entropy equals its definition in NumPy for rare and for common classes."""
    values = example(rare=rare)
    assert balanced_bce(*tensors(*values)).item() == pytest.approx(balanced_by_numpy(*values), rel=1e-5)


def test_saying_nothing_costs_the_same_for_any_share_of_the_classes():
    """Logits of 0 cost log 2, however rare the positive class is."""
    for rare in (0.1, 0.5, 0.8):
        _, targets, mask = example((1, 2, 16, 16, 16), rare)
        loss = balanced_bce(*tensors(np.zeros_like(targets), targets, mask))
        assert loss.item() == pytest.approx(np.log(2), rel=1e-5)


def test_masked_voxels_have_exactly_no_gradient_and_all_others_one():
    """The gradient is exactly 0 at voxels outside of the mask and different from 0 at all voxels inside of it."""
    logits, targets, mask = tensors(*example())
    logits.requires_grad_()
    balanced_bce(logits, targets, mask).backward()
    assert torch.equal(logits.grad != 0, mask > 0)


def test_what_masked_voxels_say_changes_no_bit():
    """Logits and targets outside of the mask do not change the balanced loss by a single bit."""
    logits, targets, mask = tensors(*example())
    other = torch.where(mask > 0, targets, 1 - targets)
    assert balanced_bce(logits, targets, mask) == balanced_bce(logits + (1 - mask), other, mask)


def test_a_patch_without_known_voxels_costs_nothing():
    """A patch without known voxels has a loss of 0 and no gradient."""
    logits, targets, mask = tensors(*example())
    logits.requires_grad_()
    loss = balanced_bce(logits, targets, mask * 0)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_the_loss_of_half_precision_logits_is_computed_in_full():
    """The balanced loss of bfloat16 logits is computed in float32."""
    logits, targets, mask = tensors(*example())
    short = logits.bfloat16()
    assert balanced_bce(short, targets, mask) == balanced_bce(short.float(), targets, mask)


def everywhere(shape=(2, 3, 4, 5)):
    """Logits, targets and weights of ones, float64."""
    rng = np.random.default_rng(3)
    return (
        torch.from_numpy(rng.normal(0, 2, shape)),
        torch.from_numpy((rng.random(shape) < 0.3).astype(float)),
        torch.ones(shape, dtype=torch.float64),
    )


def test_a_balanced_loss_in_the_plane_is_that_of_one_section():
    """The balanced loss of a 2D patch equals that of a 3D patch of one section."""
    logits, targets, mask = tensors(*example((2, 4, 1, 6, 5)))
    flat = balanced_bce(logits[:, :, 0], targets[:, :, 0], mask[:, :, 0])
    assert flat == balanced_bce(logits, targets, mask)


def test_weighted_cross_entropy_divides_by_voxels():
    logits, targets, weights = everywhere()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, 7 * weights)
    assert weighted_bce(logits, targets, 7 * weights) == pytest.approx(expected.item(), rel=1e-12)


def test_focal_loss_is_that_of_the_definition_and_cross_entropy_at_gamma_zero():
    logits, targets, weights = everywhere()
    p = torch.sigmoid(torch.where(targets > 0, logits, -logits))
    expected = (-((1 - p) ** 2) * torch.log(p)).mean()
    assert focal_loss(logits, targets, weights, gamma=2).item() == pytest.approx(expected.item(), rel=1e-12)
    assert focal_loss(logits, targets, weights, gamma=0) == weighted_bce(logits, targets, weights)


def test_focal_loss_stays_finite_where_the_network_is_sure():
    """Focal loss and its gradient are finite at logits of 200 and -200."""
    logits = torch.tensor([[200.0, -200.0, 200.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1, 3), gamma=2)
    loss.backward()
    assert loss.item() == pytest.approx(200 / 3)
    assert torch.isfinite(logits.grad).all()


def test_dice_loss_is_that_of_the_definition():
    logits, targets, weights = everywhere()
    p = torch.sigmoid(logits)
    expected = [1 - (2 * (p[b] * targets[b]).sum() + 5) / (p[b].sum() + targets[b].sum() + 5) for b in range(2)]
    assert dice_loss(logits, targets, weights, smooth=5).item() == pytest.approx(torch.stack(expected).mean().item())
    perfect = dice_loss((targets * 2 - 1) * 50, targets, weights, smooth=0)
    assert perfect.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("activation", ["none", "sigmoid", "tanh"])
def test_mean_square_is_taken_after_the_activation(activation):
    logits, targets, weights = everywhere()
    said = {"none": logits, "sigmoid": torch.sigmoid(logits), "tanh": torch.tanh(logits)}[activation]
    expected = ((said - targets) ** 2).mean()
    assert mean_square(logits, targets, weights, activation=activation).item() == pytest.approx(expected.item())


def test_cross_entropy_takes_class_numbers():
    logits = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(0, 5, (2, 1, 4, 4), generator=torch.Generator().manual_seed(1)).float()
    expected = torch.nn.functional.cross_entropy(logits, classes[:, 0].long())
    assert cross_entropy(logits, classes, torch.ones_like(classes)).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("loss", [*ELEMENTWISE, *OF_CLASSES, balanced_bce])
def test_nothing_that_is_said_or_true_at_masked_voxels_matters(loss):
    """Voxels of weight 0 change neither loss nor gradients, and a loss is finite if all weights are 0."""
    logits, targets, weights = everywhere((2, 1, 4, 5))
    if loss in OF_CLASSES:
        logits = logits * torch.tensor([1.0, 2.0, -1.0]).view(1, 3, 1, 1)
    weights[:, :, :2] = 0
    logits.requires_grad_()
    value = loss(logits, targets, weights)
    value.backward()
    assert not logits.grad[:, :, :2].any()
    assert logits.grad[:, :, 2:].any()
    other = targets.clone()
    other[:, :, :2] = 1 - other[:, :, :2]
    assert loss(logits.detach() + (1 - weights), other, weights) == value
    assert torch.isfinite(loss(logits.detach(), targets, weights * 0))


@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_losses_of_half_precision_logits_are_computed_in_full(loss):
    logits, targets, weights = (part.float() for part in everywhere())
    short = logits.bfloat16()
    assert loss(short, targets, weights) == loss(short.float(), targets, weights)


@pytest.mark.parametrize("loss", [*ELEMENTWISE, *OF_CLASSES, balanced_bce])
def test_gradients_are_those_of_finite_differences(loss):
    """The gradient of every loss by every logit is that of central differences, in float64."""
    logits, targets, weights = everywhere((2, 1, 2, 3))
    weights[0, :, 0] = 0
    weights[1, :, 1] = 2.5
    if loss in OF_CLASSES:
        logits = torch.cat([logits, -0.5 * logits, logits + 1], 1)
    if loss is balanced_bce:
        logits, targets, weights = (part.float() for part in (logits, targets, weights))
    step, tolerance = (1e-2, 2e-3) if loss is balanced_bce else (1e-6, 1e-7)
    logits.requires_grad_()
    loss(logits, targets, weights).backward()
    for place in np.ndindex(logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[place] += sign * step
            ends.append(loss(moved, targets, weights).item())
        assert logits.grad[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=tolerance)


def test_the_contour_loss_is_the_published_sum():
    """In each picture ones weigh n0 / n and zeros 1.1 n1 / n, as a sum over its unmasked pixels; mean over pictures."""
    logits, targets, weights = everywhere((2, 1, 6, 7))
    weights[:, :, :2] = 0
    expected = []
    for x, y in zip(logits[:, :, 2:], targets[:, :, 2:], strict=True):
        ones, p = y.sum() / y.numel(), torch.sigmoid(x)
        expected.append(-((1 - ones) * y * p.log() + 1.1 * ones * (1 - y) * (1 - p).log()).sum())
    found = contour_bce(logits, targets, weights, background=1.1)
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-12)


def test_weighted_dice_of_a_case_by_hand():
    """A true voxel at p = 0.75 and a false one at p = 0.25, weights 0.8 and 0.2: 1 - 2 * 0.34 / (0.17 + 0.68) = 0.2."""
    logits = torch.tensor([[[np.log(3.0), -np.log(3.0)]]], dtype=torch.float64)
    targets = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    p, t = np.array([0.8 * 0.5, 0.2 * -0.5]), np.array([0.8, -0.2])
    expected = 1 - 2 * (p * t).sum() / ((p**2).sum() + (t**2).sum())
    found = weighted_dice_loss(logits, targets, torch.ones_like(targets), smooth=0, share=0.8)
    assert found.item() == pytest.approx(expected)
    assert expected == pytest.approx(0.2)


def test_weighted_dice_is_zero_where_all_is_right_and_two_where_all_is_wrong():
    """Certain and right costs 0; certain and wrong costs 2, as p t is negative everywhere, background included."""
    _, targets, weights = everywhere()
    sure = (targets * 2 - 1) * 50
    assert weighted_dice_loss(sure, targets, weights, smooth=0, share=0.85).item() == pytest.approx(0, abs=1e-12)
    assert weighted_dice_loss(-sure, targets, weights, smooth=0, share=0.85).item() == pytest.approx(2)


def test_smooth_l1_is_a_parabola_that_a_line_continues():
    """Differences of 0.1, 0.5 and 3 with beta 0.5 cost 0.01, 0.25 and 2.75; L1 itself 0.1, 0.5 and 3."""
    found = [
        (
            smooth_absolute(
                torch.tensor([[d]]), torch.zeros(1, 1), torch.ones(1, 1), activation="none", beta=0.5
            ).item(),
            mean_absolute(torch.tensor([[d]]), torch.zeros(1, 1), torch.ones(1, 1), activation="none").item(),
        )
        for d in (0.1, 0.5, -3.0)
    ]
    assert found == [pytest.approx(pair) for pair in ((0.01, 0.1), (0.25, 0.5), (2.75, 3.0))]


def test_label_smoothing_expects_a_share_of_every_class():
    """With smoothing s the best probabilities are s / classes, and 1 - s more for the true class; s = 0 is plain."""
    classes = torch.tensor([[[1.0, 2.0]]])
    best = torch.full((1, 3, 2), 0.1)
    best[0, 1, 0] = best[0, 2, 1] = 0.8
    weights = torch.ones_like(classes)
    logits = best.log().requires_grad_()
    cross_entropy(logits, classes, weights, smoothing=0.3).backward()
    assert logits.grad.abs().max() < 1e-6
    assert cross_entropy(logits, classes, weights, smoothing=0.0) == cross_entropy(logits, classes, weights)


def test_balanced_classes_weigh_the_same_together():
    """Of ten voxels, six, three and one of a class: each class has a third of the loss, and an absent one none."""
    classes = torch.tensor([0.0] * 6 + [1.0] * 3 + [3.0])[None, None]
    logits = torch.randn(1, 5, 10, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.cross_entropy(logits, classes[:, 0].long(), reduction="none")[0]
    expected = (plain[:6].mean() + plain[6:9].mean() + plain[9]) / 3
    found = cross_entropy(logits, classes, torch.ones_like(classes), balanced=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_classes_may_be_renamed(balanced):
    """Another order of the classes, in logits and targets alike, gives the same loss."""
    order = torch.tensor([2, 0, 3, 1])
    logits = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(0, 4, (2, 1, 5, 6), generator=torch.Generator().manual_seed(1))
    renamed = order.argsort()[classes].float()
    settings = {"weights": torch.ones_like(renamed), "smoothing": 0.1, "balanced": balanced}
    first = cross_entropy(logits, classes.float(), **settings)
    assert cross_entropy(logits[:, order], renamed, **settings).item() == pytest.approx(first.item(), rel=1e-6)
