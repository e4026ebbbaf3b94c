from itertools import pairwise

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models import MODELS
from pipeline.models.cells.symmetry import free_parameters
from pipeline.models.facts import (
    all_names,
    compute,
    kmac_per_voxel,
    parameters,
    stored_facts,
    subject,
    voxels_per_second,
)
from pipeline.models.spec import build

STORED = {each.name: each for each in stored_facts()}
REMEDY = "run python -m pipeline.models.facts NAME"


def test_every_size_and_every_bundled_model_has_its_facts():
    """Facts are stored for every named size and every bundled model, and for nothing else."""
    assert list(STORED) == all_names(), REMEDY


def test_every_architecture_has_its_facts():
    """Facts are stored for every architecture, even if its module names no sizes."""
    assert {facts.architecture for facts in STORED.values()} == set(MODELS)


@pytest.mark.parametrize("name", list(STORED))
def test_stored_parameters_and_work_are_still_true(name):
    """The stored parameters, patch shape and multiply-adds are those of the network as it is now."""
    stored, now = STORED[name], subject(name)
    with torch.device("meta"):
        network = build(now.architecture, now.arguments)
    assert parameters(network) == stored.parameters, REMEDY
    assert free_parameters(network) == stored.free_parameters, REMEDY
    assert now.patch_shape == stored.patch_shape, REMEDY
    found = kmac_per_voxel(now.architecture, now.arguments, now.patch_shape)
    assert found == pytest.approx(stored.kmac_per_voxel, abs=0.006), REMEDY


@pytest.mark.parametrize(
    "name",
    [
        *("identity", "resnet_fcn/tiny", "canvas_lstm/tiny", "residual_unet/rsunet", "gamma_net_3d/tiny"),
        *("gamma_net_vgg/tiny", "hgru_contour/tiny"),
    ],
)
def test_stored_fields_are_still_true(name):
    """All stored facts are those computed now; models left out take longer, and are built of the same parts."""
    assert compute(subject(name)) == STORED[name], REMEDY


def test_known_numbers():
    """The facts agree with published parameter counts, and with multiply-adds and fields that were counted by hand."""
    assert STORED["residual_unet/lee"].parameters == 1_479_060
    assert STORED["gamma_net_3d/base"].kmac_per_voxel == pytest.approx(1010, abs=0.5)
    assert STORED["residual_unet/lee"].kmac_per_voxel == pytest.approx(189, abs=0.5)
    assert STORED["residual_unet/lee"].receptive_field[0] == 1 + 2 * 9 * 2, "nine modules, two kernels of three each"
    assert STORED["residual_unet/2d"].receptive_field[0] == 1
    assert (STORED["gamma_net_2d/paper"].free_parameters, STORED["hgru_contour/paper"].parameters) == (449_602, 284_227)
    assert STORED["feedforward_contour/paper"].receptive_field == (1, 91, 91), "six kernels of 15 and one of 7"
    assert STORED["gamma_net_3d/base"].receptive_field == (None,) * 3, "an instance norm sees the whole patch"


def test_speed_is_in_voxels_per_second():
    """Speed is measured in voxels per second, not in patches per second."""
    speed = voxels_per_second(nn.Identity(), (4, 5, 6), budget=0.01)
    assert speed > 120


def test_the_parts_of_a_subject_are_those_of_its_name():
    """A name gives the architecture and patch shape of its model; an unknown or incomplete name is refused."""
    card = subject("synthetic-tiny")
    assert (card.architecture, card.patch_shape) == ("plain_unet", (48, 48, 48))
    assert subject("residual_unet/2d").patch_shape == (1, 256, 256)
    assert subject("connectomics_unet/isotropic").patch_shape == (64, 64, 64)
    refused = {
        "residual_unet/huge": "one of tiny, lee",
        "residual_unet": "is an architecture; .* choose residual_unet/tiny",
        "nothing": "no model 'nothing'",
    }
    for name, message in refused.items():
        with pytest.raises(ModelError, match=message):
            subject(name)


def test_names_are_unique():
    """No two facts have the same name."""
    names = sorted(STORED)
    assert all(a != b for a, b in pairwise(names))
