import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models.deepem import rsunet_from_deepem


@pytest.fixture(scope="module")
def reference(shared_fixtures):
    """Weights, input and outputs of DeepEM's RSUNet with widths 4, 6, 8, in evaluation mode, float64."""
    with np.load(shared_fixtures / "deepem_rsunet_w4_6_8_f64.npz") as arrays:
        return dict(arrays)


def test_the_network_agrees_with_the_published_code(reference):
    """With the published weights, our RSUNet gives the outputs of DeepEM's code."""
    network = rsunet_from_deepem(reference, torch.float64)
    with torch.inference_mode():
        found = network(torch.from_numpy(reference["x"])).numpy()
    expected = np.concatenate([reference["y__affinity"], reference["y__long_range"]], axis=1)
    assert np.abs(found - expected).max() < 1e-10


def test_the_state_of_a_live_model_is_taken_too(reference):
    """The state of a live model is accepted as well: tensors whose names have no prefix, and a single output."""
    state = {k.removeprefix("w__"): torch.from_numpy(v) for k, v in reference.items() if k.startswith("w__")}
    state = {name: value for name, value in state.items() if not name.startswith("out.long_range")}
    network = rsunet_from_deepem(state)
    assert network.out_channels == 3
    assert not network.training
    assert next(network.parameters()).dtype == torch.float32


def test_a_network_that_pools_z_is_taken_with_its_weights_along_z(reference):
    """A network that pools z is accepted, and its upsampling keeps the published weights, twice too large along z."""
    arrays = {name: value for name, value in reference.items() if name.startswith("w__")}
    for k in range(2):
        name = f"w__core.uconvs.{k}.up.up.0.weight"
        arrays[name] = np.repeat(arrays[name], 4, axis=2)
    published = rsunet_from_deepem(arrays, torch.float64, activation="elu")
    assert published.pools == [(2, 2, 2)] * 2
    assert isinstance(published.down[0].f, torch.nn.ELU)
    enlarge = published.up[0].enlarge
    r = torch.ones(1, 8, 4, 4, 4, dtype=torch.float64)
    with torch.inference_mode():
        inside = enlarge(r)[:, :, 2:-2, 2:-2, 2:-2]
        torch.testing.assert_close(inside, 2 * enlarge.project(r)[:, :, :1, :1, :1].expand_as(inside))


@pytest.mark.parametrize(("factor", "line"), [(3, [1, 2, 3, 2, 1]), (4, [1, 3, 5, 7, 7, 5, 3, 1])])
def test_a_network_that_pools_by_three_or_four_is_taken(reference, factor, line):
    """Pooling by three or four is recognised from the upsampling weights; a third is not rounded to 32 bits.

    For a factor p these weights have sides of 2 p - p mod 2.
    """
    arrays = {name: value for name, value in reference.items() if name.startswith("w__")}
    weights = np.array(line) * factor / sum(line)
    for k, channels in enumerate((8, 6)):
        arrays[f"w__core.uconvs.{k}.up.up.0.weight"] = np.tile(np.outer(weights, weights), (channels, 1, 1, 1, 1))
    network = rsunet_from_deepem(arrays, torch.float64)
    assert network.pools == [(1, factor, factor)] * 2
    ramp = torch.arange(5.0, dtype=torch.float64).expand(1, 8, 1, 5, 5)
    middle = slice(factor, -factor)  # near the border, the interpolation sees zeros
    with torch.inference_mode():
        found = network.up[0].enlarge(ramp)[..., middle, middle]
        steps = (torch.arange(5.0 * factor, dtype=torch.float64) + 0.5) / factor - 0.5  # places in coarse pixels
        expected = network.up[0].enlarge.project(steps[middle].expand_as(found.new_empty(1, 8, *found.shape[2:])))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("w__core.iconv.post.conv.weight"), "conv4.weight is missing"),
        (lambda w: w.pop("w__in.conv.conv.weight"), "are not the weights of DeepEM's RSUNet"),
        (lambda w: w.update({"w__core.gate.weight": np.zeros(3)}), "core.gate.weight is not known"),
        (
            lambda w: w.update({"w__core.iconv.pre.conv.weight": np.zeros((4, 4, 1, 3, 3))}),
            r"has shape \(4, 4, 1, 3, 3\)",
        ),
        (lambda w: w.update({"w__core.uconvs.0.up.up.0.weight": np.ones((8, 1, 1, 4, 4))}), "are not linear ones"),
    ],
)
def test_weights_of_another_network_are_refused(reference, damage, message):
    """Weights that do not make one RSUNet of DeepEM are refused, and the message says what is wrong."""
    arrays = dict(reference)
    damage(arrays)
    with pytest.raises(ModelError, match=message):
        rsunet_from_deepem(arrays)
