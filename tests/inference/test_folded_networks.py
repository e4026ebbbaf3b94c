"""With the plain networks, folded and narrowed, no byte depends on chunks, in float32 and in bfloat16 as a whole."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.grid import ChunkGrid
from pipeline.inference import predictor
from pipeline.inference.predictor import PredictOptions, Predictor
from pipeline.models.folding import folded
from tests.inference.boxes import patient
from tests.inference.networks import NEAREST, Card, Loaded
from tests.inference.test_predictor import image_of, lattice_of, unrounded, whole
from tests.models.plain import CUBIC, trained

OFFSETS = [*NEAREST, [-3, 0, 0], [0, -3, 0]]
PATCH, OVERLAP = (8, 12, 12), (2, 3, 3)


ARCHITECTURES = ("plain_unet", "plain_gamma")
PRECISIONS = ("float32", "bfloat16")
KINDS = tuple(product(ARCHITECTURES, PRECISIONS))


@cache
def loaded(architecture):
    """One network an architecture: trained again, its norms could differ in the last bit."""
    return Loaded(Card(PATCH, OVERLAP, OFFSETS), trained(architecture, CUBIC))


def predictor_of(architecture, precision):
    return Predictor(loaded(architecture), PredictOptions(precision=precision))


PREDICTORS = {kind: predictor_of(*kind) for kind in KINDS}


@settings(patient, max_examples=10)
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_the_chunks(kind, data):
    """Any chunks of any volume give the same float32 values before rounding."""
    shape = data.draw(st.tuples(*(st.integers(4, 24) for _ in range(3))))
    lattice, image = lattice_of(shape, patch=PATCH, overlap=OVERLAP), image_of(shape, data.draw(st.integers(0, 9)))
    network = PREDICTORS[kind]
    expected = unrounded(network, image, lattice)
    chunk = tuple(data.draw(st.integers(max(2, n // 3), n + 3)) for n in shape)
    for core in (chunk.core for chunk in ChunkGrid(lattice.bounds, lattice.bounds, chunk)):
        np.testing.assert_array_equal(unrounded(network, image, lattice, core), expected[:, *core.slices()])


@pytest.mark.parametrize("kind", KINDS)
def test_another_predictor_of_the_same_weights_computes_the_same_bytes(kind):
    """A second predictor, which folds again, gives the same bytes and the same digest."""
    image, lattice = image_of((11, 15, 17)), lattice_of((11, 15, 17), patch=PATCH, overlap=OVERLAP)
    second = predictor_of(*kind)
    np.testing.assert_array_equal(whole(second, image, lattice), whole(PREDICTORS[kind], image, lattice))
    assert second.digest(PATCH) == PREDICTORS[kind].digest(PATCH)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_precisions_agree_within_a_few_steps_of_255(architecture):
    """Affinities in bfloat16, gates and states included, differ from those in float32, but by rounding only."""
    image, lattice = image_of((11, 15, 17)), lattice_of((11, 15, 17), patch=PATCH, overlap=OVERLAP)
    exact, short = (whole(PREDICTORS[architecture, each], image, lattice).astype(int) for each in PRECISIONS)
    assert 0 < abs(exact - short).max() <= 12
    assert abs(exact - short).mean() < 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_runs_is_folded_narrow_and_in_the_precision_of_the_options(architecture):
    """The network that runs has no norm, only the channels that are written, and weights of the precision alone."""
    model = loaded(architecture)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        network = Predictor(model, PredictOptions(precision=precision)).network
        assert network.out_channels == 3
        assert not any(isinstance(part, nn.BatchNorm3d) for part in network.modules())
        assert {tensor.dtype for tensor in network.state_dict().values()} == {dtype}
    assert model.module.out_channels == len(OFFSETS), "the loaded model stays as it is"


def test_norms_are_folded_on_a_cpu_for_another_device_too(monkeypatch):
    """On a GPU cumulative sums of weights have no fixed order. The device without memory stands for one."""
    places = []
    monkeypatch.setattr(PredictOptions, "resolved_device", lambda _: "meta")

    def folding(network):
        places.append({tensor.device.type for tensor in network.parameters()})
        return folded(network)

    monkeypatch.setattr(predictor, "folded", folding)
    network = Predictor(loaded("plain_gamma"), PredictOptions()).network
    assert places == [{"cpu"}]
    assert {tensor.device.type for tensor in network.parameters()} == {"meta"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_more_channels_are_computed_if_they_are_written(architecture):
    """With five channels the first three are nearly those of a narrower network, and all five are written."""
    image, lattice = image_of((11, 15, 17)), lattice_of((11, 15, 17), patch=PATCH, overlap=OVERLAP)
    five = whole(Predictor(loaded(architecture), PredictOptions(channels=5)), image, lattice)
    assert five.shape[0] == 5
    np.testing.assert_allclose(five[:3].astype(int), whole(PREDICTORS[architecture, "float32"], image, lattice), atol=1)
