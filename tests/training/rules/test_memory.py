import pytest
import torch

from pipeline.models.hgru_contour import HGRUContour
from pipeline.training.rules import (
    Backpropagation,
    CheckpointedBackpropagation,
    RecurrentBackpropagation,
    SavedBytes,
    TruncatedBackpropagation,
)

STEPS = (6, 20, 80)
STATE = 2 * 25 * 16 * 16 * 4
"""Bytes of one state."""


def bytes_of(rule, device="cpu"):
    """What 6, 20 and 80 steps of the contour network keep for the backward pass."""
    torch.manual_seed(0)
    network, image, found = HGRUContour(5).to(device), torch.rand(2, 1, 16, 16, device=device), []
    for steps in STEPS:
        with SavedBytes() as saved:
            x = network.drive(image)
            network.read(rule(network, x, steps).state, x, image).square().mean()
        found.append(saved.bytes)
    return found


def test_recurrent_back_propagation_keeps_one_step_whatever_their_number():
    """C-RBP saves the same number of bytes for 6, 20 and 80 steps, and less than a quarter of what BPTT saves for 6."""
    found = bytes_of(RecurrentBackpropagation())
    assert found[0] == found[1] == found[2]
    assert found[0] < bytes_of(Backpropagation())[0] / 4


def test_back_propagation_keeps_every_step():
    """BPTT saves the same number of bytes for each further step, which is more than ten states."""
    six, twenty, eighty = bytes_of(Backpropagation())
    assert (eighty - twenty) / 60 == (twenty - six) / 14 > 10 * STATE


def test_truncation_keeps_its_window():
    """Truncated backpropagation saves the same number of bytes for 6, 20 and 80 steps."""
    found = bytes_of(TruncatedBackpropagation(4))
    assert found[0] == found[1] == found[2]


def test_checkpoints_keep_one_state_a_step():
    """Checkpointed backpropagation saves exactly one state for each further step."""
    six, twenty, eighty = bytes_of(CheckpointedBackpropagation())
    assert eighty - twenty == 60 * STATE
    assert twenty - six == 14 * STATE


@pytest.mark.parametrize("rule", [Backpropagation(), RecurrentBackpropagation(), TruncatedBackpropagation(4)])
def test_bytes_follow_from_shapes(rule):
    """The meta device, which has no data, counts the same bytes: a network too large for this machine can be asked."""
    assert bytes_of(rule, "meta") == bytes_of(rule)


def test_each_storage_counts_once_and_parameters_do_not():
    """A storage counts once, however many of its views are saved, and parameters do not count."""
    x, w = torch.rand(100, requires_grad=True), torch.nn.Parameter(torch.rand(100))
    with SavedBytes() as saved:
        (x[:50] * w[:50]).sum() + (x[50:] * w[50:]).sum() + (x * w).sum()
    assert saved.bytes == 400
