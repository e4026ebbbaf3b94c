import pytest
import torch
from torch.nn import functional as F

from pipeline.models.facts import parameters
from pipeline.models.mask_head import PlainMaskHead, RecurrentMaskHead
from pipeline.training.rules import Backpropagation, RecurrentBackpropagation, column_penalty


def test_the_recurrent_head_is_smaller_by_what_the_paper_says():
    """The recurrent head has 783,552 parameters fewer than the plain one, the difference of the paper's totals."""
    with torch.device("meta"):
        plain, recurrent = PlainMaskHead(), RecurrentMaskHead()
    assert parameters(plain) - parameters(recurrent) == 45_751_590 - 44_968_038 == 783_552
    assert parameters(plain.convolutions) == 2_360_320
    assert parameters(recurrent.cell) == 1_576_768


def test_masks_have_twice_the_resolution_and_a_channel_a_class():
    """The plain head convolves, doubles the resolution, applies ReLU and predicts one mask for each class."""
    torch.manual_seed(0)
    plain, features = PlainMaskHead(8, 3), torch.rand(2, 8, 5, 6)
    r = features
    for convolution in plain.convolutions:
        r = F.relu(F.conv2d(r, convolution.weight, convolution.bias, padding=1))
    r = F.relu(F.conv_transpose2d(r, plain.readout.enlarge.weight, plain.readout.enlarge.bias, stride=2))
    expected = F.conv2d(r, plain.readout.predict.weight, plain.readout.predict.bias)
    torch.testing.assert_close(plain(features), expected)
    assert expected.shape == (2, 3, 10, 12)


def test_the_recurrent_head_reads_the_state_after_all_steps():
    """The recurrent head reads its masks from the state after the last step, and can return those of every step."""
    torch.manual_seed(0)
    head, features = RecurrentMaskHead(8, 3, steps=3), torch.rand(2, 8, 5, 6)
    h = torch.zeros_like(features)
    for _ in range(3):
        h = head.cell(features, h)
    torch.testing.assert_close(head(features), head.readout(h))
    assert [tuple(logits.shape) for logits in head(features, every_step=True)] == [(2, 3, 10, 12)] * 3


@pytest.mark.parametrize("rule", [Backpropagation(), RecurrentBackpropagation()])
def test_any_rule_trains_it(rule):
    """Each rule gives every parameter a finite gradient, also through the penalty, which needs second derivatives."""
    torch.manual_seed(0)
    head, features = RecurrentMaskHead(8, 3, steps=4), torch.rand(2, 8, 5, 6)
    path = rule(head, head.drive(features), steps=4)
    loss = head.read(path.state, features, features).square().mean() + column_penalty(path, 0.01, "sum")
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())
