from itertools import pairwise

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models import facts
from pipeline.models.facts import (
    all_subjects,
    kmac_per_voxel,
    parameters,
    passing_everything,
    receptive_field,
    stored_facts,
    subject,
    voxels_per_second,
)

STORED = {each.name: each for each in stored_facts()}
REMEDY = "run python -m pipeline.models.facts"


def test_every_size_and_every_bundled_model_has_its_facts():
    """Would list a network without numbers, or numbers of one that is gone."""
    assert list(STORED) == [each.name for each in all_subjects()], REMEDY


@pytest.mark.parametrize("name", list(STORED))
def test_stored_parameters_and_work_are_still_true(name):
    """Would print numbers of an earlier network."""
    stored, now = STORED[name], subject(name)
    with torch.device("meta"):
        assert parameters(now.network() if now.card is None else facts._on_meta(now.architecture, now.arguments)) == (
            stored.parameters
        ), REMEDY
    assert now.patch_shape == stored.patch_shape, REMEDY
    found = kmac_per_voxel(now.architecture, now.arguments, now.patch_shape)
    assert found == pytest.approx(stored.kmac_per_voxel, abs=0.006), REMEDY


@pytest.mark.parametrize("name", ["identity", "resnet_fcn/tiny", "canvas_lstm/tiny", "residual_unet/rsunet"])
def test_stored_fields_are_still_true(name):
    """Would print the field of an earlier network; the others take longer and are built of the same parts."""
    assert receptive_field(subject(name).network()) == STORED[name].receptive_field, REMEDY


def test_known_numbers():
    """Would count another thing: published counts, and multiply-adds that were counted by hand."""
    assert STORED["residual_unet/lee"].parameters == 1_479_060
    assert STORED["gamma_net_3d/base"].kmac_per_voxel == pytest.approx(1010, abs=0.5)
    assert STORED["residual_unet/lee"].kmac_per_voxel == pytest.approx(189, abs=0.5)
    assert STORED["residual_unet/lee"].receptive_field[0] == 1 + 2 * 9 * 2, "nine modules, two kernels of three each"
    assert STORED["residual_unet/2d"].receptive_field[0] == 1
    assert STORED["gamma_net_3d/base"].receptive_field == (None,) * 3, "an instance norm sees the whole patch"


class Stack(nn.Module):
    """Convolutions with max pools and rectifiers between them; the field is known."""

    multiple = (1, 2, 4)

    def __init__(self, *kernels, whole=False):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv3d(1, 1, kernel, padding=tuple(k // 2 for k in kernel)) for kernel in kernels
        )
        self.whole = whole
        nn.init.zeros_(self.layers[0].weight)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x) - 5)
        if self.whole:
            x = x + x.mean((2, 3, 4), keepdim=True)
        small = nn.functional.max_pool3d(x, (1, 2, 4))
        return torch.sigmoid(50 * nn.functional.interpolate(small, size=x.shape[2:]))


def test_a_field_is_measured_although_nothing_would_get_through():
    """Would be too small: dead rectifiers, the one voxel of a max pool, full gates and weights of zero hide it."""
    kernels = ((3, 1, 5), (1, 3, 1))
    expected = tuple(
        sum(k - 1 for k in sides) + pool for sides, pool in zip(zip(*kernels, strict=True), (1, 2, 4), strict=True)
    )
    network = Stack(*kernels)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert receptive_field(network) == expected
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert receptive_field(Stack(*kernels, whole=True)) == (None, None, None)


def test_only_within_the_measurement_everything_passes():
    """Would change the results of every network afterwards."""
    x = torch.tensor([-1.0, 2.0])
    with passing_everything():
        assert torch.equal(torch.relu(x), x)
    assert torch.equal(torch.relu(x), torch.tensor([0.0, 2.0]))


def test_speed_is_in_voxels_per_second():
    """Would print patches, or seconds."""
    speed = voxels_per_second(nn.Identity(), (4, 5, 6), budget=0.01)
    assert speed > 120


def test_the_parts_of_a_subject_are_those_of_its_name():
    """Would print facts of one model under the name of another."""
    card = subject("synthetic-tiny")
    assert (card.architecture, card.patch_shape) == ("gamma_net_3d", (48, 48, 48))
    assert subject("residual_unet/2d").patch_shape == (1, 256, 256)
    assert subject("connectomics_unet/isotropic").patch_shape == (64, 64, 64)
    for name, message in (("residual_unet/huge", "one of tiny, lee"), ("nothing", "no model 'nothing'")):
        with pytest.raises(ModelError, match=message):
            subject(name)


def test_names_are_unique():
    """Would show one network twice."""
    names = sorted(STORED)
    assert all(a != b for a, b in pairwise(names))
